"""The mailbox at work: configuration into force, clients' writes onto the bus, the bus into the registers."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from links.bus import Bus
from modbus_server.mailbox.bound_image import BoundImage
from modbus_server.mailbox.display import Display
from modbus_server.mailbox.guard import save_guard
from modbus_server.mailbox.inbox import Inbox
from modbus_server.mailbox.journal import Journal, Record
from modbus_server.mailbox.layout import Layout, lay_out
from modbus_server.mailbox.plans import BoundTag, MailboxPlan, Role
from modbus_server.mailbox.status import Status, show_status
from scada.bus_messages import decode_data, decode_link, decode_state
from scada.errors import ConfigError, Fault
from scada.modbus.image import Image
from scada.topics import BusTopics
from scada.values import Sample
from storage.config_watch import Change

logger = logging.getLogger(__name__)

MAX_NARROW = 200
"""With more devices than these everything on the bus is listened to: the embedded broker allows about a thousand filters."""
EXPIRY_PERIOD_S = 0.25
LINK_PERIOD_S = 0.5
MAX_TOLD = 20
"""Faults of a device in its link's error: the log has all, and a message has its bounds."""

Use = Callable[[Mapping[int, Image]], None]


class Mailbox:
    """One per program; everything runs in its loop."""

    def __init__(
        self, bus: Bus, topics: BusTopics, images: Mapping[int, Image], use: Use, folder: Path, journal: Journal
    ) -> None:
        """`images`: by unit id, as the server itself sees them; `use` takes those that clients shall see.

        `journal` is told by the bus what is safe.
        """
        self._bus = bus
        self._topics = topics
        self._images = images
        self._use = use
        self._folder = folder
        self._plans: dict[int, MailboxPlan] = {}
        self._by_name: dict[str, MailboxPlan] = {}
        self._tags: dict[tuple[str, str], BoundTag] = {}
        self._faults: Mapping[str, tuple[Fault, ...]] = {}
        self._remarks: Mapping[str, tuple[Fault, ...]] = {}
        self._unsaid: set[str] = set()
        self._saying: asyncio.TimerHandle | None = None
        self._pictures: set[str] = set()
        self._changes: set[str] = set()
        self._expiry: asyncio.TimerHandle | None = None
        self._journal = journal
        self._left: Sequence[Record] = ()
        self.inbox = Inbox(images, self._publish)
        self.display = Display(images)
        bus.watch(self._on_bus)

    def device(self, name: str) -> MailboxPlan | None:
        """The plan of the device called `name`."""
        return self._by_name.get(name)

    def told(self, name: str) -> AbstractSet[str] | None:
        """The tags of the device called `name` that we tell of; None: the device is none of ours."""
        plan = self._by_name.get(name)
        return None if plan is None else _told_names(plan)

    def settable(self, device: str, tag: str) -> BoundTag:
        """A tag whose registers commands write; raises ConfigError where it was left out."""
        found = self._tags.get((device, tag))
        if found is None or found.encode is None or found.role is Role.SHOWN:
            faults = "; ".join(map(str, self._faults.get(device, ()))) or "it has no registers here"
            raise ConfigError(f"{device}@{tag} cannot be set: {faults}")
        return found

    def present(self, tag: BoundTag) -> Sample:
        """What stands in a tag's registers now."""
        return self.inbox.present(tag, _now_ms())

    def read(self, device: str, names: Collection[str]) -> list[Sample]:
        """What stands in the registers of these tags now."""
        return self.inbox.read(device, names, _now_ms(), time.monotonic())

    def put(self, values: Sequence[tuple[BoundTag, bytes]]) -> None:
        """Write encoded values into their registers, all before anybody can read any."""
        self.inbox.put(values, _now_ms(), time.monotonic())

    def open(self) -> None:
        """Find what an earlier run did not get onto the bus. Waits for the disk: to be called in a thread, before `apply`."""
        self._left = self._journal.open()

    def lay_out(self, change: Change[MailboxPlan]) -> Layout:
        """What the registers will be with a change. Takes its time with many tags: to be called in a thread, before `apply`."""
        return lay_out(self._plans_after(change).values(), self._images)

    def apply(self, change: Change[MailboxPlan], layout: Layout) -> None:
        """Put a new configuration into force; clients stay connected."""
        self._withdraw(change)
        self._call_bad(layout)
        self._plans = self._plans_after(change)
        self._by_name = {plan.name: plan for plan in self._plans.values()}
        self._tags = {(tag.device, tag.name): tag for tag in layout.tags}
        self._publish_left()
        now_s = time.monotonic()
        self.inbox.apply((tag for tag in layout.tags if tag.role is not Role.SHOWN), _now_ms(), now_s)
        unknown = self.display.apply((tag for tag in layout.tags if tag.role is Role.SHOWN), now_s)
        self._show(layout)
        self._report(layout)
        self._listen(unknown)
        self._watch_age()

    def _plans_after(self, change: Change[MailboxPlan]) -> dict[int, MailboxPlan]:
        kept = {device_id: plan for device_id, plan in self._plans.items() if device_id not in change.removed}
        return kept | {plan.device_id: plan for plan in change.plans}

    def save_guard(self, layout: Layout) -> None:
        """Keep on disk what the next start has to be careful with. Waits for the disk: to be called in a thread."""
        save_guard(self._folder, layout.tags)

    def close(self) -> None:
        """Nobody keeps what is shown up any more: it is not good."""
        self._stop_looking()
        if self._saying is not None:
            self._saying.cancel()
        self.display.bus(False, time.monotonic())
        self._journal.close()

    def _publish(self, device: str, samples: Sequence[Sample], written: bool) -> None:
        if written:
            # Somebody is answered after this: what is said to be written must outlive a kill.
            self._journal.add(device, samples)
        else:
            self._journal.skip(device, len(samples))
        self._bus.publish(device, samples)

    def _publish_left(self) -> None:
        """What was written before a kill, with its own time; before anything is told of the same tags."""
        for record in self._left:
            samples = [
                sample._replace(late=True)
                for sample in record.samples
                if (tag := self._tags.get((record.device, sample.tag))) is not None and tag.role is not Role.SHOWN
            ]
            self._journal.again(record, len(samples))
            self._bus.publish(record.device, samples)
        if self._left:
            logger.info("%d messages of an earlier run were not on the bus yet", len(self._left))
        self._left = ()

    def _stop_looking(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _withdraw(self, change: Change[MailboxPlan]) -> None:
        """What was told under names that are gone. Names may change hands within one change."""
        new = {plan.device_id: plan for plan in change.plans}
        for device_id in [*change.removed, *new]:
            old = self._plans.get(device_id)
            if old is None:
                continue
            plan = new.get(device_id)
            if plan is None or plan.name != old.name:
                self._bus.forget(old.name)
            elif gone := _told_names(old) - _told_names(plan):
                self._bus.forget(plan.name, gone)

    def _call_bad(self, layout: Layout) -> None:
        """Nobody keeps up the status of a tag that is gone: it must not say good for ever."""
        kept = set(layout.tags)
        for tag in self._tags.values():
            if tag not in kept:
                show_status(self._images[tag.place.unit_id], tag, Status.BAD)

    def _show(self, layout: Layout) -> None:
        bound: dict[Image, Image] = {
            image: BoundImage(image, unit, self.display.hidden, self._on_written)
            for image, unit in layout.units.items()
        }
        self._use({unit_id: bound.get(image, image) for unit_id, image in self._images.items()})

    def _report(self, layout: Layout) -> None:
        for level, what, new, old in (
            (logging.ERROR, "left out: ", layout.faults, self._faults),
            (logging.WARNING, "", layout.remarks, self._remarks),
        ):
            for device, found in new.items():
                if found != old.get(device):
                    for fault in found:
                        logger.log(level, "%s: %s%s", device, what, fault)
        self._faults, self._remarks = layout.faults, layout.remarks
        for name in self._by_name:
            self._tell_link(name)

    def _tell_link(self, device: str) -> None:
        found = [
            *map(str, self._faults.get(device, ())),
            *self.display.misfits(device),
            *map(str, self._remarks.get(device, ())),
        ]
        if len(found) > MAX_TOLD:
            found[MAX_TOLD:] = [f"and {len(found) - MAX_TOLD} more"]
        self._bus.link(device, True, "; ".join(found) or None)

    def _tell_link_soon(self, device: str) -> None:
        """Values that fit and do not fit in turn must not fill the bus."""
        self._unsaid.add(device)
        if self._saying is None:
            self._saying = asyncio.get_running_loop().call_later(LINK_PERIOD_S, self._tell_unsaid)

    def _tell_unsaid(self) -> None:
        self._saying = None
        for device in self._unsaid & self._by_name.keys():
            self._tell_link(device)
        self._unsaid.clear()

    def _listen(self, unknown: Iterable[str]) -> None:
        """Subscribe to what is shown; `unknown`: devices whose retained state has to come again."""
        devices = self.display.devices
        wide = len(devices) > MAX_NARROW
        names: set[str] = {"+"} if wide and devices else set(devices)
        changes = {self._topics.data("+", name) for name in names}
        pictures = {self._topics.state("+", name) for name in names}
        if names:
            pictures.add(self._topics.server("+"))
        again = {self._topics.state("+", "+" if wide else name) for name in unknown} & self._pictures
        gone = (self._changes - changes) | (self._pictures - pictures)
        if gone:
            self._bus.unsubscribe(gone)
        self._bus.subscribe(changes - self._changes, self._on_message)
        self._bus.subscribe(pictures - self._pictures, self._on_message, retained=True)
        self._bus.ask_again(again)
        self._changes, self._pictures = changes, pictures

    def _on_bus(self, online: bool) -> None:
        self.display.bus(online, time.monotonic())
        if online:
            # A resumed session brings what was published meanwhile, as far as the broker's queue held it, and no retained states.
            self._bus.ask_again(self._pictures)

    def _on_message(self, topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        parts = self._topics.split(topic)
        if parts is None:
            return
        now_s = time.monotonic()
        if parts.kind == "server":
            self.display.server(parts.owner, bool(payload) and decode_link(payload).online, now_s)
        elif parts.device not in self.display.devices:
            return
        elif not payload:
            self.display.forget(parts.owner, parts.device, now_s)
        else:
            is_state = parts.kind == "state"
            samples, faults = decode_state(payload) if is_state else decode_data(payload)
            again = retained or repeat
            if self.display.take(parts.owner, parts.device, samples, now_s, state=is_state, again=again):
                self._tell_link_soon(parts.device)
            if faults:
                logger.warning("%s: %s", topic, "; ".join(faults[:3]))

    def _on_written(self, tags: Sequence[BoundTag], address: int, count: int) -> None:
        self.inbox.written(tags, address, count, _now_ms(), time.monotonic())

    def _watch_age(self) -> None:
        is_needed = any(tag.stale_after_s for tag in self._tags.values())
        if is_needed and self._expiry is None:
            self._expire()
        elif not is_needed:
            self._stop_looking()

    def _expire(self) -> None:
        now_s = time.monotonic()
        self.inbox.expire(_now_ms(), now_s)
        self.display.expire(now_s)
        self._expiry = asyncio.get_running_loop().call_later(EXPIRY_PERIOD_S, self._expire)


def _told_names(plan: MailboxPlan) -> AbstractSet[str]:
    return {tag.name for tag in plan.tags if tag.role is not Role.SHOWN}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

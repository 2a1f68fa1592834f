"""Values that come over the bus, on their way into registers and messages: which of them count, and whether a source is well.

A tag on the bus that says nothing is as it was, so silence tells nothing about it. Its source is well while its last sample is
good, its owner is there and the bus is heard; else a binding's fail-safe begins to count.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from scada.feeds import FeedPlan
from scada.mapping import DevicePlan
from scada.outputs import OutPlan
from scada.values import Quality, Sample, Value


class Drain(Protocol):
    """Where values go: the gateway, or a test's notebook."""

    def write(self, out: OutPlan, value: Value, time_ms: int) -> None:
        """A value for registers."""

    def source(self, out: OutPlan, well: bool) -> bool:
        """Whether the source of a binding is well. True when its fail-safe is in force: the value is to be written again."""

    def send(self, device_id: int, values: Mapping[str, Value]) -> None:
        """Values for one message, by tag."""


class _Feed:
    """One tag. `newest_ms`: the source time of the newest sample, `event_ms`: of those that are no state; `well`: None before."""

    __slots__ = ("event_ms", "good", "is_state", "newest_ms", "owner", "plan", "value", "well")

    def __init__(self, plan: FeedPlan) -> None:
        self.plan = plan
        self.owner = ""
        self.good = False
        self.well: bool | None = None
        self.newest_ms = self.event_ms = -1
        self.is_state = False
        """The newest sample was in a state: those that led to it may still come."""
        self.value: Value | None = None

    def copy_from(self, other: "_Feed") -> None:
        """The same tag, with an older plan."""
        self.owner, self.good, self.value = other.owner, other.good, other.value
        self.newest_ms, self.event_ms, self.is_state = other.newest_ms, other.event_ms, other.is_state


class Feeds:
    """Every tag that is fed from the bus. Runs in one event loop."""

    def __init__(self, drain: Drain) -> None:
        self._drain = drain
        self._devices: dict[str, dict[str, _Feed]] = {}
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._gone: set[str] = set()
        self._heard = True

    def __bool__(self) -> bool:
        return bool(self._devices)

    def put(self, plan: DevicePlan) -> bool:
        """Feed a device from now on, or otherwise than before. Whether there are tags whose last value must be asked for."""
        name = self._names.get(plan.device_id)
        old = self._devices.get(name, {}) if name is not None else {}
        if name is not None and self._ids.get(name) == plan.device_id:
            del self._devices[name], self._ids[name], self._names[plan.device_id]
        if not plan.feeds:
            return False
        feeds = {tag: _Feed(feed) for tag, feed in plan.feeds.items()}
        self._devices[plan.name], self._ids[plan.name], self._names[plan.device_id] = feeds, plan.device_id, plan.name
        if name != plan.name:
            return True
        for tag, feed in feeds.items():
            before = old.get(tag)
            if before is not None and _places(before.plan) == _places(feed.plan):
                feed.copy_from(before)
                self._judge(feed)
        return any(feed.newest_ms < 0 for feed in feeds.values())

    def remove(self, device_id: int) -> None:
        """A device that is gone."""
        name = self._names.pop(device_id, None)
        if name is not None and self._ids.get(name) == device_id:
            del self._devices[name], self._ids[name]

    def feeds(self, device: str) -> bool:
        """Whether samples of the device are of any use here."""
        return device in self._devices

    def take(self, owner: str, device: str, samples: Iterable[Sample], *, repeat: bool, is_state: bool) -> None:
        """Samples in order. A state, a repeat and what comes late say nothing where something newer is known.

        Bindings with `every_value` take what happened, in order, and no states.
        """
        feeds = self._devices.get(device)
        if feeds is None:
            return
        message: dict[str, Value] = {}
        for sample in samples:
            feed = feeds.get(sample.tag)
            if feed is None:
                continue
            is_old = repeat or is_state or sample.late
            is_news = not ((is_old or feed.is_state) and sample.time_ms <= feed.newest_ms)
            is_event = not is_state and not (is_old and sample.time_ms < feed.event_ms)
            if is_news:
                feed.newest_ms, feed.is_state = sample.time_ms, is_state
                feed.owner = owner
                feed.good = sample.quality is Quality.GOOD and sample.value is not None
                self._judge(feed)
            if is_event:
                feed.event_ms = sample.time_ms
            if sample.quality is not Quality.GOOD or sample.value is None:
                continue
            for out in feed.plan.outs:
                if is_event if out.options.every_value else is_news:
                    self._drain.write(out, sample.value, sample.time_ms)
            if is_news:
                feed.value = sample.value
                if feed.plan.publication is not None:
                    message[sample.tag] = sample.value
        if message:
            self._drain.send(self._ids[device], message)

    def owner(self, owner: str, online: bool) -> None:
        """A program came or went."""
        if online:
            self._gone.discard(owner)
        else:
            self._gone.add(owner)
        self._judge_all()

    def bus(self, online: bool) -> None:
        """The bus is heard, or not."""
        if online != self._heard:
            self._heard = online
            self._judge_all()

    def _judge_all(self) -> None:
        for feeds in self._devices.values():
            for feed in feeds.values():
                if feed.owner:
                    for out in self._judge(feed):
                        if feed.value is not None:
                            self._drain.write(out, feed.value, feed.newest_ms)

    def _judge(self, feed: _Feed) -> list[OutPlan]:
        """Returns where a fail-safe stands though the source is well."""
        well = feed.good and self._heard and feed.owner not in self._gone
        if well == feed.well:
            return []
        feed.well = well
        return [out for out in feed.plan.outs if self._drain.source(out, well) and well]


def _places(plan: FeedPlan) -> object:
    """What decides whether a value has to go out again after a change of the configuration."""
    publication = plan.publication
    return [(out.config, out.network) for out in plan.outs], publication and (publication.binding_id, publication.keys)

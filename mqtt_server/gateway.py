"""The gateway: messages in, values to their outlets, acknowledgements back; and a new configuration without a restart."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Mapping

from links.mqtt import Delivery, MqttLink
from mqtt_server.feeds import Feeds
from mqtt_server.filters import Filters
from mqtt_server.heard import Heard
from mqtt_server.outlet import Outlet
from mqtt_server.parking import Parking
from mqtt_server.publisher import Publisher
from mqtt_server.rejects import Rejects
from mqtt_server.samples import Samples
from mqtt_server.slots import Entry, Slot, Ticket
from scada.loops import Node, find_loops, may_loop
from scada.mapping import DevicePlan
from scada.modbus.endpoint import Endpoint
from scada.outputs import OutPlan, Write
from scada.payload import HEAD_BYTES
from scada.topic_index import TopicIndex
from scada.topics import BusTopics
from scada.values import BadValue, RejectCode, Value
from storage.config_watch import Change
from storage.outbox import OutboxRow

log = logging.getLogger(__name__)

_NO_DELIVERY = Delivery(0, 0, 0)


class Gateway:
    """Everything between the broker and the outlets. Runs in one event loop; its methods are called from that loop only."""

    def __init__(self, rejects: Rejects, samples: Samples, heard: Heard, topics: BusTopics) -> None:
        self._rejects = rejects
        self._samples = samples
        self._heard = heard
        self._bus = f"{topics.root}/"
        self.feeds = Feeds(self)
        self._plans: dict[int, DevicePlan] = {}
        self._topics: TopicIndex[int] = TopicIndex()
        self._filters = Filters()
        self._routes: dict[int, tuple[Outlet, Slot]] = {}
        self._outlets: dict[tuple[str, str, int], tuple[Outlet, asyncio.Task[None]]] = {}
        self._last_tickets: dict[str, Ticket] = {}
        """The last unacknowledged message of each topic."""
        self._restore: dict[int, list[OutboxRow]] = {}
        self._receiving = True
        self._parking: Parking
        self._link: MqttLink
        self._publisher: Publisher | None = None
        self._names: dict[str, DevicePlan] = {}
        self._loops: set[Node] = set()

    def attach(self, parking: Parking, link: MqttLink) -> None:
        """Both call back into this gateway, so they are made after it."""
        self._parking = parking
        self._link = link
        self._filters.attach(link)
        self._publisher = Publisher(link, self._refuse)

    def find(self, name: str) -> DevicePlan | None:
        """The plan of the device called `name`."""
        return self._names.get(name)

    def plans(self, device_ids: Iterable[int]) -> list[DevicePlan]:
        """Those of the devices that are in force."""
        return [self._plans[device_id] for device_id in device_ids if device_id in self._plans]

    def connection(self, online: bool) -> None:
        """The link to the broker came or went."""
        if online:
            self._heard.judge(self._link.resumed)
        self._samples.broker(online, self._link.resumed, self._link.error)
        if self._publisher is not None:
            self._publisher.connection(online)

    def receive(self, topic: str, payload: bytes, retained: bool, delivery: Delivery) -> None:
        """One message from the broker; never raises. After `stop_receiving` it is left to be delivered again."""
        if not self._receiving:
            return
        if topic.startswith(self._bus):
            self._link.acknowledge(
                delivery
            )  # for a device's filter that takes everything: what we say is no device's word
            return
        ticket = Ticket(delivery, topic, delivery.qos > 0, payload[:HEAD_BYTES])
        ticket.waiting = 1  # held by this method until every value has been offered
        if delivery.qos:
            # Acknowledged in order: what the broker sends again after a crash is never older than what it keeps to itself.
            before = self._last_tickets.get(topic)
            if before is not None:
                before.following = ticket
                ticket.waiting = 2
            self._last_tickets[topic] = ticket
        try:
            self._spread(topic, payload, retained, ticket)
        except Exception:  # the top of a message: it is reported and skipped, the next one must not suffer
            log.exception("message on %s failed", topic)
            self._reject(
                RejectCode.INTERNAL, "a fault in the gateway; its log has the details", topic, payload, None, None
            )
        self.settle((ticket,))

    def settle(self, tickets: Iterable[Ticket]) -> None:
        """One value less to wait for, for each of `tickets`; a message without any is acknowledged."""
        for each in tickets:
            ticket: Ticket | None = each
            while ticket is not None:
                ticket.waiting -= 1
                if ticket.waiting:
                    break
                self._link.acknowledge(ticket.delivery)
                if self._last_tickets.get(ticket.topic) is ticket:
                    del self._last_tickets[ticket.topic]
                # Let go of: a value that waits may name its message for long, and must not keep all later ones.
                ticket.following, ticket = None, ticket.following

    def report(self, code: RejectCode, reason: str, out: OutPlan, value: Value, source: Ticket | None) -> None:
        """A value that a device did not take, and the message that it came in; where it came in none, the value stands for it."""
        topic, head = ("", b"") if source is None else (source.topic, source.head)
        self._reject(code, reason, topic, head if topic else repr(value).encode(), out.device, out.tag)

    def restore(self, rows: Iterable[OutboxRow]) -> None:
        """Values that an earlier run left on disk; each goes to its binding as soon as that is configured."""
        for row in rows:
            self._restore.setdefault(row.binding_id, []).append(row)

    def write(self, out: OutPlan, value: Value, time_ms: int) -> None:
        """A value that came over the bus, for registers."""
        try:
            write = Write(out, out.encode(value), value, time_ms)
        except BadValue as error:
            self.report(error.code, f"{out.place}: {error}", out, value, None)
            return
        outlet, slot = self._routes[out.binding_id]
        # The bus has acknowledged it already: a ticket that nobody waits for makes it go to the outbox like any other.
        outlet.put(slot, write, Ticket(_NO_DELIVERY, owed=False))

    def source(self, out: OutPlan, well: bool) -> bool:
        """Whether the source of a binding on the bus is well; True when its fail-safe was in force."""
        outlet, slot = self._routes[out.binding_id]
        return outlet.source(slot, well)

    def send(self, device_id: int, values: Mapping[str, Value]) -> None:
        """Values that came over the bus, for a message."""
        if self._loops:
            values = {tag: value for tag, value in values.items() if (device_id, tag) not in self._loops}
        if self._publisher is not None:
            self._publisher.send(device_id, values)

    def apply(self, change: Change[DevicePlan]) -> bool:
        """Put a new configuration into force; only what changed is touched. Whether values must be asked for on the bus."""
        for device_id in change.removed:
            self._remove_device(device_id)
        # Names may change hands within one change: what was told under them is withdrawn before anything new is told.
        for plan in change.plans:
            old = self._plans.get(plan.device_id)
            if old is not None and old.name != plan.name:
                self._samples.remove(plan.device_id)
                self.feeds.remove(plan.device_id)
        ask = False
        for plan in change.plans:
            ask |= self._put_device(plan)
        self._names = {plan.name: plan for plan in self._plans.values()}
        self._break_loops()
        self._filters.apply()
        self._close_unused()
        return ask

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Devices, tags (read, or fed from the bus) and endpoints in force."""
        tags = sum(len(plan.tags) + len(plan.feeds) for plan in self._plans.values())
        return len(self._plans), tags, len(self._outlets)

    def stop_receiving(self) -> None:
        """Leave further messages to the broker."""
        self._receiving = False

    async def drained(self) -> None:
        """Wait until no value waits for its device any more."""
        for outlet, _ in list(self._outlets.values()):
            await outlet.quiet.wait()
        if self._publisher is not None:
            await self._publisher.drained()

    async def close(self) -> None:
        """Put on disk what still waits, then end every link."""
        for outlet, task in self._outlets.values():
            outlet.park(outlet.slots.values())
            task.cancel()
        await asyncio.gather(*(task for _, task in self._outlets.values()), return_exceptions=True)

    def _spread(self, topic: str, payload: bytes, retained: bool, ticket: Ticket) -> None:
        device_ids = self._topics.find(topic)
        now_ms = time.time_ns() // 1_000_000
        if not device_ids:
            self._reject(RejectCode.BAD_TOPIC, "no device listens on this topic", topic, payload, None, None)
            self._link.unsubscribe((topic,))  # an earlier run's session may still hold it
        routes, live = self._routes, self._heard.live
        session, is_repeat = ticket.delivery.session, ticket.delivery.is_repeat
        for device_id in device_ids:
            plan = self._plans[device_id]
            if not retained:
                if device_id not in live:
                    self._heard.add(device_id, plan.topic or topic, ticket)
            else:
                self._heard.judge(self._link.resumed)
                if self._heard.precedes(device_id):
                    continue  # repeated because we subscribed again: newer values stand already
            writes, rejects, reports = plan.map(payload, now_ms)
            self._samples.take(device_id, reports, session, is_repeat, retained)
            for code, reason, tag in rejects:
                self._reject(code, reason, topic, payload, plan.name, tag)
            if is_repeat:
                writes = [write for write in writes if not self._is_superseded(write, ticket)]
            for write in writes:
                outlet, slot = routes[write.out.binding_id]
                if retained:
                    outlet.recall(slot, write, ticket)  # and a repeat that comes behind it is newer
                else:
                    slot.session = 0 if is_repeat else session
                    outlet.offer(slot, write, ticket)

    def _is_superseded(self, write: Write, ticket: Ticket) -> bool:
        """A repeat that comes after a newer value of its binding: some brokers send unacknowledged messages again only
        after a while (the embedded one). Its message then waits for that newer value. With `every_value` all are written.
        """
        _, slot = self._routes[write.out.binding_id]
        if slot.out.options.every_value or slot.session != ticket.delivery.session:
            return False
        newest = slot.newest()
        if newest is not None and not newest.parked:
            newest.tickets.append(ticket)
            ticket.waiting += 1
        return True

    def _reject(
        self, code: RejectCode, reason: str, topic: str, payload: bytes, device: str | None, tag: str | None
    ) -> None:
        now_ms = time.time_ns() // 1_000_000
        self._rejects.add(code, reason, time_ms=now_ms, topic=topic, payload=payload, device=device, tag=tag)

    def _refuse(self, code: RejectCode, reason: str, device: str, tag: str | None, value: Value | None) -> None:
        """A value that no message can carry."""
        self._reject(code, reason, "", repr(value).encode(), device, tag)

    def _put_device(self, plan: DevicePlan) -> bool:
        for fault in plan.faults:
            log.error("%s: left out: %s", plan.name, fault)
            self._reject(RejectCode.BAD_CONFIG, str(fault), plan.topic or "", b"", plan.name, None)
        old = self._plans.get(plan.device_id)
        if old is not None:
            self._forget_topic(old)
            if old.topic != plan.topic:
                self._heard.forget(plan.device_id)
        self._plans[plan.device_id] = plan
        if plan.topic is not None:
            self._topics.add(plan.topic, plan.device_id)
            self._filters.add(plan.topic)
        outs = {out.binding_id: out for out in _outs(plan)}
        for binding_id in _bindings(old) - outs.keys():
            self._remove_route(binding_id)
        for out in outs.values():
            self._put_route(out)
        self._samples.put(plan)
        if self._publisher is not None:
            self._publisher.put(plan)
        return self.feeds.put(plan)

    def _remove_device(self, device_id: int) -> None:
        plan = self._plans.pop(device_id)
        self._forget_topic(plan)
        self._heard.forget(device_id)
        self._samples.remove(device_id)
        self.feeds.remove(device_id)
        if self._publisher is not None:
            self._publisher.remove(device_id)
        for binding_id in _bindings(plan):
            self._remove_route(binding_id)

    def _break_loops(self) -> None:
        """Tags whose messages would come back to them are left out of the messages."""
        plans = self._plans.values()
        loops = find_loops(plans) if may_loop(plans) else set()
        for device_id, tag in loops - self._loops:
            plan = self._plans[device_id]
            text = f"its value on {plan.out_topic} would come back to it: it is left out of the messages"
            log.error("%s@%s: %s", plan.name, tag, text)
            self._reject(RejectCode.BAD_CONFIG, text, plan.out_topic, b"", plan.name, tag)
        self._loops = loops

    def _forget_topic(self, plan: DevicePlan) -> None:
        if plan.topic is not None:
            self._topics.remove(plan.topic, plan.device_id)
            self._filters.remove(plan.topic)

    def _put_route(self, out: OutPlan) -> None:
        """A new binding gets a slot; a changed one keeps the values that wait, encoded anew."""
        waiting: list[tuple[Entry, list[Ticket]]] = []
        route = self._routes.get(out.binding_id)
        if route is not None:
            outlet, slot = route
            if slot.out.config == out.config and slot.out.network == out.network:
                slot.adopt(out)
                return
            waiting = [(entry, entry.take_tickets()) for entry in slot.entries()]
            if not waiting and slot.last is not None and out.options.rewrite_s:
                waiting = [(Entry(slot.last, []), [])]  # it would have been written again, so it is
            outlet.remove(out.binding_id)
            self._parking.clear(out.binding_id)
        outlet = self._outlet(out.endpoint)
        slot = outlet.add(out)
        if route is not None:
            slot.session = route[1].session
        self._routes[out.binding_id] = outlet, slot
        for entry, tickets in waiting:
            self._offer_again(outlet, slot, entry, tickets)
        for row in self._restore.pop(out.binding_id, ()):
            self._offer_row(outlet, slot, row)

    def _offer_again(self, outlet: Outlet, slot: Slot, old: Entry, tickets: list[Ticket]) -> None:
        """A value that was waiting for its binding's old place goes to the new one, and to disk as it was there."""
        write = old.write
        try:
            data = slot.out.encode(write.value)
        except BadValue as error:
            self.report(error.code, f"{slot.out.place}: {error}", slot.out, write.value, old.source)
            self.settle(tickets)
            return
        outlet.put(slot, Write(slot.out, data, write.value, write.time_ms), None)
        entry = slot.queue[-1]
        entry.tickets += tickets
        entry.source = old.source
        if tickets or old.parked:
            self._parking.put(slot, entry)

    def _offer_row(self, outlet: Outlet, slot: Slot, row: OutboxRow) -> None:
        """A value from the outbox."""
        try:
            write = Write(slot.out, slot.out.encode(row.value), row.value, row.time_ms)
        except BadValue as error:
            self.report(error.code, f"{slot.out.place}: {error}", slot.out, row.value, None)
            self._parking.clear(row.binding_id)
            return
        outlet.put(slot, write, None)
        self._parking.restored(slot, slot.queue[-1], row)

    def _remove_route(self, binding_id: int) -> None:
        """The binding is gone: what waited for it has no place to go."""
        outlet, slot = self._routes.pop(binding_id)
        outlet.remove(binding_id)
        self._parking.clear(binding_id)
        for entry in slot.entries():
            self.settle(entry.take_tickets())

    def _outlet(self, endpoint: Endpoint) -> Outlet:
        known = self._outlets.get(endpoint.address)
        if known is None:
            outlet = Outlet(endpoint, self._parking, self.settle, self.report)
            known = self._outlets[endpoint.address] = (
                outlet,
                asyncio.create_task(outlet.run(), name=f"outlet {endpoint}"),
            )
        return known[0]

    def _close_unused(self) -> None:
        for address, (outlet, task) in list(self._outlets.items()):
            if not outlet.slots:
                del self._outlets[address]
                task.cancel()


def _outs(plan: DevicePlan) -> Iterator[OutPlan]:
    """Every place in registers that the device's tags go to."""
    for tag in plan.tags:
        yield from tag.outs
    for feed in plan.feeds.values():
        yield from feed.outs


def _bindings(plan: DevicePlan | None) -> set[int]:
    return set() if plan is None else {out.binding_id for out in _outs(plan)}

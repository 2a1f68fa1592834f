"""Writes the values of one endpoint: latest first, one request in flight, whatever the device does.

A message is settled (its ticket counted down) when its value was confirmed by the device, superseded by a newer confirmed one,
rejected and reported, or stands in the outbox on disk. A value that has to wait longer than HOLD_S goes to the outbox, so
a dead device never holds the broker's window.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import cast

from drivers.modbus.writer import ModbusWriter
from links.backoff import Backoff
from mqtt_server.parking import Parking
from mqtt_server.slots import Entry, Slot, Ticket
from mqtt_server.upkeep import Upkeep
from scada.errors import DeviceRefused, LinkError, ProtocolError, Side
from scada.modbus.endpoint import Endpoint, Transport
from scada.modbus.writes import WriteRequest, plan_writes
from scada.outputs import OutPlan, Write, flag_plan
from scada.values import RejectCode, Value

log = logging.getLogger(__name__)

HOLD_S = 0.25
"""Longest time that a value waits for its device before it is put on disk and its message is acknowledged."""

# MODBUS Application Protocol V1.1b3, section 7: the device is there and asks for patience, or the path behind a gateway is not.
BUSY_CODES = frozenset({5, 6})
UNREACHABLE_CODES = frozenset({10, 11})
BUSY_PAUSE_S = 1.0

RETRY_CAP_S = 4.0
"""Longest pause between two attempts, with the backoff's jitter below 5 s: so late at most is a repaired device noticed."""
UNIT_CAP_S = 30.0
"""The same for one unit among several: each attempt costs the others behind the endpoint one `timeout_s`."""
WAKE_STEP_S = 0.02
"""Values that may go out at slightly different times are looked at together."""

Settle = Callable[[Iterable[Ticket]], None]
Report = Callable[[RejectCode, str, OutPlan, Value, Ticket | None], None]
"""Lists a value that was not written, with the message that it came in."""


class Unit:
    """What is known of one unit behind the endpoint: when it may be asked again."""

    __slots__ = ("backoff", "error", "retry_at")

    def __init__(self, cap_s: float) -> None:
        self.backoff = Backoff(cap_s=cap_s)
        self.retry_at = float("-inf")
        self.error: str | None = None


class Outlet:
    """The link to one endpoint and the slots of all bindings behind it."""

    def __init__(self, endpoint: Endpoint, parking: Parking, settle: Settle, report: Report) -> None:
        self.endpoint = endpoint
        self.slots: dict[int, Slot] = {}
        self._parking = parking
        self._settle = settle
        self._report = report
        self._writer = ModbusWriter(endpoint)
        self._is_merged = False
        self._link = Unit(RETRY_CAP_S)
        self._units: dict[int, Unit] = {}
        self._dirty: dict[Slot, None] = {}
        """Slots with a new value to send."""
        self._waiting: dict[Slot, None] = {}
        """Slots with a value that may not go out before `_wake_time`."""
        self._wake_time = float("inf")
        self._ready = asyncio.Event()
        self.quiet = asyncio.Event()
        """Set while nothing waits and nothing is in flight."""
        self.quiet.set()
        self._wake_at: asyncio.TimerHandle | None = None
        self._hold: asyncio.TimerHandle
        self._upkeep = Upkeep(self.put, report)
        self._loop = asyncio.get_running_loop()

    def add(self, out: OutPlan) -> Slot:
        """A slot for a binding; starts its fail-safe timer."""
        slot = self.slots[out.binding_id] = Slot(out)
        flag = flag_plan(out)
        if flag is not None:
            slot.flag = self.slots[flag.binding_id] = Slot(flag)
        self._upkeep.start(slot)
        self._is_merged = False
        return slot

    def remove(self, binding_id: int) -> Slot:
        """Forget a binding. Its values that wait are the caller's to settle; an answer that still comes changes nothing."""
        slot = self.slots.pop(binding_id)
        slot.gone = True
        if slot.flag is not None:
            self.remove(slot.flag.out.binding_id)
        self._dirty.pop(slot, None)
        self._waiting.pop(slot, None)
        self._upkeep.forget(slot)
        self._is_merged = False
        return slot

    def offer(self, slot: Slot, write: Write, ticket: Ticket | None) -> None:
        """A new value from a binding's source; it is sent as soon as the link is free."""
        if slot.out.options.failsafe is not None:
            self._upkeep.heard(slot)
        self.put(slot, write, ticket)

    def recall(self, slot: Slot, write: Write, ticket: Ticket) -> None:
        """A value that the broker has kept: it does not tell that the source is there, nor does it end a fail-safe value."""
        failsafe = slot.out.options.failsafe
        if not (slot.silent and failsafe is not None and failsafe.value is not None):
            self.put(slot, write, ticket)

    def source(self, slot: Slot, well: bool) -> bool:
        """Whether the source of a slot is well, where it says so; see `Upkeep.source`."""
        return self._upkeep.source(slot, well)

    def put(self, slot: Slot, write: Write, ticket: Ticket | None) -> None:
        """A value that tells nothing about its source: an old one, or one of ours."""
        dropped = slot.offer(write, ticket)
        if dropped:
            self._drop(slot, dropped, RejectCode.OVERFLOW, f"{slot.out.place}: queue full, oldest value dropped")
        self.mark(slot)

    def mark(self, slot: Slot) -> None:
        """`slot` has a value to send."""
        if not slot.gone:
            self._dirty[slot] = None
            self._ready.set()
            self.quiet.clear()

    def park(self, slots: Iterable[Slot]) -> None:
        """Put on disk what messages wait for; they are settled once it is there."""
        for slot in slots:
            for entry in slot.entries():
                if entry.tickets and not entry.parked and not slot.gone:
                    self._parking.put(slot, entry)

    async def run(self) -> None:
        """Send values until cancelled."""
        try:
            while True:
                await self._ready.wait()
                self._ready.clear()
                try:
                    await self._cycle()
                except Exception:  # the top of this task: a fault of ours must not silence the endpoint for good
                    log.exception("%s: a fault in the gateway; tried again", self.endpoint)
                    self._link.error = "a fault in the gateway"
                    self._link.retry_at = self._loop.time() + self._link.backoff.next_delay_s()
                    self._requeue(slot for slot in self.slots.values() if slot.inflight is not None)
                    await self._writer.close()
                if not self._dirty and not self._waiting:
                    self.quiet.set()
        finally:
            self._upkeep.close()
            if self._wake_at is not None:
                self._wake_at.cancel()
            await self._writer.close()

    @property
    def error(self) -> str | None:
        """Why the endpoint or one of its units is not reached; None when all is well."""
        return self._link.error or next((unit.error for unit in self._units.values() if unit.error), None)

    async def _cycle(self) -> None:
        if not self._is_merged:
            await self._merge()
        batch = self._collect(self._loop.time())
        if not batch:
            return
        self._hold = self._loop.call_later(HOLD_S, self._park_waiting)
        try:
            requests = plan_writes(batch)
            for index, request in enumerate(requests):
                if not self._writer.connected and not await self._connect():
                    self._requeue(slot for rest in requests[index:] for slot in _slots(rest))
                    break
                await self._send(request)
        finally:
            self._hold.cancel()

    def _collect(self, now: float) -> list[Slot]:
        """The slots whose next value may go out now, each with that value in flight; the others are put on disk."""
        batch: list[Slot] = []
        late: list[Slot] = []
        dirty, self._dirty = self._dirty, {}
        if self._wake_time <= now:
            dirty = self._waiting | dirty
            self._waiting, self._wake_time = {}, float("inf")
        wake_at = self._wake_time
        for slot in dirty:
            retry_at = max(slot.not_before, self._unit(slot.unit_id).retry_at, self._link.retry_at)
            if retry_at > now:
                self._waiting[slot] = None
                late.append(slot)
                wake_at = min(wake_at, retry_at)
                continue
            while (entry := slot.take()) is not None:
                if slot.refused_until > now:
                    slot.inflight = None
                    self._drop(slot, [entry], RejectCode.DEVICE_REFUSED, slot.refusal)
                elif slot.unchanged(entry.write):
                    slot.inflight = None
                    self._finish(slot, entry)
                else:
                    batch.append(slot)
                    break
            if slot.queue:
                self._dirty[slot] = None
        if late:
            self.park(late)
        if wake_at != self._wake_time:
            self._wake(max(wake_at, now + WAKE_STEP_S))
        return batch

    async def _merge(self) -> None:
        """One link serves all devices behind the address: it is as patient as the most patient of them."""
        self._is_merged = True
        if not self.slots:
            return
        wanted = {slot.out.endpoint: None for _, slot in sorted(self.slots.items())}
        first = next(iter(wanted))
        merged = replace(
            first,
            timeout_s=max(each.timeout_s for each in wanted),
            connect_timeout_s=max(each.connect_timeout_s for each in wanted),
            gap_ms=max(each.gap_ms for each in wanted),
        )
        lines = {(each.baudrate, each.parity, each.stopbits, each.bytesize) for each in wanted}
        if first.transport is Transport.SERIAL and len(lines) > 1:
            log.error("%s: devices disagree about the line settings; these are used", merged)
        if merged != self.endpoint:
            await self._writer.close()
            self.endpoint, self._writer = merged, ModbusWriter(merged)

    async def _connect(self) -> bool:
        link = self._link
        try:
            await self._writer.connect()
        except LinkError as error:
            link.retry_at = self._loop.time() + link.backoff.next_delay_s()
            if link.error is None:
                log.warning("%s: offline: %s", self.endpoint, error)
            link.error = str(error)
            return False
        # Whatever the device held before, it may have been restarted since.
        for slot in self.slots.values():
            slot.is_assured = False
        if link.error is not None:
            log.warning("%s: online again", self.endpoint)
            link.error = None
        link.backoff.reset()
        return True

    async def _send(self, request: WriteRequest) -> None:
        slots = _slots(request)
        unit = self._unit(request.unit_id)
        if unit.retry_at > self._loop.time():
            self._requeue(slots)
            return
        try:
            await self._writer.write(request)
            held = [not slot.out.options.verify or await self._writer.holds(slot) for slot in slots]
        except DeviceRefused as error:
            if error.code in UNREACHABLE_CODES:
                self._unreachable(unit, request, error)
            elif error.code in BUSY_CODES:
                for slot in slots:
                    slot.not_before = self._loop.time() + BUSY_PAUSE_S
                self._requeue(slots)
            else:
                await self._refused(request, slots, error)
            return
        except ProtocolError as error:
            if error.side is Side.LOCAL:
                self._impossible(slots, error)
            else:
                self._unreachable(unit, request, error)
            return
        except LinkError as error:
            self._unreachable(unit, request, error)
            return
        if unit.error is not None:
            log.warning("%s unit %d: answers again", self.endpoint, request.unit_id)
            unit.error = None
        unit.backoff.reset()
        now = self._loop.time()
        for slot, good in zip(slots, held, strict=True):
            entry = slot.confirmed(now)
            if not good:
                slot.is_assured = False
                self._report(
                    RejectCode.VERIFY_FAILED,
                    f"{slot.out.place}: read back another value",
                    slot.out,
                    entry.write.value,
                    entry.source,
                )
            self._finish(slot, entry)
            self._upkeep.written(slot)
            if slot.queue:
                self.mark(slot)

    def _unreachable(self, unit: Unit, request: WriteRequest, error: Exception) -> None:
        delay_s = unit.backoff.next_delay_s()
        if not self.endpoint.transport.has_transaction_ids:
            # The client lets that time pass before it asks this unit again; the others need not wait for it.
            delay_s = max(delay_s, self.endpoint.timeout_s)
        unit.retry_at = self._loop.time() + delay_s
        if unit.error is None:
            log.warning("%s unit %d: no answer: %s", self.endpoint, request.unit_id, error)
        unit.error = str(error)
        self._requeue(_slots(request))

    def _impossible(self, slots: list[Slot], error: ProtocolError) -> None:
        """No request can carry the values to where the configuration says: asking again would change nothing."""
        for slot in slots:
            entry = slot.inflight
            slot.inflight = None
            if entry is not None:
                self._drop(slot, [entry], RejectCode.BAD_CONFIG, f"{slot.out.place}: {error}")
            if slot.queue:
                self.mark(slot)

    async def _refused(self, request: WriteRequest, slots: list[Slot], error: DeviceRefused) -> None:
        """A clean no: to one value, report it; to a block, ask value by value which one is meant."""
        if len(slots) > 1:
            for slot in slots:
                alone = plan_writes([slot])
                if not self._writer.connected and not await self._connect():
                    self._requeue([slot])
                else:
                    await self._send(alone[0])
            return
        slot = slots[0]
        reason = str(error)
        log.debug("refused: %s", reason)
        self._drop(slot, [slot.refused(reason, self._loop.time())], RejectCode.DEVICE_REFUSED, reason)
        if slot.queue:
            self.mark(slot)

    def _requeue(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            slot.requeue()
            self.mark(slot)

    def _finish(self, slot: Slot, entry: Entry) -> None:
        """The value needs no more care. Its row on disk goes first, or a restart would write it over newer ones."""
        if slot.gone:
            return
        newer_on_disk = bool(slot.queue) and slot.queue[0].parked and not slot.out.options.every_value
        if self._parking.has(slot, entry) and not newer_on_disk:
            self._parking.remove(slot, entry)
        elif entry.tickets:
            self._settle(entry.tickets)

    def _drop(self, slot: Slot, entries: list[Entry], code: RejectCode, reason: str) -> None:
        for entry in entries:
            self._report(code, reason, slot.out, entry.write.value, entry.source)
            self._finish(slot, entry)

    def _park_waiting(self) -> None:
        """The request under way takes long: nothing else waits for it in memory only."""
        self.park(slot for slot in self.slots.values() if slot.inflight is not None or slot.queue)
        self._hold = self._loop.call_later(HOLD_S, self._park_waiting)

    def _unit(self, unit_id: int) -> Unit:
        unit = self._units.get(unit_id)
        if unit is None:
            alone = all(slot.unit_id == unit_id for slot in self.slots.values())
            unit = self._units[unit_id] = Unit(RETRY_CAP_S if alone else UNIT_CAP_S)
        return unit

    def _wake(self, at: float) -> None:
        if self._wake_at is not None:
            self._wake_at.cancel()
        self._wake_time = at
        self._wake_at = self._loop.call_at(at, self._wake_up)

    def _wake_up(self) -> None:
        self._wake_time = float("-inf")  # not compared with the clock again: timers may come a little early
        self._ready.set()


def _slots(request: WriteRequest) -> list[Slot]:
    return cast(list[Slot], list(request.cells))

"""One link's loop: commands first, then whatever has waited longest; retries, circuit breakers, reconnecting.

One request is in flight at a time, so the order of what is told is the order of what was asked: an answer that was asked for
before a write is told before that write, never after.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

from drivers.contract import Driver, Point, Refusal, Request
from field_server import divisions
from field_server.asks import Asks
from field_server.breaker import Breaker
from field_server.connects import Connects
from field_server.errands import Action, Errands
from field_server.plans import Part
from field_server.reports import Reports
from field_server.sink import Sink
from field_server.turns import Agenda, DeviceTurns, Job, Turn, make_turns, plan_document
from field_server.units import Units
from links.backoff import Backoff
from scada.errors import DeviceRefused, LinkError, ProtocolError
from scada.values import Reason, Sample

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 3.5
"""With the jitter a device that is back is asked again within 5 s."""
READS_WAIT_S = 0.5
"""A read that is late by so much is let in between two commands: a burst of them must not make everything else stale."""
ASKER_S = 0.005
"""A read steps back by so much for what waits for the same ceiling: a call, or the look of a command."""
_FIRST = 0.0  # before every time there is


class Poller:
    """Reads every device behind one link. Its methods are called in the loop that `run` runs in."""

    def __init__(self, driver: Driver, network: Any, sink: Sink, connects: Connects) -> None:
        self._driver = driver
        self._network = network
        self._sink = sink
        self._reports = Reports(sink)
        self._connects = connects
        self._loop = asyncio.get_running_loop()
        self._link = driver.open(network)
        self._reopen = False
        self._devices: dict[int, DeviceTurns] = {}
        self._agenda = Agenda()
        self._wake = asyncio.Event()
        self._errands = Errands(self._wake.set)
        self._units = Units(self._make_breaker)
        self.asks = Asks(self._devices, driver.meaning, self._errands.perform, self._reports, self._heard)
        """Reads that somebody waits for."""
        self._backoff = Backoff(FIRST_PAUSE_S, MAX_PAUSE_S)
        self._retry_at = 0.0
        self._answered = False
        """Something answered since the link was opened: only then is opening it again at once worth while."""
        self._read_came_last = True

    @property
    def devices(self) -> Iterable[int]:
        """The ids of the devices behind the link."""
        return self._devices

    @property
    def is_shared(self) -> bool:
        """Several units stand behind the link: the time of one is taken from the others."""
        return len(self._all_units) > 1

    @property
    def _timeout_s(self) -> float:
        return getattr(self._network, "timeout_s", 0.0)

    @property
    def _all_units(self) -> set[int]:
        return {turn.unit for device in self._devices.values() for turn in device.turns}

    def put(self, part: Part) -> None:
        """Read a device from now on, or read it otherwise than before."""
        old = self._devices.get(part.device_id)
        known = {}
        if old is not None:
            known = old.told() if old.part.device == part.device else {}
            old.end()
        now = self._loop.time()
        ceiling = self._driver.ceiling(part.network)
        turns = make_turns(part, self._link, now, known)
        device = DeviceTurns(part, turns, 1 / ceiling if ceiling else 0.0, self._driver.retries(part.network))
        self._devices[part.device_id] = device
        for turn in turns:
            self._agenda.add(turn, turn.due)
        self._merge_networks()

    def remove(self, device_id: int) -> None:
        """Leave a device alone."""
        self._devices.pop(device_id).end()
        self._units.keep(self._all_units)
        if self._devices:
            self._merge_networks()

    def last(self, device_id: int, tag: str) -> Sample | None:
        """The sample of a device's tag that was told last."""
        device = self._devices.get(device_id)
        return None if device is None else device.last(tag)

    async def perform(self, action: Action) -> None:
        """Do something on the link before the next read, once it is connected; raises what the action raises.

        Waits until the link is there: give it a deadline (`Errands.perform`).
        """
        await self._errands.perform(action)

    def plan(self, points: Sequence[Point]) -> Sequence[Request]:
        """How points that are not read otherwise are read with the fewest requests."""
        return self._link.plan(points)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    await self._step()
                except Exception:  # the top of this task: a fault of ours makes these tags bad and stops nothing else
                    log.exception("a fault in the link of %s", [each.part.device for each in self._devices.values()])
                    await self._start_over()
        finally:
            self._errands.close()
            await self._link.close()

    def _merge_networks(self) -> None:
        """The link is opened as all of its devices need it; anew when that has changed."""
        network = self._driver.merge([device.part.network for _, device in sorted(self._devices.items())])
        if network != self._network:
            self._network = network
            self._reopen = True
        self._wake.set()

    async def _start_over(self) -> None:
        """After a fault: everything is bad, the link is closed, and after a pause every turn comes anew."""
        await self._link.close()
        self._agenda = Agenda()
        self._retry_at = self._loop.time() + MAX_PAUSE_S
        for device in self._devices.values():
            for turn in device.turns:
                self._reports.silent(
                    device, turn.unit, Reason.COMM_FAILURE, "a fault in the field server; its log has the details"
                )
                turn.restart()
                self._agenda.add(turn, self._retry_at)

    async def _step(self) -> None:
        now = self._loop.time()
        if self._reopen:
            await self._open_again()
        at = self._agenda.next_at()
        if self._errands and (self._link.connected or now >= self._retry_at):
            if self._read_came_last or at is None or now - at < READS_WAIT_S:
                self._read_came_last = False
                if self._link.connected or await self._connect():
                    await self._errands.do_next(self._link)
                return
            self._read_came_last = True
        elif self._errands:
            at = min(self._retry_at, at or self._retry_at)
        if at is None or at > now:
            await self._sleep_until(at)
            return
        turn = self._agenda.pop()
        wait_until = self._obstacle(self._devices[turn.device_id], turn, now)
        if wait_until > now:
            self._agenda.add(turn, wait_until)
        elif self._link.connected or await self._connect():
            first = self._witness(turn, now)
            if first is not turn:
                self._agenda.add(turn, _FIRST)
            if first.alive:
                await self._poll(self._devices[first.device_id], first)
        else:
            turn.tries = 0
            self._agenda.add(turn, self._retry_at)

    def _obstacle(self, device: DeviceTurns, turn: Turn, now: float) -> float:
        """When the turn may go on; not after `now` when it may at once."""
        if not self._link.connected and self._retry_at > now:
            return self._retry_at
        if device.interval_s and (device.allowed_at > now or device.lets_askers_first):
            return max(device.allowed_at, now + ASKER_S if device.lets_askers_first else now)
        return self._units.retry_at(turn.unit, now)

    def _witness(self, turn: Turn, now: float) -> Turn:
        """What goes first: before a unit that left something unanswered one that did not, as long as nobody has answered since
        or on a new connection. Its answer shows that the connection is good, and it does not wait for two silent ones.
        """
        if not self._units.in_doubt or self._units.is_sound(turn.unit):
            return turn
        return self._agenda.take(self._units.is_sound, lambda each: self._devices[each].allowed_at <= now) or turn

    async def _poll(self, device: DeviceTurns, turn: Turn) -> None:
        """One request of a turn, and when the turn comes again."""
        job = turn.present
        started = self._loop.time()
        if job.not_before <= started:
            device.take_place(started, by_turn=True)
            await self._ask(device, turn, job)
            if not turn.alive:
                return
            if turn.tries:
                self._agenda.add(turn, _FIRST)
                return
        else:
            turn.position += 1
        now = self._loop.time()
        if not self._units.is_closed(turn.unit):
            turn.restart()
            self._agenda.add(turn, self._units.retry_at(turn.unit, now))
            return
        if turn.position < len(turn.jobs):
            self._agenda.add(turn, now)
            return
        turn.finish(now)
        device.settle(turn, self._link)
        if device.shows_plan(now):
            device.plan_again(self._link)
            self._sink.plan(device.part.device, plan_document(device, self._link.learned))
        self._agenda.add(turn, turn.due)

    async def _ask(self, device: DeviceTurns, turn: Turn, job: Job) -> None:
        """Send one request and say what came of it; `turn.tries` when there was no answer and it is to be asked again."""
        started = time.perf_counter()  # the loop's own clock counts whole milliseconds
        try:
            values = await self._link.read(job.request)
        except (LinkError, ProtocolError) as error:
            if not turn.alive:
                return
            turn.tries += 1
            silences = self._units.unheard(turn.unit, self._loop.time(), time.perf_counter() - started)
            if self._units.unanswered > max(device.retries, 1):
                self._suspect(str(error))
            attempts = device.retries + 1 if self._units.is_closed(turn.unit) else 1
            # Counted for the unit as well: were each of its turns tried again, all of it would be bad only after them all.
            if max(turn.tries, silences) >= attempts:
                turn.tries = 0
                await self._silent(device, turn, str(error))
        except DeviceRefused as error:
            if turn.alive:
                turn.tries = 0
                job.took(time.perf_counter() - started)
                self._refused(device, turn, job, error)
        else:
            if turn.alive:
                turn.tries = 0
                job.took(time.perf_counter() - started)
                self._heard(device, turn.unit, turn)
                job, bad = divisions.answered(device, turn, job, self._loop.time())
                self._reports.values(device, job, values)
                self._refusals(device, bad)

    def _refused(self, device: DeviceTurns, turn: Turn, job: Job, error: DeviceRefused) -> None:
        """A clean no: the unit is there, its tags are what is wrong."""
        meaning = self._driver.meaning(error.code)
        if meaning is Refusal.UNREACHABLE:
            self._lost(device, turn, str(error))
            return
        self._heard(device, turn.unit, turn)
        if meaning is Refusal.CONFIG:
            self._refusals(device, divisions.refused(device, turn, job, error, self._link, self._loop.time()))
        else:
            self._refusals(device, divisions.failed(turn, error))

    def _refusals(self, device: DeviceTurns, bad: divisions.Failed) -> None:
        for job, error in bad:
            self._reports.refused(device, job, error, self._driver.meaning(error.code))

    def _heard(self, device: DeviceTurns, unit: int, asked: Turn | None = None) -> None:
        """The unit answered a read; `asked` when it was a turn's."""
        now = self._loop.time()
        is_back = self._units.heard(unit, now)
        if not self._answered:
            self._answered = True
            self._backoff.reset()
        if is_back:
            # What concerns it: its own turns, and those of units that may be back as well.
            units = {unit} | {each for each in self._all_units if not self._units.is_closed(each)}
            turns = [turn for each in self._devices.values() for turn in each.turns if turn.unit in units]
            waiting = [turn for turn in turns if turn is not asked and self._units.retry_at(turn.unit, now) <= now]
            self._agenda.advance(waiting, now)
        self._reports.answers(device, unit)

    async def _silent(self, device: DeviceTurns, turn: Turn, error: str) -> None:
        """The unit did not answer, or the link broke."""
        self._lost(device, turn, error)
        if not self._link.connected:
            if not self._answered and self._units.all_lost:
                self._retry_at = self._loop.time() + self._backoff.next_delay_s()
            self._answered = False
        elif self._units.all_lost:
            # Nobody behind this connection answers: perhaps it is the connection.
            await self._link.close()
            self._answered = False

    def _suspect(self, error: str) -> None:
        """Nobody has answered for as long as one unit may take: what was due meanwhile, and will not have been answered in its
        time however it is asked now, is not known any more either.
        """
        now = self._loop.time()
        for at, turn in self._agenda.due(now):
            device = self._devices[turn.device_id]
            if self._units.is_closed(turn.unit) and now - at >= self._timeout_s * device.retries:
                self._reports.silent(device, turn.unit, Reason.COMM_FAILURE, error)

    def _lost(self, device: DeviceTurns, turn: Turn, error: str) -> None:
        self._units.lost(turn.unit, self._loop.time())
        for each in self._devices.values():
            self._reports.silent(each, turn.unit, Reason.COMM_FAILURE, error)

    async def _connect(self) -> bool:
        wait_s = self._connects.book()
        if wait_s > self._timeout_s:
            # Good until then, it would be shown as it was long ago.
            known = [device for device in self._devices.values() if device.errors]
            self._unconnected(known, f"connections are opened one after the other: this one in {wait_s:.1f} s")
        await asyncio.sleep(wait_s)
        try:
            await self._link.connect()
        except LinkError as error:
            self._retry_at = self._loop.time() + self._backoff.next_delay_s()
            self._unconnected(self._devices.values(), str(error))
            return False
        self._answered = False
        self._units.in_doubt = True
        return True

    def _unconnected(self, devices: Iterable[DeviceTurns], error: str) -> None:
        for device in devices:
            for unit in {turn.unit for turn in device.turns}:
                self._reports.silent(device, unit, Reason.NOT_CONNECTED, error)

    async def _open_again(self) -> None:
        """The network's settings changed: a link with the new ones."""
        self._reopen = False
        await self._link.close()
        self._link = self._driver.open(self._network)
        self._retry_at = 0.0

    async def _sleep_until(self, at: float | None) -> None:
        """Until `at`, or until there is something new."""
        timer = None if at is None else self._loop.call_at(at, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._wake.clear()

    def _make_breaker(self) -> Breaker:
        return Breaker(Backoff(FIRST_PAUSE_S, MAX_PAUSE_S))

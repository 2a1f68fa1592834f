"""The bus seen from a program: its samples, states and links out, other programs' messages in, over a connection of its own.

Between `publish` and the broker stand, in this order: the changes of the last few milliseconds (one message a device), a
window of unacknowledged messages, and the backlog for all that does not fit, on disk where the program has a store.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from links.bus_backlog import Backlog, BufferStore
from links.bus_handlers import Handler, Handlers, LastWords
from links.bus_heartbeat import BusCounters, Heartbeat
from links.bus_receipts import Receipts, Safe
from links.bus_retained import SLOTS, Retained
from links.bus_retained_window import RetainedWindow
from links.bus_window import KEPT_S, Window
from links.environment import MqttSettings
from links.mqtt import Delivery, MqttLink, Will
from scada.bus_batches import Batch, split_payloads
from scada.errors import LinkError
from scada.topics import BusTopics
from scada.values import Sample

__all__ = ["BufferStore", "Bus", "BusCounters", "Handler"]

log = logging.getLogger(__name__)

TICK_S = 0.005
"""Changes are collected this long."""
LATE_TICK_S = 0.25
"""And this long while they cannot be sent: fewer, longer batches for the disk."""
WINDOW = 256
"""Messages sent and not acknowledged. More would not be faster, and all of them are sent again after a lost connection."""
HOLD_SAMPLES = 50_000
"""Changes that wait for room in the window before they go to the backlog."""
UPKEEP_S = 0.25
STALLED_S = 1.0
"""After so long without an acknowledgement what waits goes to the disk."""
CLOSE_S = 2.0
SETTLED_S = 1.0
"""So long after a subscription nothing can fall between it and what is retained any more (decision 0601)."""


class Bus:
    """One per program. Everything runs in the loop that made it; only `send` and `close` wait."""

    def __init__(
        self,
        settings: MqttSettings,
        topics: BusTopics,
        owner: str,
        *,
        buffer: BufferStore | None = None,
        info: Mapping[str, Any] | None = None,
        on_safe: Safe = lambda *_: None,
    ) -> None:
        """`on_safe`: see links.bus_receipts; for an owner that answers for its samples before they are sent."""
        self._topics = topics
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._handlers = Handlers()
        self._words = LastWords((topics.server(""), topics.link("", "").removesuffix("/")))
        self._retained = Retained(topics, owner)
        self._receipts = Receipts(on_safe)
        self._backlog = Backlog(buffer, self._pump, self._receipts.done)
        self._pending: dict[str, list[Sample]] = {}
        self._pending_samples = 0
        self._encoded: deque[Batch] = deque()
        self._tick: asyncio.TimerHandle | None = None
        self._turn: asyncio.TimerHandle | None = None
        self._number = self._backlog.newest
        self._closing = False
        self._drained = asyncio.Event()  # while closing: nothing waits or is unanswered, or the connection is gone
        self._upkeep: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._beat_topic = topics.heartbeat(owner)
        self._heartbeat = Heartbeat()
        self._passed_on = asyncio.Event()  # as `online`, to wait for
        self._watchers: list[Callable[[bool], None]] = []
        self._published = self._late = self._poisoned = self._refused = 0
        self._last_failure = ""
        will = Will(
            topics.server(owner),
            orjson.dumps({"online": False}),
            orjson.dumps({"online": True, "since": time.time_ns() // 1_000_000, **(info or {})}),
        )
        client_id = f"{settings.client_id_prefix}-{owner}-bus"
        self._link = MqttLink(settings, client_id, self._receive, will=will, on_change=self._on_change)
        self._link.subscribe([self._beat_topic], qos=0)
        self._window = Window(self._link, self._pump, self._refuse)
        self._retained_window = RetainedWindow(self._link, self._retained, self._pump, self._fail)

    def start(self) -> None:
        """Connect, and stay connected until `close`."""
        self._link.start()
        self._opening = self._loop.create_task(self._open(), name="bus buffer open")
        self._upkeep = self._loop.create_task(self._keep(), name="bus upkeep")

    async def close(self) -> None:
        """Send what waits as far as the broker takes it at once, put the rest on disk, leave in order; a few seconds at most."""
        self._closing = True
        self._drained.clear()
        if self._tick is not None:
            self._tick.cancel()
        if self._turn is not None:
            self._turn.cancel()
        self._retained.turn_all()
        self._pump()
        if self._link.online.is_set() and self._unfinished:
            with contextlib.suppress(TimeoutError):  # the rest goes to disk
                async with asyncio.timeout(CLOSE_S):
                    await self._drained.wait()
        if self._upkeep is not None and self._opening is not None:
            self._upkeep.cancel()
            await asyncio.wait([self._upkeep, self._opening], timeout=CLOSE_S)
        self._settle(0)
        await self._link.close()
        self._spill()
        await self._backlog.close()

    async def connected(self) -> None:
        """Wait until it is online; without end while it is not."""
        await self._passed_on.wait()

    def watch(self, watcher: Callable[[bool], None]) -> None:
        """Have `watcher` called in the loop: True when it becomes online, False whenever a connection begins or ends."""
        self._watchers.append(watcher)

    @property
    def online(self) -> bool:
        """Whether the broker passes messages on: a heartbeat of this connection came back, and none is missing since."""
        return self._passed_on.is_set()

    @property
    def error(self) -> str | None:
        """What is wrong, for people; None when all is well."""
        refused = self._link.refused
        if self._link.error is not None:
            return self._link.error
        if refused:
            return f"the broker refuses subscriptions: {', '.join(sorted(refused))}"
        if not self.online:
            return "no heartbeat came back yet"
        return self._backlog.error

    @property
    def counters(self) -> BusCounters:
        """What happened since the start."""
        waiting = self._pending_samples + self._backlog.samples + sum(batch.size for batch in self._encoded)
        published, dropped = self._published + self._backlog.acknowledged, self._backlog.dropped + self._refused
        return BusCounters(published, self._late, waiting, dropped, self._poisoned)

    def publish(self, device: str, samples: Sequence[Sample]) -> None:
        """Changes of a device's tags, in order. Never blocks, never raises."""
        if not samples:
            return
        pending = self._pending.get(device)
        if pending is None:
            self._pending[device] = list(samples)
        else:
            pending.extend(samples)
        self._pending_samples += len(samples)
        self._retained.put_samples(device, samples)
        if self._turn is None and not self._closing:
            self._turn = self._loop.call_later(1 / SLOTS, self._take_turn)
        if self._tick is None and not self._closing:
            self._tick = self._loop.call_later(LATE_TICK_S if self._held_up else TICK_S, self._on_tick)

    def link(self, device: str, online: bool, error: str | None) -> None:
        """Whether this owner reaches a device, and why not; sent when it changed."""
        if self._retained.put_link(device, online, error, time.time_ns() // 1_000_000):
            self._pump()

    def plan(self, device: str, document: Mapping[str, Any] | None) -> None:
        """How this owner reads a device."""
        self._retained.put_plan(device, document)
        self._pump()

    def forget(self, device: str, tags: Iterable[str] | None = None) -> None:
        """A device that is gone: what is retained of it is emptied. Or `tags` of it only: they leave its state."""
        if tags is None:
            self._retained.forget(device)
            self._pump()
            return
        self._retained.forget_tags(device, tags)
        if self._turn is None and self._retained.changed and not self._closing:
            self._turn = self._loop.call_later(1 / SLOTS, self._take_turn)

    def subscribe(self, filters: Iterable[str], handler: Handler, qos: int = 1, *, retained: bool = False) -> None:
        """Give messages on topics that match to `handler`. The message is acknowledged when it returned, or failed.

        Few, wide filters: the embedded broker allows about a thousand a session. `retained`: the last message of each topic
        counts, and none may be missed while the broker sets the subscription up.
        """
        filters = list(filters)
        self._handlers.add(filters, handler, retained)
        self._link.subscribe(filters, qos)
        if retained and self.online:
            self._loop.call_later(SETTLED_S, self.ask_again, filters)

    def ask_again(self, filters: Iterable[str]) -> None:
        """Have what is retained on topics of these filters repeated, as far as they are subscribed to."""
        self._link.ask_again(filters)

    def unsubscribe(self, filters: Iterable[str]) -> None:
        """Stop that, in the broker's session too."""
        filters = list(filters)
        self._handlers.remove(filters)
        self._link.unsubscribe(filters)

    async def send(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, timeout_s: float = 5.0
    ) -> None:
        """One message, behind the changes that were published before as far as the window takes them: a command's verdict does
        not come ahead of its value. Raises LinkError when the broker did not acknowledge it, and then never sends it.
        """
        self._pump()
        await self._link.publish(topic, payload, qos=qos, retain=retain, timeout_s=timeout_s)

    @property
    def _held_up(self) -> bool:
        return bool(self._backlog) or not self._link.online.is_set()

    @property
    def _opened(self) -> bool:
        return self._opening is not None and self._opening.done()

    @property
    def _unfinished(self) -> bool:
        return bool(self._window or self._retained_window or self._retained or self._pending or self._encoded)

    def _on_tick(self) -> None:
        self._tick = None
        # Before an earlier run's batches are known, a batch has no number that is surely above theirs: the clock may be wrong.
        if (self._held_up and self._opened) or self._pending_samples > HOLD_SAMPLES:
            self._spill()
        self._pump()

    def _take_turn(self) -> None:
        self._turn = None
        self._retained.turn()
        self._pump()
        if self._retained.changed and not self._closing:
            self._turn = self._loop.call_later(1 / SLOTS, self._take_turn)

    def _encode(self, device: str, samples: list[Sample]) -> None:
        for count, payload in split_payloads(samples):
            self._number += 1
            self._receipts.add(self._number, device, count)
            if not payload:
                self._receipts.done([self._number])
                self._poisoned += 1
                self._fail(f"a sample of {device} does not fit into a message: too long, or no JSON")
                continue
            self._encoded.append(Batch(self._number, device, count, payload))

    def _spill(self) -> None:
        """What is not sent yet goes to the backlog."""
        while self._pending:
            self._encode_first()
        while self._encoded:
            self._backlog.add(self._encoded.popleft())

    def _encode_first(self) -> None:
        device = next(iter(self._pending))
        samples = self._pending.pop(device)
        self._pending_samples -= len(samples)
        self._encode(device, samples)

    def _pump(self) -> None:
        """Send while there is room in the window: retained topics, then the backlog, then what is new."""
        if not self._link.online.is_set():
            return
        room = min(WINDOW, self._link.window)
        try:
            self._retained_window.send_due(room)
            while self._opened and len(self._window) + len(self._retained_window) < room:
                if self._backlog:
                    batch = self._backlog.take()
                    if batch is None:
                        break
                    self._window.send(self._data_topic(batch), batch, True)
                elif self._encoded:
                    batch = self._encoded.popleft()
                    self._window.send(self._data_topic(batch), batch, False)
                elif self._pending:
                    self._encode_first()
                else:
                    break
        except LinkError:
            return  # the connection has just ended: `_on_change` is about to be called, and puts everything back
        if self._closing and not self._unfinished:
            self._drained.set()

    def _data_topic(self, batch: Batch) -> str:
        return self._topics.data(self._owner, batch.device)

    def _on_change(self, online: bool) -> None:
        """A connection began or ended."""
        self._drained.set()
        self._heartbeat.begin()
        self._set_online(False)
        if online:
            self._retained.all_again()
            self._beat()
            self._pump()
            return
        self._settle()
        self._retained_window.end()
        self._backlog.put_back(*self._window.end())

    def _settle(self, keep_s: float = KEPT_S) -> None:
        """What was acknowledged long enough ago is done with."""
        settled = self._window.settle(keep_s)
        self._receipts.done(settled.numbers)
        self._published += settled.samples
        self._late += settled.late_samples
        if settled.late_numbers:
            self._backlog.delivered(settled.late_numbers)
        self._retained_window.settle(keep_s)

    def _refuse(self, batch: Batch, text: str) -> None:
        self._refused += batch.size
        self._receipts.done([batch.number])
        self._backlog.delivered([batch.number])
        self._fail(text)

    async def _open(self) -> None:
        await self._backlog.open()
        self._number = max(self._number, self._backlog.newest)
        if self._pending and self._tick is None and not self._closing:
            self._tick = self._loop.call_later(LATE_TICK_S, self._on_tick)
        self._loop.call_soon(self._pump)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_S)
            try:
                self._settle()
                self._backlog.work()
                self._beat()
                if self._pending and self._window and time.monotonic() - self._window.answered_at > STALLED_S:
                    self._spill()
            except Exception:  # the top of this task: without it nothing would be settled any more
                log.exception("bus: a fault in the upkeep")

    def _beat(self) -> None:
        """A heartbeat when its time has come; when the last ones did not come back, the connection is dead."""
        now = self._loop.time()
        if not self._link.online.is_set() or self._beat_topic in self._link.refused:
            return
        if self._heartbeat.is_dead(now):
            self._link.drop("no heartbeat came back")
            return
        payload = self._heartbeat.due(now)
        if payload is not None:
            # When the connection has just ended, the next one begins with a heartbeat.
            with contextlib.suppress(LinkError):
                self._link.post(self._beat_topic, payload + b" " + orjson.dumps(self.counters), None, qos=0)

    def _receive(self, topic: str, payload: bytes, retained: bool, delivery: Delivery) -> None:
        if topic == self._beat_topic:
            if not self._heartbeat.came(payload):
                self._fail(f"another program is {self._owner} on this bus: its heartbeats arrive here")
            elif self._heartbeat.came_back:
                self._set_online(True)
            return
        self._heartbeat.heard = True
        try:
            for handler in () if self._words.are_older(topic, retained) else self._handlers.find(topic):
                handler(topic, payload, retained, delivery.is_repeat)
        except Exception as exc:  # noqa: BLE001 - the top of a message, told below: the next one must not suffer
            self._poisoned += 1
            self._fail(f"a message on {topic[:200]} could not be dealt with: {exc!r}", exc)
        self._link.acknowledge(delivery)

    def _set_online(self, online: bool) -> None:
        if online:
            if self._passed_on.is_set():
                return
            self._passed_on.set()
            self._loop.call_later(SETTLED_S, self.ask_again, self._handlers.retained)
        else:
            self._passed_on.clear()
            self._words.clear()
        for watcher in self._watchers:
            watcher(online)

    def _fail(self, text: str, exc: BaseException | None = None) -> None:
        """Told when it is not what was told last."""
        if text != self._last_failure:
            log.error("bus: %s", text, exc_info=exc)
        self._last_failure = text

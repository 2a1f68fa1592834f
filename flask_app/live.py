"""The REST program on the bus: a thread of its own that listens, and sends what requests ask for.

Not started at import nor with the application: `python -m flask_app` starts it, and under `flask run` the first request does.
Without a broker everything else serves on; what needs the broker is refused.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from flask import Flask, Response, current_app, request

from flask_app.command_ends import CommandEnds
from flask_app.database import Stores
from flask_app.live_commands import LiveCommands, Watch
from flask_app.live_counters import LiveCounters
from flask_app.live_values import LiveValues
from flask_app.waiters import Waiters
from links.bus import Bus
from links.environment import MqttSettings
from links.loop import new_event_loop
from links.threads import call_in_thread
from scada.command_messages import decode_feedback, encode_call, encode_feedback, encode_set
from scada.commands import Call, Command, CommandState, Step
from scada.errors import LinkError
from scada.topics import BusTopics
from scada.values import BadValue
from storage.command_store import CommandLog

log = logging.getLogger(__name__)

OWNER = "flask_app"
EXTENSION = "tagwire_live"
SEND_TIMEOUT_S = 5.0
GRACE_S = 1.0
"""An owner ends its commands in time itself; its last word gets this much longer."""
SHOWN_S = MappingProxyType({CommandState.VERIFIED: 0.25, CommandState.ACKNOWLEDGED: 0.05})
"""What a command has set is told as a value too, on another topic: so long its end waits for that. Less where nothing was read
back: such a value may only come when the device is polled next."""
PICTURE_S = 3.0
"""So long after the bus is online everything that the broker has kept has come."""
FIRST_CONNECT_S = 2.0
"""A request that comes right after the start waits this long for the broker."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_CLOSE_S = 4.0
# The bus counts as online when its first heartbeat is back, which may be a moment after our own server message.
_HEARTBEAT_S = 0.1
# A loop's timer may come a moment early.
_LOOK_AGAIN_S = 0.01
# These change nothing in the configuration.
_ELSEWHERE = frozenset({"commands", "registers"})


class Live:
    """One per application. `open_stores` gives the stores of the application, or raises LinkError."""

    def __init__(self, mqtt: MqttSettings, topics: BusTopics, open_stores: Callable[[], Stores]) -> None:
        self.values = LiveValues(topics)
        self.commands = LiveCommands()
        self.counters = LiveCounters(topics)
        self._ends = CommandEnds(self.commands, self.command_log)
        self.waiters = Waiters()
        self._mqtt = mqtt
        self._topics = topics
        self._open_stores = open_stores
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bus: Bus | None = None
        self._ready = threading.Event()
        self._heard = threading.Event()
        self._started_at = 0.0
        self._ending: asyncio.Event | None = None
        self._revision_due: asyncio.Event | None = None
        self._overdue: asyncio.Queue[Watch] | None = None
        self._log: CommandLog | None = None
        self._picture = 0
        self._was_online = False

    def start(self) -> None:
        """Connect to the broker in a thread of our own, and stay connected; does nothing the second time."""
        with self._starting:
            if self._thread is not None:
                return
            self._started_at = time.monotonic()
            self._thread = threading.Thread(target=self._run, name="bus", daemon=True)
            self._thread.start()
            self._ready.wait(5.0)

    def close(self) -> None:
        """Leave the bus in order, within a few seconds."""
        with self._starting:
            thread, loop, ending = self._thread, self._loop, self._ending
        if thread is None or loop is None or ending is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(ending.set)
        thread.join(_CLOSE_S)

    @property
    def online(self) -> bool:
        """Whether the broker passes messages on."""
        return self._bus is not None and self._bus.online

    def require_online(self) -> None:
        """Raise LinkError, with the reason, unless the broker is there."""
        if not self.online and self._thread is not None:
            self._heard.wait(max(0.0, self._started_at + FIRST_CONNECT_S - time.monotonic()))
        if not self.online:
            reason = "this program has not been started on it" if self._bus is None else self._bus.error
            raise LinkError(f"no broker: {reason or 'not connected yet'}")

    def ask(self, asked: Command | Call) -> Watch:
        """Send a command or a call; its steps are collected from now on. Raises LinkError when the broker did not take it."""
        self.require_online()
        watch, now_ms = self.commands.watch(asked), time.time_ns() // 1_000_000
        if isinstance(asked, Command):
            topic, payload = self._topics.set(asked.device), encode_set(asked, now_ms)
        else:
            topic, payload = self._topics.call(asked.device), encode_call(asked, now_ms)
        try:
            self._in_loop(self._send(watch, topic, payload), SEND_TIMEOUT_S + 1.0)
        except LinkError:
            self.commands.forget(watch)
            raise
        return watch

    def is_over(self, watch: Watch) -> bool:
        """Whether a command has ended, and what it set stands among the values; or did not come for SHOWN_S."""
        if watch.ended_s is None:
            return False
        last = next((step for step in watch.steps if step.final), None)
        if last is None or time.monotonic() - watch.ended_s >= SHOWN_S.get(last.state, 0.0):
            return True
        # What was measured before the value was sent is the old one.
        sent_ms = next((step.time_ms for step in watch.steps if step.state is CommandState.SENT), last.time_ms)
        values = last.value if isinstance(last.value, Mapping) else {last.tag or "": last.value}
        return self.values.shows(last.device, values, sent_ms)

    def revision_changed(self) -> None:
        """The configuration was changed: tell the others. Best effort, in the background."""
        loop, due = self._loop, self._revision_due
        if loop is not None and due is not None and not loop.is_closed():
            loop.call_soon_threadsafe(due.set)

    def _in_loop(self, work: Coroutine[Any, Any, None], timeout_s: float) -> None:
        assert self._loop is not None
        try:
            asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError, RuntimeError) as exc:
            raise LinkError("no broker: it did not answer in time") from exc

    async def _send(self, watch: Watch, topic: str, payload: bytes) -> None:
        assert self._bus is not None
        assert self._loop is not None
        assert self._overdue is not None
        await self._bus.send(topic, payload, timeout_s=SEND_TIMEOUT_S)
        if isinstance(watch.asked, Command):
            left_s = watch.asked.expires_ms / 1000 - time.time()
            self._loop.call_later(max(0.0, left_s) + GRACE_S, self._overdue.put_nowait, watch)

    def _run(self) -> None:
        loop = new_event_loop()
        try:
            loop.run_until_complete(self._serve(loop))
        except Exception:  # the top of this thread: requests go on, and say that there is no broker
            log.exception("bus: a fault in the thread that listens")
        finally:
            self._bus = None
            self._ready.set()
            loop.close()

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        topics = self._topics
        bus = Bus(self._mqtt, topics, OWNER)
        retained = [topics.state("+", "+"), topics.link("+", "+"), topics.plan("+", "+"), topics.server("+")]
        bus.subscribe(retained, self._on_value, qos=0, retained=True)
        bus.subscribe([topics.data("+", "+")], self._on_value, qos=0)
        bus.subscribe([topics.feedback("+")], self._on_feedback, qos=0)
        bus.subscribe([topics.heartbeat("+")], self._on_heartbeat, qos=0)
        bus.watch(self._on_bus)
        self._ending, self._revision_due, self._overdue = asyncio.Event(), asyncio.Event(), asyncio.Queue()
        self._loop, self._bus = loop, bus
        bus.start()
        self._ready.set()
        tasks = [
            loop.create_task(self._tell_revisions(bus, self._revision_due), name="revision"),
            loop.create_task(self._end_overdue(self._overdue), name="ends of commands"),
        ]
        ending = loop.create_task(self._ending.wait(), name="end")
        await asyncio.wait([*tasks, ending], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("bus: a fault in a task", exc_info=result)
        with contextlib.suppress(TimeoutError):  # a locked database must not keep the program from ending
            async with asyncio.timeout(1.0):
                await call_in_thread(self._ends.unanswered, "ends of commands")
        await bus.close()

    def _on_bus(self, online: bool) -> None:
        if online:
            assert self._loop is not None
            self.values.listen_anew()
            self._loop.call_later(PICTURE_S, self.values.end_picture, self._picture)
        elif self._was_online:
            self._picture = self.values.begin_picture()
        self._was_online = online

    def _on_value(self, topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        if topic == self._topics.server(OWNER) and self._revision_due is not None:
            # Our own, at the beginning of each connection: what was changed meanwhile is told now.
            self._revision_due.set()
            assert self._loop is not None
            self._loop.call_later(_HEARTBEAT_S, self._heard.set)
        self.values.take(topic, payload, retained)
        self.waiters.look(topic.rpartition("/")[2])

    def _on_heartbeat(self, topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        if not retained:
            self.counters.take(topic, payload)
            self.values.take(topic, payload)

    def _on_feedback(self, topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        try:
            step = decode_feedback(payload, topic.rpartition("/")[2])
        except BadValue as error:
            log.warning("bus: feedback on %s that says nothing: %s", topic[:200], error)
            return
        if not retained:
            self._take(step)

    async def _end_overdue(self, overdue: "asyncio.Queue[Watch]") -> None:
        """Give commands whose time is over, and whose owner said no last word, a last step."""
        while True:
            watches = [await overdue.get()]
            while not overdue.empty():
                watches.append(overdue.get_nowait())
            ends: list[Step] = []
            # The database may keep this waiting.
            await call_in_thread(partial(self._ends.overdue, watches, ends), "ends of commands")
            for step in ends:
                log.warning("command %s for %s: %s", step.id, step.device, step.reason)
                self._take(step)
                try:
                    await self._tell(step)
                except LinkError as error:
                    log.warning("the end of command %s could not be told: %s", step.id, error)

    def _take(self, step: Step) -> None:
        assert self._loop is not None
        self.commands.take(step)
        self.waiters.look(step.device)
        if step.final and step.state in SHOWN_S:
            self._loop.call_later(SHOWN_S[step.state] + _LOOK_AGAIN_S, self.waiters.look, step.device)

    async def _tell(self, step: Step) -> None:
        assert self._bus is not None
        await self._bus.send(self._topics.feedback(step.device), encode_feedback(step), timeout_s=SEND_TIMEOUT_S)

    def command_log(self) -> CommandLog:
        """Where the steps of all commands are kept; raises LinkError while the database does not answer."""
        if self._log is None:
            self._log = CommandLog(self._open_stores().config.engine)
        return self._log

    async def _tell_revisions(self, bus: Bus, due: asyncio.Event) -> None:
        while True:
            await due.wait()
            due.clear()
            found: list[int] = []
            try:
                await call_in_thread(partial(self._find_revision, found), "revision")
                await bus.send(self._topics.config, str(found[0]).encode(), retain=True)
            except LinkError as error:
                # Everybody looks at the database as well, and the next connection tells it again.
                log.debug("bus: the revision was not announced: %s", error)

    def _find_revision(self, found: list[int]) -> None:
        found.append(self._open_stores().config.revision())


def register(app: Flask, live: Live, *, on_request: bool) -> None:
    """Announce changes of the configuration. `on_request`: the first request starts `live`."""
    app.extensions[EXTENSION] = live

    if on_request:

        @app.before_request
        def start() -> None:
            live.start()

    @app.after_request
    def announce(response: Response) -> Response:
        if request.method not in _READING and response.status_code < 300 and request.blueprint not in _ELSEWHERE:
            live.revision_changed()
        return response


def live() -> Live:
    """The current application's."""
    found: Live = current_app.extensions[EXTENSION]
    return found

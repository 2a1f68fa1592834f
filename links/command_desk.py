"""Where a program takes commands for its tags from the bus, and tells what became of each.

The desk checks, remembers, expires and reports; the program behind it (`Performer`) does the work.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Protocol

from links.bus import Bus
from links.logs import Rationed
from scada.command_book import Admission, CommandBook
from scada.command_messages import BadCall, BadCommand, decode_call, decode_set, encode_feedback
from scada.commands import Call, Command, CommandState, Step, answer_of
from scada.config import DeviceConfig, Direction, TagConfig
from scada.errors import ConfigError, DeviceRefused, LinkError, ProtocolError, TagwireError
from scada.registry import PROTOCOLS
from scada.setpoints import check_command, command_route
from scada.topics import BusTopics
from scada.values import BadValue, Sample, Value

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Most feedback messages that wait for the broker; beyond it the oldest are dropped (they are in the log on disk)."""

SENT_AT_ONCE = 64
"""Feedback messages under way together; their order is kept."""
CLOSE_S = 1.0
"""At the end, time for the last verdicts to reach the broker."""
BACKLOG_S = 1.0
"""So long after the broker has begun to pass messages on, what it has kept for this program meanwhile may still arrive."""

Report = Callable[..., bool]
"""`report(state, reason="", final=None)`: a command has come to a state. False when it has ended meanwhile: stop."""


class Performer(Protocol):
    """The program's side."""

    def device(self, name: str) -> DeviceConfig | None:
        """The configuration of a device that this program knows."""

    def is_mine(self, owner: str) -> bool:
        """Whether commands for tags of that owner are answered here."""

    def last_value(self, device: str, tag: str) -> Value | None:
        """The value of a tag as it was told last."""

    async def carry_out(self, command: Command, report: Report, seconds: float) -> None:
        """Set the command's values within `seconds` and report each state that it comes to.

        Raises BadValue, ConfigError, DeviceRefused, LinkError, ProtocolError: the command has failed.
        """

    async def read(self, call: Call) -> tuple[Sample, ...]:
        """Read tags now; raises as `carry_out` does."""


class CommandDesk:
    """The desk of one program. Its methods are called in the loop that `run` runs in."""

    def __init__(
        self,
        bus: Bus,
        topics: BusTopics,
        performer: Performer,
        store: Callable[[Iterable[Step]], None],
        *,
        answers_unknown: bool,
    ) -> None:
        """`store` keeps steps for good and never blocks. `answers_unknown`: devices that nobody knows are refused here."""
        self._bus = bus
        self._topics = topics
        self._performer = performer
        self._store = store
        self._answers_unknown = answers_unknown
        self._book = CommandBook()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._outgoing: asyncio.Queue[Step] = asyncio.Queue(MAX_WAITING)
        self._changed = asyncio.Event()
        self._fresh_from = float("inf")
        self._failure = ""
        self._refusals = Rationed(log)
        bus.watch(self._on_bus)
        bus.subscribe([topics.set("+")], self._on_set)
        bus.subscribe([topics.call("+")], self._on_call)

    def remember(self, command_ids: Iterable[str]) -> None:
        """Ids that an earlier run has seen: they are not carried out again."""
        self._book.remember(command_ids, time.monotonic())

    async def run(self) -> None:
        """Until cancelled: sends feedback, and ends commands that run out of time."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send(), name="feedback")
            tasks.create_task(self._expire(), name="expiry of commands")

    async def close(self) -> None:
        """Give up what is under way; each says so."""
        for command_id, task in list(self._running.items()):
            task.cancel()
            self._move(command_id, CommandState.FAILED, "the program that carried it out was stopped")
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._running.values(), *self._calls, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while not self._outgoing.empty() and self._bus.online:
                    await self._send_some(self._outgoing.get_nowait())

    def _on_bus(self, online: bool) -> None:
        self._fresh_from = time.monotonic() + BACKLOG_S if online else float("inf")

    def _on_set(self, topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        device = topic.rpartition("/")[2]
        if retained:
            # A retained command would act again whenever somebody connects.
            if self._is_for_me(device):
                self._refusals.warning("command on %s refused: it is retained; clear it there", topic)
            return
        now_ms = time.time_ns() // 1_000_000
        try:
            is_fresh = time.monotonic() >= self._fresh_from
            command = decode_set(
                payload, device, now_ms, self._make_id(topic, payload, repeat), must_expire=not is_fresh
            )
        except BadCommand as error:
            refused = error.command
            if self._is_for_me(device, () if refused is None else refused.values):
                self._refusals.warning("command on %s refused: %s", topic, error)
                if refused is not None:
                    self._admit(self._book.refuse(refused, str(error), now_ms, time.monotonic()), refused)
            return
        if self._is_for_me(device, command.values):
            self._take(command, now_ms, repeat)

    def _make_id(self, topic: str, payload: bytes, repeat: bool) -> str:
        """For a command without one: the same for its second delivery, which is then known to have acted already."""
        made = hashlib.sha256(topic.encode() + b"\0" + payload).hexdigest()[:32]
        is_another = not repeat and self._book.is_known(made, time.monotonic())
        return uuid.uuid4().hex if is_another else made

    def _is_for_me(self, device: str, tags: Iterable[str] = ()) -> bool:
        """Whether the verdict on what is asked of these tags is ours to give: of all programs that hear it one says yes."""
        config = self._performer.device(device)
        if config is None:
            return self._answers_unknown
        first = next(iter(tags), None)
        named = [tag for tag in config.tags if tag.name == first]
        # Where no tag is named, or none that is there: whoever answers for the first one that anybody answers for.
        owners = [owner for tag in named or config.tags if (owner := _owner(config, tag))]
        return self._performer.is_mine(owners[0] if owners else "")

    def _take(self, command: Command, now_ms: int, repeat: bool) -> None:
        old_value: Any = None
        try:
            checked = self._check(command)
            values = {tag: self._performer.last_value(command.device, tag) for tag in command.values}
            old_value = values if command.group else next(iter(values.values()))
        except (BadValue, TagwireError) as error:
            admission = self._book.refuse(command, str(error), now_ms, time.monotonic())
        else:
            command = checked
            admission = self._book.admit(command, now_ms, time.monotonic(), repeat=repeat, old_value=old_value)
        self._admit(admission, command)

    def _check(self, command: Command) -> Command:
        """The command with its values as the tags have them; raises BadValue, ConfigError, Conflict."""
        config = self._performer.device(command.device)
        if config is None:
            raise ConfigError(f"no device {command.device!r} that can be set")
        tags = {tag.name: tag for tag in config.tags}
        values: dict[str, Value] = {}
        for name, value in command.values.items():
            tag = tags.get(name)
            if tag is None:
                raise ConfigError(f"device {command.device!r} has no tag {name!r}")
            route = command_route(config, tag)
            if not self._performer.is_mine(route.owner):
                raise ConfigError(f"{name} is set by {route.owner}: it cannot be in one group with the others")
            try:
                values[name] = check_command(tag, value, route.binding)
            except BadValue as error:
                raise BadValue(error.code, f"{name}: {error}") from error
        return Command(
            command.id, command.device, values, command.expires_ms, command.by, command.origin, command.group
        )

    def _admit(self, admission: Admission, command: Command) -> None:
        if admission.refusal:
            self._refusals.warning("command for %s refused: %s", command.device, admission.refusal)
        self._tell(admission.steps)
        for step in admission.steps:
            ended = self._running.get(step.id) if step.final else None
            if ended is not None:
                ended.cancel()
        if admission.run:
            self._start(self._running, command.id, self._perform(command))
            self._changed.set()

    def _start(self, tasks: dict[str, asyncio.Task[None]], command_id: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"command {command_id}")
        tasks[command_id] = task
        task.add_done_callback(lambda _: tasks.pop(command_id, None))

    async def _perform(self, command: Command) -> None:
        def report(state: CommandState, reason: str = "", final: bool | None = None) -> bool:
            return self._move(command.id, state, reason, final)

        seconds = max(0.0, command.expires_ms / 1000 - time.time())
        try:
            await self._performer.carry_out(command, report, seconds)
        except (BadValue, ConfigError, DeviceRefused, LinkError, ProtocolError) as error:
            self._move(command.id, CommandState.FAILED, str(error))
        except Exception:  # the top of a command's task: it fails with a reason, and the desk goes on
            log.exception("command %s for %s failed", command.id, command.device)
            self._move(command.id, CommandState.FAILED, "a fault in the program; its log has the details")

    def _move(self, command_id: str, state: CommandState, reason: str = "", final: bool | None = None) -> bool:
        now_ms = time.time_ns() // 1_000_000
        step = self._book.move(command_id, state, now_ms, time.monotonic(), reason=reason, final=final)
        if step is None:
            return False
        if step.state is not state:
            self._tell([step])
            return False
        # A newer command that came while this one was sent will write over it: there is nothing left to verify.
        overtaken = self._book.overtaken(command_id, now_ms)
        self._tell([step] if overtaken is None else [step, overtaken])
        return overtaken is None

    def _on_call(self, topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        device = topic.rpartition("/")[2]
        now_ms = time.time_ns() // 1_000_000
        if retained or repeat:
            if self._is_for_me(device):
                self._refusals.warning("call on %s refused: it is %s", topic, "retained" if retained else "repeated")
            return
        try:
            call = decode_call(payload, device, now_ms, uuid.uuid4().hex)
        except BadCall as error:
            if self._is_for_me(device):
                self._refusals.warning("call on %s refused: %s", topic, error)
                if error.call is not None:
                    self._tell([answer_of(error.call, CommandState.FAILED, now_ms, reason=str(error))])
            return
        config = self._performer.device(device)
        if config is None:
            if self._answers_unknown:
                reason = f"no device {device!r} that can be read"
                self._tell([answer_of(call, CommandState.FAILED, now_ms, reason=reason)])
            return
        # Every owner answers for its own tags; one without a source is read only when it is named, by whoever sets it.
        tags = tuple(
            tag.name
            for tag in config.tags
            if (tag.name in call.tags if call.tags else _has_source(tag))
            and self._performer.is_mine(_owner(config, tag))
        )
        if not tags:
            return
        call = replace(call, tags=tags)
        task = asyncio.create_task(self._answer(call), name=f"call {call.id}")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _answer(self, call: Call) -> None:
        seconds = max(0.0, call.expires_ms / 1000 - time.time())
        state, reason = CommandState.FAILED, ""
        samples: tuple[Sample, ...] = ()
        try:
            async with asyncio.timeout(seconds):
                samples = await self._performer.read(call)
            state = CommandState.VERIFIED
        except TimeoutError:
            state, reason = CommandState.EXPIRED, "no answer in time"
        except (BadValue, ConfigError, DeviceRefused, LinkError, ProtocolError) as error:
            reason = str(error)
        except Exception:  # the top of a call's task
            log.exception("call %s for %s failed", call.id, call.device)
            reason = "a fault in the program; its log has the details"
        now_ms = time.time_ns() // 1_000_000
        self._tell([answer_of(call, state, now_ms, samples=samples, reason=reason)])

    def _tell(self, steps: Iterable[Step]) -> None:
        steps = tuple(steps)
        self._store(steps)
        for step in steps:
            if self._outgoing.full():
                self._outgoing.get_nowait()
            self._outgoing.put_nowait(step)

    async def _send(self) -> None:
        while True:
            await self._bus.connected()
            step = await self._outgoing.get()
            try:
                await self._send_some(step)
            except Exception:  # the top of this task: without it no verdict would be told any more
                log.exception("feedback of a command for %s could not be sent", step.device)

    async def _send_some(self, first: Step) -> None:
        """Send `first` and what waits behind it. What a lost connection kept from being acknowledged is sent again."""
        steps = [first]
        while len(steps) < SENT_AT_ONCE and not self._outgoing.empty():
            steps.append(self._outgoing.get_nowait())
        while steps:
            results = await asyncio.gather(*map(self._send_one, steps), return_exceptions=True)
            failed = [(step, error) for step, error in zip(steps, results, strict=True) if error is not None]
            steps = []
            for step, error in failed:
                if isinstance(error, LinkError) and not self._bus.online:
                    steps.append(step)
                elif str(error) != self._failure:
                    self._failure = str(error)
                    log.warning("feedback of a command could not be sent, it is in the log of commands: %s", error)
            if steps:
                await self._bus.connected()

    async def _send_one(self, step: Step) -> None:
        await self._bus.send(self._topics.feedback(step.device), encode_feedback(step))

    async def _expire(self) -> None:
        while True:
            at = self._book.next_expiry_s()
            self._changed.clear()
            timeout = None if at is None else max(0.0, at - time.monotonic())
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                steps = self._book.expire(time.time_ns() // 1_000_000, time.monotonic())
                for step in steps:
                    task = self._running.get(step.id)
                    if task is not None:
                        task.cancel()
                self._tell(steps)


def _owner(config: DeviceConfig, tag: TagConfig) -> str:
    """The program that answers commands and calls for a tag, be it only to say that it is read only."""
    try:
        return command_route(config, tag).owner
    except ConfigError:
        return _source_owner(tag)


def _has_source(tag: TagConfig) -> bool:
    return any(binding.direction is not Direction.OUT for binding in tag.bindings)


def _source_owner(tag: TagConfig) -> str:
    for binding in tag.bindings:
        if binding.direction is not Direction.OUT:
            return PROTOCOLS[binding.protocol].owner
    return PROTOCOLS[tag.bindings[0].protocol].owner if tag.bindings else ""

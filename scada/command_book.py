"""What the owner of tags remembers about commands: which ids it has seen, which run, and which ends which. Pure.

Two clocks are arguments: `now_ms` (UTC, milliseconds) stands in steps and is compared with a command's own time of expiry once,
when it arrives; `clock_s` is monotonic and ends it, whatever is done to the wall clock meanwhile.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from scada.commands import Command, CommandState, Step, may_follow, step_of
from scada.errors import ProtocolError, Side
from scada.values import Value

MAX_IDS = 50_000
"""Beyond it the oldest are forgotten: 14 commands a second for the hour that one may wait."""
ID_KEPT_S = 3_600.0
MAX_RUNNING = 10_000


class Admission(NamedTuple):
    """What to do about a command that arrived.

    `steps` are to be published and stored in their order, those of the commands that it ended first. `run`: carry it out.
    `refusal`: why it is ignored without a step, for the log; the verdict on its id is another command's.
    """

    steps: tuple[Step, ...] = ()
    run: bool = False
    refusal: str = ""


@dataclass(slots=True)
class _Running:
    command: Command
    state: CommandState
    until_s: float
    old_value: Value | Mapping[str, Value | None] | None = None


class CommandBook:
    """The commands of one owner. For one task or one thread."""

    def __init__(self, max_ids: int = MAX_IDS, max_running: int = MAX_RUNNING) -> None:
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._running: dict[str, _Running] = {}
        self._max_ids = max_ids
        self._max_running = max_running

    def admit(
        self,
        command: Command,
        now_ms: int,
        clock_s: float,
        *,
        repeat: bool = False,
        old_value: Value | Mapping[str, Value | None] | None = None,
    ) -> Admission:
        """Take a command that has passed every check of its values; `repeat` is the broker's flag of a second delivery.

        It ends commands for the same tags that are not sent, and those that wait for their verification. A group ends, and is
        ended by, only what covers all of the other's tags. An id that was seen before is refused.
        """
        if self.is_known(command.id, clock_s):
            if repeat and command.id in self._running:
                return Admission(refusal="delivered again while it runs")
            return Admission(refusal=f"id {command.id!r} was used before: replayed")
        self._remember(command.id, clock_s)
        left_s = (command.expires_ms - now_ms) / 1000
        if left_s <= 0:
            reason = f"expired {-left_s:.3f} s before it arrived (clocks must agree)"
            return Admission((step_of(command, CommandState.EXPIRED, now_ms, old_value=old_value, reason=reason),))
        if len(self._running) >= self._max_running:
            reason = f"{len(self._running)} commands are under way"
            return Admission((step_of(command, CommandState.FAILED, now_ms, old_value=old_value, reason=reason),))
        ended = [self._end(each, now_ms, f"by command {command.id}") for each in self._ended_by(command)]
        self._running[command.id] = _Running(command, CommandState.ACCEPTED, clock_s + left_s, old_value)
        accepted = step_of(command, CommandState.ACCEPTED, now_ms, old_value=old_value)
        return Admission((*ended, accepted), run=True)

    def refuse(
        self,
        command: Command,
        reason: str,
        now_ms: int,
        clock_s: float,
        *,
        old_value: Value | Mapping[str, Value | None] | None = None,
    ) -> Admission:
        """A command that failed before it was admitted: its value is wrong, its tag is read only, nobody knows its tag."""
        if self.is_known(command.id, clock_s):
            return Admission(refusal=f"id {command.id!r} was used before: replayed; also {reason}")
        self._remember(command.id, clock_s)
        return Admission((step_of(command, CommandState.FAILED, now_ms, old_value=old_value, reason=reason),))

    def move(
        self,
        command_id: str,
        state: CommandState,
        now_ms: int,
        clock_s: float,
        *,
        reason: str = "",
        final: bool | None = None,
    ) -> Step | None:
        """A running command comes to `state`; its step. None when it has ended meanwhile: expired, or superseded.

        One whose time is over is not sent any more, though nobody has called `expire` yet (the program was paused): the step then
        says that it has expired.

        `final` marks an acknowledgement that nothing follows. Raises ProtocolError (local) for a state that cannot follow.
        """
        running = self._running.get(command_id)
        if running is None:
            return None
        if not may_follow(running.state, state):
            raise ProtocolError(f"command {command_id}: {state} cannot follow {running.state}", Side.LOCAL)
        if state is CommandState.SENT and running.until_s <= clock_s:
            return self._expired(running, now_ms)
        running.state = state
        step = step_of(running.command, state, now_ms, old_value=running.old_value, reason=reason, final=final)
        if step.final:
            del self._running[command_id]
        return step

    def overtaken(self, command_id: str, now_ms: int) -> Step | None:
        """End a command that waits for its verification when one that came later will write all of its tags; its step."""
        running = self._running.get(command_id)
        if running is None or running.state is not CommandState.ACKNOWLEDGED:
            return None
        command, is_newer = running.command, False
        for each in self._running.values():
            same = each.command.device == command.device and command.values.keys() <= each.command.values.keys()
            if is_newer and same:
                return self._end(running, now_ms, f"by command {each.command.id}")
            is_newer = is_newer or each is running
        return None

    def expire(self, now_ms: int, clock_s: float) -> list[Step]:
        """End what has run out of time; what was sent may still have reached the device, and the reason says so."""
        late = [each for each in self._running.values() if each.until_s <= clock_s]
        return [self._expired(each, now_ms) for each in late]

    def next_expiry_s(self) -> float | None:
        """When `expire` has something to do at the earliest, on the monotonic clock; None without a running command."""
        return min((each.until_s for each in self._running.values()), default=None)

    def state(self, command_id: str) -> CommandState | None:
        """The state of a running command; None for any other."""
        running = self._running.get(command_id)
        return None if running is None else running.state

    def running(self, device: str | None = None) -> list[Command]:
        """The commands under way, of one device or of all, in the order they came."""
        return [each.command for each in self._running.values() if device is None or each.command.device == device]

    def is_known(self, command_id: str, clock_s: float) -> bool:
        """Whether the id was seen within the last hour."""
        while self._seen and next(iter(self._seen.values())) <= clock_s:
            self._seen.popitem(last=False)
        return command_id in self._seen or command_id in self._running

    def remember(self, command_ids: Iterable[str], clock_s: float) -> None:
        """Ids that an earlier run of this program has seen (`CommandLog.recent_ids`)."""
        for each in command_ids:
            self._remember(each, clock_s)

    def _remember(self, command_id: str, clock_s: float) -> None:
        self._seen.pop(command_id, None)
        self._seen[command_id] = clock_s + ID_KEPT_S
        while len(self._seen) > self._max_ids:
            self._seen.popitem(last=False)

    def _ended_by(self, command: Command) -> list[_Running]:
        return [
            each
            for each in self._running.values()
            if each.command.device == command.device
            and may_follow(each.state, CommandState.SUPERSEDED)
            and each.command.values.keys() <= command.values.keys()
        ]

    def _end(self, running: _Running, now_ms: int, reason: str) -> Step:
        del self._running[running.command.id]
        return step_of(
            running.command, CommandState.SUPERSEDED, now_ms, old_value=running.old_value, reason=f"superseded {reason}"
        )

    def _expired(self, running: _Running, now_ms: int) -> Step:
        del self._running[running.command.id]
        reason = {
            CommandState.ACCEPTED: "expired before it could be sent",
            CommandState.SENT: "expired without an answer: the device may have taken it",
        }.get(running.state, "expired before the value was read back: the device has confirmed the write")
        return step_of(running.command, CommandState.EXPIRED, now_ms, old_value=running.old_value, reason=reason)

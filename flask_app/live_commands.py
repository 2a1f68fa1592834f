"""Commands that this program has asked for, and what the bus has said about any command lately. Used from any thread."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from scada.commands import Call, Command, CommandState, Step, answer_of, step_of

MAX_KEPT = 20_000
"""Commands whose steps are remembered; older ones are in the log of commands. 600 a second for as long as one may wait."""
MAX_STEPS = 64
"""Steps of one command: the answers of a call's owners are the most."""
SILENT = "nobody answered"


@dataclass(eq=False, slots=True)
class Watch:
    """The steps of one command or call as they come. `asked` is what this program asked for, None for others' commands.

    `ended_s` is when the last one came, on the monotonic clock.
    """

    id: str
    asked: Command | Call | None = None
    steps: list[Step] = field(default_factory=list)
    ended_s: float | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing will follow."""
        return self.ended_s is not None


class LiveCommands:
    """`take` is called by the bus, everything else by requests."""

    def __init__(self, max_kept: int = MAX_KEPT) -> None:
        self._lock = threading.Lock()
        self._watches: OrderedDict[str, Watch] = OrderedDict()
        self._max_kept = max_kept

    def watch(self, asked: Command | Call) -> Watch:
        """Collect the steps of what is about to be asked for."""
        with self._lock:
            return self._add(Watch(asked.id, asked))

    def take(self, step: Step) -> None:
        """A step has come."""
        with self._lock:
            watch = self._watches.get(step.id) or self._add(Watch(step.id))
            if step in watch.steps:
                return  # told by this program itself, and come back over the bus
            if len(watch.steps) < MAX_STEPS:
                watch.steps.append(step)
            if step.final:
                watch.ended_s = time.monotonic()

    def find(self, command_id: str) -> Watch | None:
        """A copy of what is known about a command."""
        with self._lock:
            watch = self._watches.get(command_id)
            return None if watch is None else Watch(watch.id, watch.asked, list(watch.steps), watch.ended_s)

    def steps(self, watch: Watch) -> list[Step]:
        """The steps so far."""
        with self._lock:
            return list(watch.steps)

    def forget(self, watch: Watch) -> None:
        """What was asked for was never sent."""
        with self._lock:
            self._watches.pop(watch.id, None)

    def unfinished(self) -> list[Watch]:
        """Commands asked for by this program that have not ended."""
        with self._lock:
            return [each for each in self._watches.values() if isinstance(each.asked, Command) and not each.ended]

    def _add(self, watch: Watch) -> Watch:
        self._watches[watch.id] = watch
        while len(self._watches) > self._max_kept:
            self._watches.popitem(last=False)
        return watch


def unanswered(watch: Watch, known: Iterable[Step], now_ms: int) -> Step | None:
    """The last step of a command that ran out of time and whose owner has said no last word; None when it has.

    `known` are the steps in the log.
    """
    steps = [*known, *watch.steps]
    if watch.asked is None or any(step.final for step in steps):
        return None
    reason = SILENT if not steps else f"its program has said nothing since {steps[-1].state}"
    if isinstance(watch.asked, Call):
        return answer_of(watch.asked, CommandState.EXPIRED, now_ms, reason=reason)
    return step_of(watch.asked, CommandState.EXPIRED, now_ms, reason=reason)

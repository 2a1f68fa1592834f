"""The ends of commands that their owners left open: a last step of our own, in the log of commands."""

import logging
import time
from collections.abc import Callable, Iterable

from flask_app.live_commands import LiveCommands, Watch, unanswered
from scada.commands import Step
from scada.errors import LinkError
from storage.command_store import CommandLog

log = logging.getLogger(__name__)


class CommandEnds:
    """`commands` are those asked for by this program; `command_log` gives the log, or raises LinkError.

    The database may keep every method waiting.
    """

    def __init__(self, commands: LiveCommands, command_log: Callable[[], CommandLog]) -> None:
        self._commands = commands
        self._command_log = command_log

    def overdue(self, watches: Iterable[Watch], ends: list[Step]) -> None:
        """Store a last step of those whose time is over and whose owner said no last word, and add it to `ends`."""
        now_ms = time.time_ns() // 1_000_000
        late = [watch for watch in watches if not watch.ended]
        if not late:
            return
        try:
            found = [unanswered(watch, self._command_log().steps(watch.id), now_ms) for watch in late]
            self._command_log().append([step for step in found if step is not None])
        except LinkError as error:
            log.error("the ends of %d commands could not be stored: %s", len(late), error)
            found = [unanswered(watch, (), now_ms) for watch in late]
        ends.extend(step for step in found if step is not None)

    def unanswered(self) -> None:
        """The program ends: nobody will be there to see that a command was never answered."""
        steps = []
        for watch in self._commands.unfinished():
            if not watch.steps and (step := unanswered(watch, (), time.time_ns() // 1_000_000)) is not None:
                steps.append(step)
        if steps:
            try:
                self._command_log().append(steps)
            except LinkError as error:
                log.error("the end of %d commands could not be stored: %s", len(steps), error)

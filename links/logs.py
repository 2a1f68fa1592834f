"""Logging of every program: changes of state, one line each, on standard error."""

import logging
import os
import sys
import time

REPEAT_S = 60.0
"""A line that was just logged is counted instead of repeated for this long."""


class Collapse(logging.Filter):
    """Lets a repeated line through once in REPEAT_S, then with the count of those that were held back."""

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[str, str] = ("", "")
        self._since = float("-inf")
        self._held = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is written."""
        line = (record.name, record.getMessage())
        if line == self._last and record.created - self._since < REPEAT_S:
            self._held += 1
            return False
        if line == self._last and self._held:
            record.msg, record.args = f"{line[1]} ({self._held} more times since)", ()
        self._last, self._since, self._held = line, record.created, 0
        return True


class Rationed:
    """Lines of one kind that others cause: the first ones of each minute are written, the others are counted.

    `what` they are is for the line that says how many were not written.
    """

    def __init__(self, log: logging.Logger, most: int = 10, what: str = "lines like the last ones") -> None:
        self._log = log
        self._most = most
        self._what = what
        self._written = self._held = 0
        self._until = 0.0

    def warning(self, text: str, *args: object) -> None:
        """Write a line, or count it."""
        self._write(logging.WARNING, text, args)

    def info(self, text: str, *args: object) -> None:
        """Write a line, or count it."""
        self._write(logging.INFO, text, args)

    def _write(self, level: int, text: str, args: tuple[object, ...]) -> None:
        now = time.monotonic()
        if now >= self._until:
            if self._held:
                self._log.warning("%d more %s were not written", self._held, self._what)
            self._written, self._held, self._until = 0, 0, now + REPEAT_S
        if self._written < self._most:
            self._written += 1
            self._log.log(level, text, *args)
        else:
            self._held += 1


def start_logging() -> None:
    """Once, at a program's start. Under a supervisor (`tagwire up`, systemd) the lines carry no time: it adds its own."""
    supervised = bool(os.environ.get("NOTIFY_SOCKET"))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(levelname)s %(message)s" if supervised else "%(asctime)s %(levelname)s %(message)s")
    )
    handler.addFilter(Collapse())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # What Alembic says of itself at INFO concerns nobody who operates a plant.
    logging.getLogger("alembic").setLevel(logging.WARNING)

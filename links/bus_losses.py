"""What is said of samples that a full buffer had to drop."""

import logging
import time

log = logging.getLogger(__name__)

REPEAT_S = 60.0


class Losses:
    """One per buffer. Lines: when it begins, once in REPEAT_S while it goes on, and how many there were when it is over."""

    def __init__(self) -> None:
        self._count = 0
        self._told = 0
        self._tell_at = float("-inf")

    def add(self, count: int) -> None:
        """So many more, at this moment."""
        self._count += count

    def tell(self) -> None:
        """Say that there are some; to be called as often as one likes."""
        now = time.monotonic()
        if self._count > self._told and now >= self._tell_at:
            log.error("bus buffer: full: the oldest samples are dropped, %d so far", self._count)
            self._told = self._count
            self._tell_at = now + REPEAT_S

    def end(self) -> None:
        """Nothing waits any more, or the program ends."""
        if self._count:
            log.error("bus buffer: %d samples were dropped, the oldest ones, since it was full", self._count)
        self._count = self._told = 0

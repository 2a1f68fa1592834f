"""Which samples no longer depend on this process: the broker has them, or the disk, or they were dropped and counted."""

from collections import deque
from collections.abc import Callable, Iterable

Safe = Callable[[str, int], None]
"""Told a device and how many more of its samples, in the order in which they were published, are looked after elsewhere."""


class Receipts:
    """Of one bus. Batches may be done in any order; they are told in the order of their numbers."""

    def __init__(self, tell: Safe) -> None:
        self._tell = tell
        self._open: deque[tuple[int, str, int]] = deque()
        self._done: set[int] = set()

    def add(self, number: int, device: str, size: int) -> None:
        """A batch; its number is above all others."""
        self._open.append((number, device, size))

    def done(self, numbers: Iterable[int]) -> None:
        """These batches are safe; those of an earlier run, and those that were safe before, may be among them."""
        if not self._open:
            return
        oldest = self._open[0][0]
        self._done.update(number for number in numbers if number >= oldest)
        while self._open and self._open[0][0] in self._done:
            number, device, size = self._open.popleft()
            self._done.remove(number)
            self._tell(device, size)
        if not self._open:
            self._done.clear()

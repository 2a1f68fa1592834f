"""What is asked instead of a request that was refused, as long as no part of it was answered. Pure."""

from collections import deque
from collections.abc import Iterable

from drivers.contract import Request
from scada.errors import DeviceRefused


class Search:
    """The parts of a request that was refused with `error`, that are still to be asked for.

    By turns the smallest and the largest part come next: where something is illegal every few addresses only small ones are
    answered, and where half of everything is illegal it is the large ones that show it soon.
    """

    __slots__ = ("_deep", "_large", "_small", "alone", "error", "rounds", "share")

    def __init__(self, error: DeviceRefused, parts: Iterable[Request], rounds: int) -> None:
        self.error = error
        self.rounds = rounds
        """In so many turns it went on."""
        self.share = 0
        """So many parts may still be asked for in this turn."""
        self.alone: list[tuple[Request, DeviceRefused]] = []
        """Those that were refused and cannot be divided."""
        self._large = deque(parts)
        self._small: deque[Request] = deque()
        self._deep = True

    def __bool__(self) -> bool:
        return bool(self._large or self._small)

    @property
    def next(self) -> Request:
        """The part to be asked for."""
        if self._deep:
            return (self._small or self._large)[-1]
        return (self._large or self._small)[0]

    def refused(self, error: DeviceRefused, instead: Iterable[Request] | None) -> None:
        """The next part was refused, and is divided by `instead` where that can be done."""
        halves = self._small if self._deep else self._large
        part = self._take()
        if instead is None:
            self.alone.append((part, error))
        else:
            halves += instead

    def answered(self) -> list[Request]:
        """The next part was answered: it and the others."""
        return [self._take(), *self._small, *self._large]

    def _take(self) -> Request:
        part = (self._small or self._large).pop() if self._deep else (self._large or self._small).popleft()
        self._deep = not self._deep
        return part

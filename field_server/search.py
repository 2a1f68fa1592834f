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

    __slots__ = ("_deep", "_parts", "alone", "error", "rounds", "share")

    def __init__(self, error: DeviceRefused, parts: Iterable[Request], rounds: int) -> None:
        self.error = error
        self.rounds = rounds
        """In so many turns it went on."""
        self.share = 0
        """So many parts may still be asked for in this turn."""
        self.alone: list[tuple[Request, DeviceRefused]] = []
        """Those that were refused and cannot be divided."""
        self._parts = deque(parts)
        self._deep = True

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def next(self) -> Request:
        """The part to be asked for."""
        return self._parts[-1] if self._deep else self._parts[0]

    def refused(self, error: DeviceRefused, instead: Iterable[Request] | None) -> None:
        """The next part was refused, and is divided by `instead` where that can be done."""
        part = self._take()
        if instead is None:
            self.alone.append((part, error))
        else:
            self._parts += instead

    def answered(self) -> list[Request]:
        """The next part was answered: it and the others."""
        return [self._take(), *self._parts]

    def _take(self) -> Request:
        part = self._parts.pop() if self._deep else self._parts.popleft()
        self._deep = not self._deep
        return part

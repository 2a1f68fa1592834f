"""Places for requests that wait for a device, so that a device that does not answer cannot take all of them."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

MAX_WAITING = 12
"""Requests that wait for devices at the same time; each of them holds a thread."""
MAX_WAITING_FOR_ONE = 4
"""And of these, those that wait for the same device."""


class Places:
    """Used from any thread."""

    def __init__(self, most: int = MAX_WAITING, most_for_one: int = MAX_WAITING_FOR_ONE) -> None:
        self._most = most
        self._most_for_one = most_for_one
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    @contextmanager
    def place(self, device: str) -> Iterator[bool]:
        """A place to wait for a device while this is held; False when there is none."""
        with self._lock:
            has_place = self._taken.total() < self._most and self._taken[device] < self._most_for_one
            if has_place:
                self._taken[device] += 1
        try:
            yield has_place
        finally:
            with self._lock:
                if has_place:
                    self._taken[device] -= 1
                if not self._taken[device]:
                    del self._taken[device]

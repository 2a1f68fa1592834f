"""Requests that wait for what the bus will say of a device: bounded in number, woken from the bus's thread. No request here."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

MAX_WAITING = 1_000
"""Requests that wait at the same time. Each holds a connection and some 50 KB, and no thread where the bridge serves."""
MAX_WAITING_FOR_ONE = 250
"""And of these, those that wait for the same device: one that is dead must not take every place."""


def _never() -> bool:
    return False


@dataclass(eq=False, slots=True)
class Waiter:
    """A place. `woken` is done once `done` said so, or the program ends; it cannot be cancelled."""

    device: str
    done: Callable[[], bool] = _never
    woken: "Future[None]" = field(default_factory=Future)


class Waiters:
    """Used from any thread. `done` is called in whatever thread tells of news, must not wait, and not come back here."""

    def __init__(self, most: int = MAX_WAITING, most_for_one: int = MAX_WAITING_FOR_ONE) -> None:
        self._most = most
        self._most_for_one = most_for_one
        self._lock = threading.Lock()
        self._waiting: dict[str, set[Waiter]] = {}
        self._count = 0
        self._is_ending = False

    def place(self, device: str) -> Waiter | str:
        """A place to wait for a device, to be given back by `leave`; or why there is none."""
        with self._lock:
            if self._count >= self._most:
                return f"{self._count} requests wait already"
            found = self._waiting.setdefault(device, set())
            if len(found) >= self._most_for_one:
                return f"{len(found)} requests wait for this device already"
            waiter = Waiter(device)
            waiter.woken.set_running_or_notify_cancel()
            found.add(waiter)
            self._count += 1
            return waiter

    def until(self, waiter: Waiter, done: Callable[[], bool]) -> None:
        """Wake a waiter when `done` says that there is what it waits for; perhaps at once."""
        with self._lock:
            waiter.done = done
        self.look(waiter.device)

    def look(self, device: str) -> None:
        """There is news of a device: wake those who have waited for it."""
        if not self._waiting:
            return  # nearly always, and this is asked of every message
        with self._lock:
            waiting = [each for each in self._waiting.get(device, ()) if not each.woken.done()]
        ready = [each for each in waiting if self._is_ending or each.done()]
        with self._lock:
            for each in ready:
                if not each.woken.done():  # two threads may have seen the same
                    each.woken.set_result(None)

    def leave(self, waiter: Waiter) -> None:
        """The place is free again; the second time changes nothing."""
        with self._lock:
            found = self._waiting.get(waiter.device, set())
            if waiter in found:
                found.remove(waiter)
                self._count -= 1
                if not found:
                    del self._waiting[waiter.device]

    def let_go(self) -> None:
        """The program ends: nobody waits any longer."""
        self._is_ending = True
        with self._lock:
            devices = list(self._waiting)
        for device in devices:
            self.look(device)

"""Which topic filters a session with a broker should hold, does hold, and is asked for: bookkeeping without a socket."""

from collections.abc import Iterable, Iterator, Sequence

BATCH = 50
"""Filters in one packet."""


class Subscriptions:
    """What is wanted outlives every connection; what is held, and what has to be given back, belongs to the broker's session."""

    def __init__(self) -> None:
        self._wanted: dict[str, int] = {}  # and with which QoS
        self._refused: set[str] = set()
        self._held: set[str] = set()
        self._unwanted: set[str] = set()
        self._subscribing: dict[int, list[str]] = {}
        self._unsubscribing: dict[int, list[str]] = {}

    def add(self, filters: Iterable[str], qos: int = 1) -> None:
        """Want these too. Another QoS than before counts from the next session on."""
        added = dict.fromkeys(filters, qos)
        self._wanted |= added
        self._unwanted.difference_update(added)

    def qos(self, topic_filter: str) -> int:
        """With which QoS to subscribe to it."""
        return self._wanted[topic_filter]

    @property
    def refused(self) -> frozenset[str]:
        """What the broker said no to when it was last asked."""
        return frozenset(self._refused)

    def ask_again(self, filters: Iterable[str]) -> None:
        """Subscribe to them once more, as far as they are wanted: the broker repeats what is retained."""
        self._held.difference_update(filters)

    def remove(self, filters: Iterable[str]) -> None:
        """Want these no more. They stay unwanted until the broker confirms it: a resumed session would deliver them for ever."""
        removed = set(filters)
        for each in removed:
            self._wanted.pop(each, None)
        self._refused -= removed
        self._held -= removed
        self._unwanted |= removed

    def connected(self, session_present: bool) -> None:
        """A new connection: what was asked for and not answered before it may never have arrived."""
        if not session_present:
            self._held.clear()
            self._unwanted.clear()
        # A resumed session has kept nothing for QoS 0 meanwhile. Asked anew, the broker repeats what is retained.
        self._held.difference_update(each for each, qos in self._wanted.items() if qos == 0)
        for batch in self._subscribing.values():
            self._held.difference_update(batch)
        self._subscribing.clear()
        self._unsubscribing.clear()

    def missing(self) -> Iterator[list[str]]:
        """What to subscribe to. What is held is left out: asked again, a broker would repeat its retained messages."""
        return _batches(self._wanted.keys() - self._held)

    def superfluous(self) -> Iterator[list[str]]:
        """What to unsubscribe from and was not yet asked for."""
        asked = {each for batch in self._unsubscribing.values() for each in batch}
        return _batches(self._unwanted - asked)

    def subscribing(self, mid: int, batch: list[str]) -> None:
        """`batch` was asked for in the packet `mid`."""
        self._subscribing[mid] = batch
        self._held.update(batch)

    def unsubscribing(self, mid: int, batch: list[str]) -> None:
        """`batch` was given back in the packet `mid`."""
        self._unsubscribing[mid] = batch

    def answered(self, mid: int, failures: Sequence[bool]) -> list[str]:
        """The broker's answer to a subscription, one truth value a filter; returns the filters that it refused."""
        asked = self._subscribing.pop(mid, [])
        refused = [each for each, failed in zip(asked, failures, strict=False) if failed]
        self._held.difference_update(refused)
        self._refused.difference_update(asked)
        self._refused.update(refused)
        return refused

    def released(self, mid: int) -> None:
        """The broker confirmed an unsubscription."""
        self._unwanted.difference_update(self._unsubscribing.pop(mid, ()))


def _batches(filters: set[str]) -> Iterator[list[str]]:
    ordered = sorted(filters)
    return (ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH))

"""Whether a broker passes messages on: what a program sends to itself has to come back. No socket in here."""

import secrets
from dataclasses import dataclass

PERIOD_S = 3.0
MISSED = 3
"""So many unanswered ones in a row, and the connection is dead. Counted, not timed: a program that slept gets its chance."""


MISSED_AMID_OTHERS = 10
"""And so many where other messages arrive: in a flood a heartbeat has to queue as well."""


@dataclass(frozen=True, slots=True)
class BusCounters:
    """What a heartbeat tells others: samples, since the start.

    poisoned: messages that a handler failed on, and samples too long for a message;
    published: acknowledged for good; late: those of them that came late; buffered: waiting now; dropped: lost to the bound.
    """

    published: int
    late: int
    buffered: int
    dropped: int
    poisoned: int


class Heartbeat:
    """Of one program; a heartbeat counts only on the connection that it was sent on."""

    def __init__(self) -> None:
        self._instance = secrets.token_hex(6).encode()
        self._connection = 0
        self._unanswered = 0
        self._next_at = 0.0
        self.heard = False
        """Set by the owner when any message arrived; taken back with each heartbeat that is sent."""
        self.came_back = False
        """On this connection, and not too long ago."""

    def begin(self) -> None:
        """A new connection."""
        self._connection += 1
        self._unanswered = 0
        self._next_at = 0.0
        self.came_back = False

    def is_dead(self, now_s: float) -> bool:
        """Whether the last ones, all of them, did not come back in their time."""
        return self._unanswered >= (MISSED_AMID_OTHERS if self.heard else MISSED) and now_s >= self._next_at

    def due(self, now_s: float) -> bytes | None:
        """What to send now, None while it is too early. Something for others may be added behind a space."""
        if now_s < self._next_at:
            return None
        self._next_at = now_s + PERIOD_S
        self.heard = False
        self._unanswered += 1
        return b"%s %d" % (self._instance, self._connection)

    def came(self, payload: bytes) -> bool:
        """One arrived; False when another program sent it."""
        if payload.split(b" ", 2)[:2] == [self._instance, b"%d" % self._connection]:
            self._unanswered = 0
            self.came_back = True
        return payload.startswith(self._instance)

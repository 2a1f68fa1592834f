"""The window: batches that were sent and that the broker may still forget."""

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from links.mqtt import MqttLink
from links.publications import PublishRefused
from scada.bus_batches import Batch, mark_late
from scada.errors import LinkError

KEPT_S = 1.0
"""A batch is kept this long after its acknowledgement: Mosquitto acknowledges before it saves, and its end forgets it."""


class Settled(NamedTuple):
    """Batches that are the broker's for good: their samples and numbers, and those of them that came late."""

    samples: int
    numbers: list[int]
    late_samples: int
    late_numbers: list[int]


class Window:
    """Of one link. `on_room` is called after each answer, `on_refused` with a batch that the broker will never take."""

    def __init__(self, link: MqttLink, on_room: Callable[[], None], on_refused: Callable[[Batch, str], None]) -> None:
        self._link = link
        self._on_room = on_room
        self._on_refused = on_refused
        self._connection = 0
        self._unanswered: dict[int, tuple[Batch, bool]] = {}
        self._acknowledged: deque[tuple[float, Batch, bool]] = deque()
        self.answered_at = 0.0
        """When the last answer came (monotonic, seconds)."""

    def __len__(self) -> int:
        return len(self._unanswered)

    def send(self, topic: str, batch: Batch, late: bool) -> None:
        """Raises LinkError when the connection has just ended; the batch is one of those that `end` returns, all the same."""
        if not self._unanswered:
            self.answered_at = time.monotonic()
        self._unanswered[batch.number] = batch, late
        connection = self._connection

        def done(error: LinkError | None) -> None:
            if connection != self._connection or (error is not None and not isinstance(error, PublishRefused)):
                return  # of a connection that ended: `end` looks after it
            del self._unanswered[batch.number]
            self.answered_at = time.monotonic()
            if error is None:
                self._acknowledged.append((self.answered_at, batch, late))
            else:
                self._on_refused(batch, str(error))
            self._on_room()

        try:
            self._link.post(topic, mark_late(batch.payload) if late else batch.payload, done)
        except ValueError as exc:  # no topic can have that device's name
            done(PublishRefused(f"{topic!r}: {exc}"))

    def settle(self, keep_s: float = KEPT_S) -> Settled:
        """Let go of what was acknowledged more than `keep_s` ago."""
        samples = late_samples = 0
        numbers: list[int] = []
        late_numbers: list[int] = []
        until = time.monotonic() - keep_s
        while self._acknowledged and self._acknowledged[0][0] <= until:
            _, batch, late = self._acknowledged.popleft()
            samples += batch.size
            numbers.append(batch.number)
            if late:
                late_samples += batch.size
                late_numbers.append(batch.number)
        return Settled(samples, numbers, late_samples, late_numbers)

    def end(self) -> tuple[list[Batch], set[int]]:
        """The connection ended: everything that it did not settle, in order, and the numbers of what was acknowledged of that."""
        self._connection += 1
        acknowledged = [batch for _, batch, _ in self._acknowledged]
        left = sorted([*acknowledged, *(batch for batch, _ in self._unanswered.values())])
        self._acknowledged.clear()
        self._unanswered.clear()
        return left, {batch.number for batch in acknowledged}

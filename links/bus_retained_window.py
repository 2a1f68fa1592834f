"""Retained messages on their way to the broker: few at a time, beside the window of changes."""

import time
from collections import deque
from collections.abc import Callable

from links.bus_retained import Retained
from links.bus_window import KEPT_S
from links.mqtt import MqttLink
from links.publications import PublishRefused
from scada.errors import LinkError

MOST = 8
"""They take a broker longer than others, and changes queue behind them (measured with the embedded one)."""


class RetainedWindow:
    """Of one link. `on_room` is called after each answer, `fail` with what went wrong for good."""

    def __init__(
        self, link: MqttLink, retained: Retained, on_room: Callable[[], None], fail: Callable[[str], None]
    ) -> None:
        self._link = link
        self._retained = retained
        self._on_room = on_room
        self._fail = fail
        self._connection = 0
        self._unanswered = 0
        self._emptied: deque[tuple[float, str]] = deque()

    def __len__(self) -> int:
        return self._unanswered

    def send_due(self, room: int) -> None:
        """What is due, as far as there is room; raises LinkError when the connection has just ended."""
        while self._retained and self._unanswered < min(MOST, room):
            taken = self._retained.take()
            if self._retained.too_long:
                self._fail(self._retained.too_long)
            if taken is not None:
                self._send(*taken)

    def settle(self, keep_s: float = KEPT_S) -> None:
        """Topics that were emptied, and acknowledged more than `keep_s` ago, stay so."""
        until = time.monotonic() - keep_s
        while self._emptied and self._emptied[0][0] <= until:
            self._retained.settled(self._emptied.popleft()[1])

    def end(self) -> None:
        """The connection ended: with the next one everything is due again."""
        self._connection += 1
        self._unanswered = 0
        self._emptied.clear()

    def _send(self, topic: str, payload: bytes) -> None:
        connection = self._connection

        def done(error: LinkError | None) -> None:
            if connection != self._connection:
                return
            self._unanswered -= 1
            if isinstance(error, PublishRefused):
                self._fail(str(error))
            elif error is None and not payload:
                self._emptied.append((time.monotonic(), topic))
            self._on_room()

        self._unanswered += 1
        try:
            self._link.post(topic, payload, done, retain=True)
        except ValueError as exc:  # no topic can have that device's name
            done(PublishRefused(f"{topic!r}: {exc}"))

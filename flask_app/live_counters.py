"""What the programs on the bus count of their samples, as their heartbeats tell it. Used from any thread."""

import threading
import time
from collections.abc import Callable, Mapping

from scada.bus_messages import decode_counters
from scada.topics import BusTopics

FRESH_S = 15.0
"""Five heartbeats; a program that was silent longer is not shown."""
MAX_OWNERS = 1_000


class LiveCounters:
    """The last heartbeat of each program that counts."""

    def __init__(self, topics: BusTopics, clock: Callable[[], float] = time.monotonic) -> None:
        self._topics = topics
        self._clock = clock
        self._lock = threading.Lock()
        self._heard: dict[str, tuple[float, Mapping[str, int]]] = {}

    def take(self, topic: str, payload: bytes) -> None:
        """A heartbeat; those without counters are ignored."""
        parts = self._topics.split(topic)
        counters = decode_counters(payload)
        if parts is None or parts.kind != "heartbeat" or counters is None:
            return
        with self._lock:
            if parts.owner in self._heard or len(self._heard) < MAX_OWNERS:
                self._heard[parts.owner] = self._clock(), counters

    def by_owner(self) -> dict[str, Mapping[str, int]]:
        """The counters of the programs that are there, by owner and kind."""
        oldest = self._clock() - FRESH_S
        with self._lock:
            self._heard = {owner: each for owner, each in self._heard.items() if each[0] >= oldest}
            return {owner: self._heard[owner][1] for owner in sorted(self._heard)}

"""What the programs on the bus count of their samples, as their heartbeats tell it. Used from any thread."""

import threading
import time
from collections.abc import Callable, Mapping

from scada.payload import decode_payload
from scada.topics import BusTopics
from scada.values import BadValue

KINDS = ("published", "late", "dropped", "poisoned", "buffered")
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
        # Of a name and a number, which only the sender needs, and the counters.
        words = payload.split(b" ", 2)
        if parts is None or parts.kind != "heartbeat" or len(words) < 3:
            return
        try:
            document = decode_payload(words[2])
        except BadValue:
            return  # anybody may send anything there
        if not isinstance(document, Mapping):
            return
        counters = {kind: each for kind in KINDS if type(each := document.get(kind)) is int and each >= 0}
        if len(counters) < len(KINDS):
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

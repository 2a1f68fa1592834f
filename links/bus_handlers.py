"""Who gets a message of the bus: handlers by topic filter."""

from collections.abc import Callable, Sequence

Handler = Callable[[str, bytes, bool, bool], None]
"""Given topic, payload, whether it was retained, whether the broker sent it before. Runs in the loop and must not block."""
MAX_CACHED = 20_000


class Handlers:
    """Looks a topic up once; a filter has one handler."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._found: dict[str, tuple[Handler, ...]] = {}
        self.retained: set[str] = set()
        """The filters whose topics' last messages count."""

    def add(self, filters: Sequence[str], handler: Handler, retained: bool = False) -> None:
        """Messages on topics that match go to `handler`."""
        self._handlers |= dict.fromkeys(filters, handler)
        self._found.clear()
        if retained:
            self.retained.update(filters)

    def remove(self, filters: Sequence[str]) -> None:
        """And no longer."""
        for each in filters:
            self._handlers.pop(each, None)
        self._found.clear()
        self.retained.difference_update(filters)

    def find(self, topic: str) -> tuple[Handler, ...]:
        """Each handler once, however many of its filters match."""
        found = self._found.get(topic)
        if found is None:
            if len(self._found) >= MAX_CACHED:
                self._found.clear()
            matching = dict.fromkeys(handler for each, handler in self._handlers.items() if matches(each, topic))
            found = self._found[topic] = tuple(matching)
        return found


def matches(topic_filter: str, topic: str) -> bool:
    """MQTT 3.1.1 section 4.7: + is one level, # is all further ones and the parent."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        if len(levels) < len(wanted):
            return False
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(want in ("+", level) for want, level in zip(wanted, levels, strict=True))

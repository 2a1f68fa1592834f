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


class LastWords:
    """Topics of links and programs on which something was said live on this connection.

    What is retained there is asked for twice, and the embedded broker may repeat what was retained before: with no time in it, it
    would be taken for the last word.
    """

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._prefixes = tuple(prefixes)
        self._live: set[str] = set()

    def are_older(self, topic: str, retained: bool) -> bool:
        """Whether a message is a retained one behind one that was heard live."""
        if not topic.startswith(self._prefixes):
            return False
        if not retained:
            self._live.add(topic)
        return retained and topic in self._live

    def clear(self) -> None:
        """The connection has ended."""
        self._live.clear()


def matches(topic_filter: str, topic: str) -> bool:
    """MQTT 3.1.1 section 4.7: + is one level, # is all further ones and the parent."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        if len(levels) < len(wanted):
            return False
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(want in ("+", level) for want, level in zip(wanted, levels, strict=True))

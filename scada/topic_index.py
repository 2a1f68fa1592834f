"""Which devices a message concerns: a dictionary hit for plain topics, a walk down a small tree for filters with wildcards."""

from collections.abc import Collection
from itertools import zip_longest
from typing import Generic, TypeVar

V = TypeVar("V")


class _Node(Generic[V]):
    __slots__ = ("below", "children", "here")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.here: list[V] = []
        """Values of filters that end at this level."""
        self.below: list[V] = []
        """Values of filters that end here with `#`."""


class TopicIndex(Generic[V]):
    """Values by topic filter (MQTT 3.1.1 section 4.7). A lookup costs the topic's levels, not the number of filters."""

    def __init__(self) -> None:
        self._plain: dict[str, list[V]] = {}
        self._root: _Node[V] = _Node()
        self._wild = 0

    def add(self, topic_filter: str, value: V) -> None:
        """Have `find` return `value` for the topics of a (valid) filter."""
        if not _is_wild(topic_filter):
            self._plain.setdefault(topic_filter, []).append(value)
            return
        self._wild += 1
        self._end(topic_filter).append(value)

    def remove(self, topic_filter: str, value: V) -> None:
        """Undo one `add`; ValueError or KeyError when there was none."""
        if not _is_wild(topic_filter):
            values = self._plain[topic_filter]
            values.remove(value)
            if not values:
                del self._plain[topic_filter]
            return
        try:
            self._end(topic_filter).remove(value)
            self._wild -= 1
        finally:
            self._prune(self._root, topic_filter.split("/"))

    def find(self, topic: str) -> list[V]:
        """The values of every filter that matches `topic`; the list is the caller's to read, not to change."""
        plain = self._plain.get(topic)
        if not self._wild:
            return plain or []
        found = list(plain or ())
        levels = topic.split("/")
        # Section 4.7.2: a wildcard in the first level does not match topics that begin with $.
        self._walk(self._root, levels, 0, found, topic.startswith("$"))
        return found

    def _walk(self, node: _Node[V], levels: list[str], depth: int, found: list[V], hidden: bool) -> None:
        if not hidden:
            found += node.below
        if depth == len(levels):
            found += node.here
            return
        exact = node.children.get(levels[depth])
        if exact is not None:
            self._walk(exact, levels, depth + 1, found, False)
        any_level = node.children.get("+")
        if any_level is not None and not hidden:
            self._walk(any_level, levels, depth + 1, found, False)

    def _end(self, topic_filter: str) -> list[V]:
        node = self._root
        for level in topic_filter.split("/"):
            if level == "#":
                return node.below
            node = node.children.setdefault(level, _Node())
        return node.here

    def _prune(self, node: _Node[V], levels: list[str]) -> None:
        child = node.children.get(levels[0])
        if child is None:
            return
        if len(levels) > 1:
            self._prune(child, levels[1:])
        if not (child.children or child.here or child.below):
            del node.children[levels[0]]


def widest(filters: Collection[str]) -> set[str]:
    """The filters without those whose topics another one takes all."""
    index: TopicIndex[str] = TopicIndex()
    for each in filters:
        if _is_wild(each):
            index.add(each, each)
    # `find` takes a filter for a topic, so it finds each one that could be wider, and some that are not.
    return {each for each in filters if not any(other != each and covers(other, each) for other in index.find(each))}


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that `narrow` takes is one that `wide` takes (MQTT 3.1.1 section 4.7)."""
    levels, others = wide.split("/"), narrow.split("/")
    if levels[0] in ("+", "#") and others[0].startswith("$"):
        return False
    for level, other in zip_longest(levels, others):
        if level == "#":
            return True
        if level is None or other is None or other == "#" or level not in ("+", other):
            return False
    return True


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter takes a topic."""
    index: TopicIndex[bool] = TopicIndex()
    index.add(topic_filter, True)
    return bool(index.find(topic))


def _is_wild(topic_filter: str) -> bool:
    return "+" in topic_filter or "#" in topic_filter

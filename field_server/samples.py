"""What is worth telling of the tags that one request reads. Pure."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, cast

from drivers.contract import Point, Refusal
from scada.sources import TagSource
from scada.values import BadValue, Quality, Reason, Sample, Value


@dataclass(frozen=True, slots=True, eq=False)
class Source(TagSource):
    """One tag that is read from a point."""

    point: Point
    period_ms: int


REFUSED: Final = MappingProxyType(
    {
        Refusal.CONFIG: Reason.CONFIG_ERROR,
        Refusal.DEVICE: Reason.DEVICE_FAILURE,
        Refusal.BUSY: Reason.DEVICE_FAILURE,
        Refusal.UNREACHABLE: Reason.COMM_FAILURE,
    }
)
"""What a refusal makes of the tags that were asked for."""

_UNREACHABLE: Final = frozenset({Reason.COMM_FAILURE, Reason.NOT_CONNECTED})


class _Nothing:
    """Equals no raw value: what was not read yet, or what must be told again."""


_NOTHING: Final = _Nothing()


class Readings:
    """The last values of the tags that one request reads, in the request's order."""

    __slots__ = ("_raw", "_told", "sources")

    def __init__(self, sources: Sequence[Source], known: Iterable[Sample | None] = ()) -> None:
        """`known` are the samples told last, by an earlier request for the same tags."""
        self.sources = tuple(sources)
        self._told: list[Sample | None] = list(known) or [None] * len(self.sources)
        self._raw: list[object] = [_NOTHING] * len(self.sources)

    @property
    def told(self) -> Sequence[Sample | None]:
        """The samples told last."""
        return self._told

    def raw(self, index: int) -> Value | BadValue | None:
        """What was read last; None when nothing was since a failure."""
        value = self._raw[index]
        return None if value is _NOTHING else cast(Value | BadValue, value)

    def take(self, values: Sequence[Value | BadValue], time_ms: int, asked: Collection[str] = ()) -> list[Sample]:
        """The samples to tell of what was just read. Tags that somebody `asked` for are told whether or not they changed."""
        raw = self._raw
        if values == raw and not asked:
            return []
        wanted = {index for index, source in enumerate(self.sources) if source.tag in asked} if asked else ()
        changed: list[Sample] = []
        for index, value in enumerate(values):
            if value == raw[index] and index not in wanted:
                continue
            raw[index] = value
            source, told = self.sources[index], self._told[index]
            sample = source.sample(value, time_ms, None if told is None else told.value)
            if source.is_news(sample, told) or index in wanted:
                self._told[index] = sample
                changed.append(sample)
        return changed

    def fail(self, reason: Reason, time_ms: int) -> list[Sample]:
        """The samples that say that nothing could be read; each keeps its last value."""
        self._raw = [_NOTHING] * len(self.sources)
        changed: list[Sample] = []
        for index, told in enumerate(self._told):
            if told is not None and told.quality is Quality.BAD and _same_trouble(told.reason, reason):
                continue
            value = None if told is None else told.value
            sample = Sample(self.sources[index].tag, value, Quality.BAD, time_ms, reason)
            self._told[index] = sample
            changed.append(sample)
        return changed


def _same_trouble(old: Reason, new: Reason) -> bool:
    """A device that is away first breaks a connection and then refuses new ones: that is one piece of news."""
    return old is new or (old in _UNREACHABLE and new in _UNREACHABLE)

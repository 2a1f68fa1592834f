"""From raw values to samples worth telling: engineering value, quality, and whether anything changed. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from drivers.contract import Point
from scada.scaling import Limits, exceeds_deadband
from scada.values import BadValue, Quality, Reason, RejectCode, Sample, Value

_REASONS: Final = {RejectCode.OUT_OF_RANGE: Reason.OUT_OF_RANGE}
"""Why bytes are no value: out of range (NaN among them), else the configuration says something that the device is not."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One tag that is read. `convert` makes its engineering value of a raw one, or raises BadValue."""

    tag: str
    point: Point
    period_ms: int
    convert: Callable[[Value], Value]
    limits: tuple[Limits, ...]
    deadband: float

    def sample(self, raw: Value | BadValue, time_ms: int, last: Value | None) -> Sample:
        """What `raw`, read at `time_ms`, says; `last` is the value to keep when it is none.

        Outside its limits a value is bad, or with their action `clamp` the limit itself, which is uncertain.
        """
        try:
            if isinstance(raw, BadValue):
                raise raw
            value = self.convert(raw)
            quality, reason = Quality.GOOD, Reason.NONE
            for limits in self.limits:
                inside = limits.apply(value)  # type: ignore[arg-type]  # only numbers have limits
                if inside != value:
                    value, quality, reason = inside, Quality.UNCERTAIN, Reason.OUT_OF_RANGE
        except BadValue as error:
            return Sample(self.tag, last, Quality.BAD, time_ms, _REASONS.get(error.code, Reason.CONFIG_ERROR))
        return Sample(self.tag, value, quality, time_ms, reason)


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

    def take(self, values: Sequence[Value | BadValue], time_ms: int) -> list[Sample]:
        """The samples to tell of what was just read."""
        raw = self._raw
        if values == raw:
            return []
        changed: list[Sample] = []
        for index, value in enumerate(values):
            if value == raw[index]:
                continue
            raw[index] = value
            source, told = self.sources[index], self._told[index]
            sample = source.sample(value, time_ms, None if told is None else told.value)
            if _is_news(sample, told, source.deadband):
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


def _is_news(sample: Sample, told: Sample | None, deadband: float) -> bool:
    if told is None or sample.quality is not told.quality or sample.reason is not told.reason:
        return True
    if sample.value is None or told.value is None:
        return sample.value is not told.value
    return exceeds_deadband(told.value, sample.value, deadband)


def _same_trouble(old: Reason, new: Reason) -> bool:
    """A device that is away first breaks a connection and then refuses new ones: that is one piece of news."""
    return old is new or (old in _UNREACHABLE and new in _UNREACHABLE)

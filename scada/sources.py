"""From a raw value of a tag's source to a sample: engineering value, limits, quality, and whether it is news. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scada.config import BindingConfig, TagConfig
from scada.conversion import compile_engineering, compile_limits
from scada.scaling import Limits, exceeds_deadband
from scada.values import BadValue, Quality, Reason, RejectCode, Sample, Value

_REASONS: Final = {RejectCode.OUT_OF_RANGE: Reason.OUT_OF_RANGE}
"""Why bytes are no value: out of range (NaN among them), else the configuration says something that the device is not."""


@dataclass(frozen=True, slots=True, eq=False)
class TagSource:
    """How one tag gets its samples. `convert` makes its engineering value of a raw one, or raises BadValue."""

    tag: str
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

    def is_news(self, sample: Sample, told: Sample | None) -> bool:
        """Whether `sample` is to be told after `told`: another quality or reason, or a value beyond the deadband."""
        if told is None or sample.quality is not told.quality or sample.reason is not told.reason:
            return True
        if sample.value is None or told.value is None:
            return sample.value is not told.value
        return exceeds_deadband(told.value, sample.value, self.deadband)


def compile_source(tag: TagConfig, binding: BindingConfig) -> TagSource:
    """The source of a tag that is read over `binding`."""
    return TagSource(tag.name, compile_engineering(tag, binding), compile_limits(tag, binding), tag.deadband)

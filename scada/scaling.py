"""Raw numbers to engineering units and back, the limits of a value, and whether it changed enough to count."""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, copysign, floor, inf, isfinite, isnan

from scada.errors import ConfigError, Fault
from scada.values import BadValue, RejectCode, Value

Number = int | float


@dataclass(frozen=True, slots=True)
class Scaling:
    """engineering = raw * gain + offset.

    The identity gives every number back as it is, integers as integers; any other scaling gives floats. Raises
    ConfigError (fields `gain`, `offset`) for a number that is not finite and for gain 0, which has no inverse.
    """

    gain: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        faults = []
        if not isfinite(self.gain) or self.gain == 0:
            faults.append(Fault("gain", f"a finite number other than 0, not {self.gain}"))
        if not isfinite(self.offset):
            faults.append(Fault("offset", f"a finite number, not {self.offset}"))
        if faults:
            raise ConfigError(faults)

    def to_engineering(self, raw: Number) -> Number:
        """Raises BadValue (OUT_OF_RANGE) when raw or the result is no finite number."""
        if self.gain == 1.0 and self.offset == 0.0:
            return _finite(raw, raw)
        try:
            return _finite(raw * self.gain + self.offset, raw)
        except OverflowError:
            raise _too_large(raw) from None

    def to_raw(self, value: Number) -> Number:
        """The inverse; a float, which round_half_away takes to an integer register. Raises as to_engineering."""
        if self.gain == 1.0 and self.offset == 0.0:
            return _finite(value, value)
        try:
            return _finite((value - self.offset) / self.gain, value)
        except OverflowError:
            raise _too_large(value) from None


class OutOfLimits(StrEnum):
    """What is done with a value outside its limits."""

    REJECT = "reject"
    CLAMP = "clamp"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a value may be, both ends included, in engineering units; None is no limit. `whole`: of a tag of whole numbers.

    Raises ConfigError (fields `low`, `high`) when an end is not finite or low is above high.
    """

    low: float | None = None
    high: float | None = None
    action: OutOfLimits = OutOfLimits.REJECT
    whole: bool = False

    def __post_init__(self) -> None:
        ends = (("low", self.low), ("high", self.high))
        given = [(name, end) for name, end in ends if end is not None]
        faults = [Fault(name, f"a finite number, not {end}") for name, end in given if not isfinite(end)]
        if not faults and self.low is not None and self.high is not None and self.low > self.high:
            faults.append(Fault("low", f"{self.low} is above high, {self.high}"))
        if faults:
            raise ConfigError(faults)

    def apply(self, value: Number) -> Number:
        """The value, or the nearest one inside the limits; of whole numbers a whole one.

        Raises BadValue (OUT_OF_RANGE): outside with action reject; NaN and infinity, which are no measurement to
        clamp; a whole number when none lies inside.
        """
        low = -inf if self.low is None else self.low
        high = inf if self.high is None else self.high
        if low <= value <= high and value not in (inf, -inf):
            return value
        if self.action is OutOfLimits.CLAMP and -inf < value < inf:
            if not self.whole:
                return low if value < low else high
            inside = ceil(low) if value < low else floor(high)
            if low <= inside <= high:
                return inside
        raise BadValue(RejectCode.OUT_OF_RANGE, f"{_shown(value)} is outside {low}..{high}")


def exceeds_deadband(old: Value | None, new: Value, deadband: float) -> bool:
    """Whether new differs from old by more than deadband, in the unit of the value.

    A deadband of 0 lets every change through; a change of exactly the deadband is not enough. Text and booleans count
    by any change, as do the first value (old is None) and a change of kind (1 to true). 0.0 and -0.0 are equal, and so
    are NaN and NaN; a number beside NaN or infinity differs by more than any deadband.
    """
    if type(old) is float and type(new) is float and (difference := abs(new - old)) == difference:
        return difference > deadband  # what nearly all are: 100,000 a second count
    if old == new and isinstance(old, bool) == isinstance(new, bool):
        return False
    if isinstance(old, bool | str | None) or isinstance(new, bool | str):
        return True
    if _is_nan(old) or _is_nan(new):
        return not (_is_nan(old) and _is_nan(new))
    try:
        return abs(new - old) > deadband
    except OverflowError:  # an integer beyond float64 beside a float
        return True


def round_half_away(value: Number) -> int:
    """The nearest integer, halves away from zero: 2.5 to 3, -2.5 to -3, as an operator rounds and unlike round().

    For values that scaling made, on their way into integer registers; without scaling a fraction is an error there, not
    rounded. Raises BadValue (OUT_OF_RANGE) for NaN and infinity.
    """
    if isinstance(value, int):
        return int(value)
    whole = int(_finite(value, value))
    # not int(value + 0.5): 0.49999999999999994 + 0.5 is 1.0; the difference here is exact
    return whole + int(copysign(1, value)) if abs(value - whole) >= 0.5 else whole


def _finite(result: Number, source: Number) -> Number:
    if isinstance(result, int) or isfinite(result):
        return result
    raise _too_large(source)


def _is_nan(value: Number) -> bool:
    return isinstance(value, float) and isnan(value)


def _too_large(source: Number) -> BadValue:
    return BadValue(RejectCode.OUT_OF_RANGE, f"{_shown(source)} is beyond what a float64 holds after scaling")


def _shown(value: Number) -> str:
    if isinstance(value, int) and value.bit_length() > 256:  # str() refuses integers of more than 4,300 digits
        return f"an integer of {value.bit_length()} bits"
    return repr(value)

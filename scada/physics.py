"""What simulated machines are made of: steps that are exact, or at least tame, for any time passed."""

from math import exp


def lag(value: float, target: float, dt_s: float, time_constant_s: float) -> float:
    """A first-order lag: where `value` is after `dt_s` on its way to `target`. Many short steps give what one long gives."""
    return target + (value - target) * exp(-dt_s / time_constant_s)


def approach(value: float, target: float, most: float) -> float:
    """`value` moved towards `target` by at most `most`, never past it."""
    return min(target, value + most) if value < target else max(target, value - most)


def clamp(value: float, low: float, high: float) -> float:
    """`value`, or the bound that it passed."""
    return min(high, max(low, value))

"""When a group of tags is read next: a fixed grid in time, so that nothing drifts. Pure; times are monotonic seconds."""

from typing import Final

_GOLDEN: Final = 0.618_033_988_749_895
"""Multiples of the golden ratio, modulo 1, spread any number of phases evenly (Weyl's equidistribution)."""


def phase_s(number: int, period_s: float) -> float:
    """Where in its period the group `number` has its turn, so that groups do not all ask at once."""
    return (number * _GOLDEN) % 1.0 * period_s


def next_due(due: float, period_s: float, now: float) -> float:
    """The next turn after the one that was due at `due` and is over at `now`.

    A turn that took a little longer than its period is followed at once by the next. Whoever missed more than that, by a pause
    of the machine or a device that was away, has had its one catch-up with this turn, and goes on with its old grid.
    """
    late = now - due
    if late < 2 * period_s:
        return due + period_s
    return due + (int(late / period_s) + 1) * period_s

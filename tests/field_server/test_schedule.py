"""When a group is read next."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from field_server.schedule import next_due, phase_s


def test_the_grid_does_not_drift() -> None:
    due = 100.25
    for turn in range(1, 1000):
        due = next_due(due, 0.5, due + 0.013)
        assert due == 100.25 + turn * 0.5


def test_a_turn_that_took_a_little_longer_is_followed_at_once() -> None:
    assert next_due(10.0, 1.0, 11.2) == 11.0


def test_a_long_pause_costs_one_catch_up_only() -> None:
    """Row P4: the late turn itself was it; the next keeps to the grid, in the future."""
    assert next_due(10.0, 1.0, 40.3) == 41.0


@given(st.floats(0, 1e6), st.floats(0.01, 1e4), st.floats(0, 1e5))
def test_never_two_turns_in_the_past(due: float, period_s: float, late: float) -> None:
    following = next_due(due, period_s, due + late)
    assert following > due
    assert following > due + late - period_s * (1 + 1e-9)


def test_phases_are_spread() -> None:
    phases = sorted(phase_s(number, 1.0) for number in range(100))
    gaps = [after - before for before, after in pairwise(phases)]
    assert phases[0] >= 0
    assert phases[-1] < 1.0
    assert max(gaps) < 0.03

"""Steps that do not depend on how the time is cut."""

import pytest

from scada.physics import approach, clamp, lag


def test_a_lag_does_not_depend_on_the_step() -> None:
    once = lag(0.0, 100.0, 10.0, 5.0)
    many = 0.0
    for _ in range(100):
        many = lag(many, 100.0, 0.1, 5.0)
    assert many == pytest.approx(once)
    assert once == pytest.approx(86.466, abs=0.001)


@pytest.mark.parametrize(
    ("value", "target", "expected"), [(0, 10, 3), (0, -10, -3), (9, 10, 10), (-9, -10, -10), (4, 4, 4)]
)
def test_an_approach_never_passes_its_target(value: float, target: float, expected: float) -> None:
    assert approach(value, target, 3) == expected


@pytest.mark.parametrize(("value", "expected"), [(-1, 0), (0, 0), (5, 5), (10, 10), (11, 10)])
def test_a_clamped_value_stops_at_its_bounds(value: float, expected: float) -> None:
    assert clamp(value, 0, 10) == expected

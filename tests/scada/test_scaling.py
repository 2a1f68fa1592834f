import math
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.errors import ConfigError
from scada.scaling import Limits, OutOfLimits, Scaling, exceeds_deadband, round_half_away
from scada.values import BadValue, RejectCode

finite = st.floats(allow_nan=False, allow_infinity=False)
HUGE = 10**4000  # 5,000 digits would be too long for the names of the test cases


def refused(call, *args) -> None:
    with pytest.raises(BadValue) as caught:
        call(*args)
    assert caught.value.code is RejectCode.OUT_OF_RANGE
    assert len(str(caught.value)) < 200


class TestScaling:
    def test_both_ways(self):
        scaling = Scaling(gain=0.1, offset=-40.0)
        assert scaling.to_engineering(615) == 21.5
        assert scaling.to_raw(21.5) == 615.0

    @pytest.mark.parametrize("value", [0, 7, -7, 2**53 + 1, 2**64 - 1, 1.5, -0.0])
    def test_the_identity_changes_nothing(self, value):
        scaling = Scaling()
        for result in (scaling.to_engineering(value), scaling.to_raw(value)):
            assert (result, result.__class__) == (value, value.__class__)

    @given(raw=st.integers(-(2**31), 2**31), gain=st.floats(0.001, 1000), offset=st.floats(-1000, 1000))
    def test_a_register_survives_the_way_there_and_back(self, raw, gain, offset):
        scaling = Scaling(gain, offset)
        assert round_half_away(scaling.to_raw(scaling.to_engineering(raw))) == raw

    @given(value=finite | st.integers(), gain=finite.filter(bool), offset=finite)
    def test_a_result_is_finite_or_refused(self, value, gain, offset):
        scaling = Scaling(gain, offset)
        for call in (scaling.to_engineering, scaling.to_raw):
            try:
                assert math.isfinite(call(value))
            except BadValue:
                continue

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("scaling", [Scaling(), Scaling(2.0, 1.0)])
    def test_what_is_not_finite_is_refused(self, scaling, value):
        refused(scaling.to_engineering, value)
        refused(scaling.to_raw, value)

    def test_overflow_is_refused(self):
        refused(Scaling(gain=10.0).to_engineering, 1e308)
        refused(Scaling(gain=1e-10).to_raw, 1e308)
        refused(Scaling(gain=2.0).to_engineering, HUGE)
        refused(Scaling(gain=2.0).to_raw, HUGE)

    @pytest.mark.parametrize(
        ("gain", "offset", "fields"),
        [
            (0.0, 0.0, ["gain"]),
            (-0.0, 0.0, ["gain"]),
            (math.nan, 0.0, ["gain"]),
            (1.0, math.inf, ["offset"]),
            (math.inf, math.nan, ["gain", "offset"]),
        ],
    )
    def test_senseless_numbers_are_refused(self, gain, offset, fields):
        with pytest.raises(ConfigError) as caught:
            Scaling(gain, offset)
        assert [fault.field for fault in caught.value.faults] == fields


class TestLimits:
    @pytest.mark.parametrize("value", [0, 0.0, 50, 99.9, 100])
    def test_inside_passes_unchanged(self, value):
        for action in OutOfLimits:
            result = Limits(0.0, 100.0, action).apply(value)
            assert (result, result.__class__) == (value, value.__class__)

    @pytest.mark.parametrize("value", [-0.001, -1, 100.001, 101, HUGE, -HUGE])
    def test_outside_is_refused(self, value):
        refused(Limits(0.0, 100.0).apply, value)

    @pytest.mark.parametrize(
        ("value", "whole", "expected"),
        [(-3.5, False, 0.5), (-3, True, 1), (1e9, False, 99.5), (1000, True, 99), (HUGE, True, 99), (-HUGE, True, 1)],
    )
    def test_clamped_to_the_nearest_and_of_whole_numbers_to_a_whole_one(self, value, whole, expected):
        result = Limits(0.5, 99.5, OutOfLimits.CLAMP, whole).apply(value)
        assert (result, result.__class__) == (expected, expected.__class__)

    def test_one_end_alone(self):
        assert Limits(low=0.0).apply(1e300) == 1e300
        assert Limits(high=0.0, action=OutOfLimits.CLAMP).apply(5.0) == 0.0
        assert Limits().apply(HUGE) == HUGE

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("action", OutOfLimits)
    @pytest.mark.parametrize("ends", [(None, None), (0.0, 1.0)])
    def test_no_measurement_is_never_clamped(self, value, action, ends):
        refused(Limits(*ends, action).apply, value)

    def test_no_integer_inside(self):
        refused(Limits(0.2, 0.8, OutOfLimits.CLAMP, whole=True).apply, 5)

    def test_a_measurement_that_is_written_without_a_fraction_is_clamped_as_with_one(self):
        """JavaScript writes 1 for 1.0: it was refused, and 150 became 100 where 150.0 became 100.5."""
        assert Limits(0.85, 0.95, OutOfLimits.CLAMP).apply(1) == 0.95
        assert Limits(0, 100.5, OutOfLimits.CLAMP).apply(150) == 100.5

    @pytest.mark.parametrize(
        ("low", "high", "fields"),
        [(2.0, 1.0, ["low"]), (math.nan, 1.0, ["low"]), (-math.inf, math.inf, ["low", "high"])],
    )
    def test_senseless_limits_are_refused(self, low, high, fields):
        with pytest.raises(ConfigError) as caught:
            Limits(low, high)
        assert [fault.field for fault in caught.value.faults] == fields


@pytest.mark.parametrize(
    ("old", "new", "deadband", "expected"),
    [
        (20.0, 20.5, 0.5, False),
        (20.0, 20.6, 0.5, True),
        (20.0, 19.4, 0.5, True),
        (1, 2, 0.0, True),
        (1, 1, 0.0, False),
        (1, 1.0, 0.0, False),
        (0.0, -0.0, 0.0, False),
        (None, 0.0, 100.0, True),
        (None, "", 100.0, True),
        (True, False, 100.0, True),
        (True, True, 0.0, False),
        (1, True, 100.0, True),
        (False, 0, 100.0, True),
        ("a", "b", 100.0, True),
        ("a", "a", 0.0, False),
        ("1", 1, 100.0, True),
        (1, "1", 100.0, True),
        (math.nan, 1.0, 100.0, True),
        (1.0, math.nan, 100.0, True),
        (math.nan, math.nan, 0.0, False),
        (math.inf, 1.0, 1e300, True),
        (math.inf, math.inf, 0.0, False),
        (2**53, 2**53 + 1, 0.0, True),
        (HUGE, 1.5, 1e300, True),
    ],
)
def test_deadband(old, new, deadband, expected):
    assert exceeds_deadband(old, new, deadband) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, 1),
        (-0.5, -1),
        (1.5, 2),
        (2.5, 3),
        (-2.5, -3),
        (2.4999999999999996, 2),
        (0.49999999999999994, 0),
        (-0.49999999999999994, 0),
        (4503599627370497.5, 4503599627370498),
        (9007199254740991.0, 9007199254740991),
        (1e300, int(1e300)),
        (7, 7),
        (HUGE, HUGE),
        (-0.0, 0),
    ],
)
def test_round_half_away(value, expected):
    result = round_half_away(value)
    assert (result, result.__class__) == (expected, int)


@given(finite)
def test_rounds_as_decimal_does(value):
    assert round_half_away(value) == int(Decimal(value).to_integral_value(ROUND_HALF_UP))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_round_refuses_what_is_not_finite(value):
    refused(round_half_away, value)

"""From raw values to samples worth telling."""

from typing import Any

from field_server.plans import point
from field_server.samples import Readings, Source
from scada.config import LimitsConfig, ScalingConfig
from scada.conversion import compile_engineering, compile_limits
from scada.scaling import OutOfLimits
from scada.values import BadValue, DataType, Quality, Reason, RejectCode, Sample, Value
from tests.support.field import modbus_tag

GOOD = Quality.GOOD


def source(**tag: Any) -> Source:
    from drivers.modbus.driver import DRIVER

    config = modbus_tag(1, "t", 0, **tag)
    binding = config.bindings[0]
    place = point(config, binding, None, DRIVER)
    return Source(
        "t", compile_engineering(config, binding), compile_limits(config, binding), config.deadband, place, 1000
    )


def told(readings: Readings, *values: Value | BadValue) -> list[tuple[Value | None, Quality, Reason]]:
    return [(s.value, s.quality, s.reason) for value in values for s in readings.take([value], 5)]


def test_only_changes_are_told() -> None:
    assert told(Readings([source()]), 1, 1, 2, 2, 1) == [(1, GOOD, ""), (2, GOOD, ""), (1, GOOD, "")]


def test_the_deadband_is_against_what_was_told() -> None:
    values = (10.0, 10.6, 11.1, 11.2, 12.05, 12.2)
    assert [value for value, *_ in told(Readings([source(deadband=1.0)]), *values)] == [10.0, 11.1, 12.2]


def test_a_value_that_is_none_keeps_the_last_and_is_bad() -> None:
    nan = BadValue(RejectCode.OUT_OF_RANGE, "7fc00000 is no float32: nan")
    assert told(Readings([source()]), nan, 3.0, nan, nan, 3.0) == [
        (None, Quality.BAD, Reason.OUT_OF_RANGE),
        (3.0, GOOD, ""),
        (3.0, Quality.BAD, Reason.OUT_OF_RANGE),
        (3.0, GOOD, ""),
    ]


def test_limits_reject_or_clamp_and_neither_looks_good() -> None:
    reject = Readings([source(limits=LimitsConfig(0, 10))])
    assert told(reject, 5, 50) == [(5, GOOD, ""), (5, Quality.BAD, Reason.OUT_OF_RANGE)]
    clamp = Readings([source(limits=LimitsConfig(0, 10, OutOfLimits.CLAMP))])
    assert told(clamp, 5, 50, 60) == [(5, GOOD, ""), (10, Quality.UNCERTAIN, Reason.OUT_OF_RANGE)]


def test_scaling_and_types() -> None:
    assert told(Readings([source(scaling=ScalingConfig(0.1, -5))]), 100) == [(5.0, GOOD, "")]
    assert told(Readings([source(data_type=DataType.BOOL)]), 1, 0, 7) == [
        (True, GOOD, ""),
        (False, GOOD, ""),
        (False, Quality.BAD, Reason.CONFIG_ERROR),
    ]
    assert told(Readings([source(data_type=DataType.INT)]), True) == [(1, GOOD, "")]


def test_silence_is_told_once_and_the_return_even_of_the_same_value() -> None:
    readings = Readings([source(), source()])
    assert len(readings.take([1, 2], 5)) == 2
    assert [(s.value, s.quality) for s in readings.fail(Reason.COMM_FAILURE, 6)] == [(1, "bad"), (2, "bad")]
    assert readings.fail(Reason.COMM_FAILURE, 7) == []
    assert readings.fail(Reason.NOT_CONNECTED, 8) == [], "the same piece of news"
    assert [(s.value, s.quality, s.time_ms) for s in readings.take([1, 2], 9)] == [(1, "good", 9), (2, "good", 9)]


def test_what_was_told_before_a_change_of_the_configuration_is_not_told_again() -> None:
    before = Sample("t", 4, GOOD, 1)
    assert Readings([source()], [before]).take([4], 9) == []
    assert len(Readings([source()], [before]).take([5], 9)) == 1

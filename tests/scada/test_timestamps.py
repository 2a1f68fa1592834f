import math
import time
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.timestamps import FIRST_AUTO_MS, LAST_TIME_MS, TimeFormat, compile_time
from scada.values import BadValue, RejectCode

F = TimeFormat
NOON = 1_795_262_400_000  # 2026-11-21T12:00:00Z

READ = [
    (F.EPOCH_S, NOON // 1000, NOON),
    (F.EPOCH_S, NOON / 1000 + 0.123, NOON + 123),
    (F.EPOCH_S, 0, 0),
    (F.EPOCH_S, LAST_TIME_MS // 1000, LAST_TIME_MS),
    (F.EPOCH_MS, NOON, NOON),
    (F.EPOCH_MS, float(NOON) + 0.25, NOON),
    (F.EPOCH_MS, 5, 5),
    (F.AUTO, NOON, NOON),
    (F.AUTO, NOON // 1000, NOON),
    (F.AUTO, NOON / 1000 + 0.5, NOON + 500),
    (F.AUTO, FIRST_AUTO_MS, FIRST_AUTO_MS),
    (F.AUTO, LAST_TIME_MS, LAST_TIME_MS),
    (F.AUTO, "2026-11-21T12:00:00Z", NOON),
    (F.ISO8601, "2026-11-21T12:00:00Z", NOON),
    (F.ISO8601, "2026-11-21T12:00:00.5Z", NOON + 500),
    (F.ISO8601, "2026-11-21T12:00:00,123999Z", NOON + 123),
    (F.ISO8601, "2026-11-21T12:00:00.123456789Z", NOON + 123),
    (F.ISO8601, "2026-11-21t12:00:00z", NOON),
    (F.ISO8601, "2026-11-21 12:00:00", NOON),
    (F.ISO8601, "2026-11-21T12:00", NOON),
    (F.ISO8601, "2026-11-21T13:00:00+01:00", NOON),
    (F.ISO8601, "2026-11-21T13:00:00+01", NOON),
    (F.ISO8601, "2026-11-21T06:30:00-0530", NOON),
    (F.ISO8601, "20261121T120000Z", NOON),
    (F.ISO8601, "20261121T1200+0000", NOON),
    (F.ISO8601, "1970-01-01T00:00:00Z", 0),
    (F.ISO8601, "2200-01-01T00:00:00Z", LAST_TIME_MS),
]


@pytest.mark.parametrize(("fmt", "value", "expected"), READ)
def test_read(fmt, value, expected):
    result = compile_time(fmt)(value)
    assert (result, result.__class__) == (expected, int)


REFUSED = [
    *[(fmt, value) for fmt in F for value in (None, True, False, [], {}, [NOON], "", "now", str(NOON), math.nan)],
    *[(fmt, value) for fmt in F for value in (math.inf, -math.inf, -1, -0.001, 10**18, 10**5000, -(10**5000), 1e300)],
    (F.EPOCH_S, LAST_TIME_MS // 1000 + 1),
    (F.EPOCH_S, NOON),
    (F.EPOCH_S, "2026-11-21T12:00:00Z"),
    (F.EPOCH_MS, LAST_TIME_MS + 1),
    (F.AUTO, FIRST_AUTO_MS - 1),
    (F.AUTO, NOON * 1000),
    (F.ISO8601, NOON),
    (F.ISO8601, "2026-11-21"),
    (F.ISO8601, "2026"),
    (F.ISO8601, "12:00:00"),
    (F.ISO8601, "2026-11-21T12"),
    (F.ISO8601, "2026-11-21x12:00:00Z"),
    (F.ISO8601, "2026-11-21T12:00:00Zx"),
    (F.ISO8601, "2026-11-21T12:00:00Z\n"),
    (F.ISO8601, " 2026-11-21T12:00:00Z"),
    (F.ISO8601, "2026-13-01T12:00:00Z"),
    (F.ISO8601, "2026-02-29T12:00:00Z"),
    (F.ISO8601, "2026-11-21T24:00:00Z"),
    (F.ISO8601, "2026-11-21T12:60:00Z"),
    (F.ISO8601, "2026-11-21T12:00:61Z"),
    (F.ISO8601, "2026-11-21T12:00:00+25:00"),
    (F.ISO8601, "٢026-11-21T12:00:00Z"),
    (F.ISO8601, "2026-11-21T12:00:00\0"),
    (F.ISO8601, "1969-12-31T23:59:59Z"),
    (F.ISO8601, "1970-01-01T00:00:00+01:00"),
    (F.ISO8601, "2200-01-01T00:00:01Z"),
    (F.ISO8601, "0001-01-01T00:00:00+14:00"),
    (F.ISO8601, "9999-12-31T23:59:59-14:00"),
    (F.ISO8601, "2" * 100_000),
]


@pytest.mark.parametrize(("fmt", "value"), REFUSED, ids=lambda x: x.value if isinstance(x, F) else "")
def test_refused(fmt, value):
    with pytest.raises(BadValue) as caught:
        compile_time(fmt)(value)
    assert caught.value.code is RejectCode.BAD_TIME
    assert len(str(caught.value)) < 200


def test_a_time_without_offset_is_utc_wherever_the_machine_stands(monkeypatch):
    """Row T2: the hour that Berlin has twice, and the one that it has not, are ordinary hours."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        read = compile_time(F.AUTO)
        twice = [read(f"2026-10-25T0{hour}:30:00") for hour in range(4)]
        missing = [read(f"2026-03-29T0{hour}:30:00") for hour in range(4)]
    finally:
        monkeypatch.undo()
        time.tzset()
    for times in (twice, missing):
        assert [later - earlier for earlier, later in pairwise(times)] == [3_600_000] * 3
    assert twice[0] == int(datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp()) * 1000


offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(1970, 1, 2), datetime(2199, 12, 30), timezones=offsets))  # noqa: DTZ001 bounds are naive
def test_whatever_isoformat_writes_is_read(moment):
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert compile_time(F.ISO8601)(moment.isoformat()) == expected
    assert compile_time(F.AUTO)(moment.isoformat(" ", "milliseconds")) == expected


@given(st.integers(FIRST_AUTO_MS, LAST_TIME_MS))
def test_seconds_and_milliseconds_of_one_moment_agree(time_ms):
    assert compile_time(F.EPOCH_S)(time_ms / 1000) == time_ms
    assert compile_time(F.AUTO)(time_ms / 1000) == time_ms
    assert compile_time(F.AUTO)(time_ms) == time_ms


@given(st.text() | st.text("0123456789-:TZ+., ") | st.floats() | st.integers() | st.none() | st.booleans())
def test_anything_is_a_plausible_time_or_bad_value(value):
    for fmt in F:
        try:
            assert 0 <= compile_time(fmt)(value) <= LAST_TIME_MS
        except BadValue as exc:
            assert exc.code is RejectCode.BAD_TIME  # noqa: PT017 either outcome is right here

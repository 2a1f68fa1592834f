"""Source time stamps: text or number to UTC milliseconds."""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from scada.values import BadValue, RejectCode


class TimeFormat(StrEnum):
    """How a device writes its time. `auto`: text is ISO 8601, a number is seconds below EPOCH_MS_FROM and milliseconds above."""

    AUTO = "auto"
    EPOCH_S = "epoch_s"
    EPOCH_MS = "epoch_ms"
    ISO8601 = "iso8601"


EPOCH_MS_FROM = 100_000_000_000
"""As seconds this is the year 5138, as milliseconds March 1973: no plant's time is ambiguous."""

LATEST_MS = 7_258_118_400_000
"""2200-01-01: what is later is a broken clock or a wrong format."""


def compile_time(time_format: TimeFormat) -> Callable[[Any], int]:
    """A function from a JSON value to UTC milliseconds since 1970; it raises BadValue (BAD_TIME)."""
    return {
        TimeFormat.AUTO: _auto,
        TimeFormat.EPOCH_S: _epoch_s,
        TimeFormat.EPOCH_MS: _epoch_ms,
        TimeFormat.ISO8601: _iso8601,
    }[time_format]


def _auto(value: Any) -> int:
    if isinstance(value, str):
        return _iso8601(value)
    return _epoch_s(value) if _number(value) < EPOCH_MS_FROM else _epoch_ms(value)


def _epoch_s(value: Any) -> int:
    return _plausible(_number(value) * 1000, value)


def _epoch_ms(value: Any) -> int:
    return _plausible(_number(value), value)


def _iso8601(value: Any) -> int:
    """A time without an offset is UTC: a local time would be ambiguous twice a year."""
    if not isinstance(value, str):
        raise BadValue(RejectCode.BAD_TIME, f"time must be ISO 8601 text, not {_shown(value)}")
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise BadValue(RejectCode.BAD_TIME, f"{_shown(value)} is not an ISO 8601 time") from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    try:
        return _plausible((time - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000, value)
    except OverflowError:
        raise BadValue(RejectCode.BAD_TIME, f"{_shown(value)} is no time between 1970 and 2200") from None


def _number(value: Any) -> int | float:
    if type(value) is int or type(value) is float:
        return value
    raise BadValue(RejectCode.BAD_TIME, f"time must be a number, not {_shown(value)}")


def _plausible(time_ms: int | float, value: object) -> int:
    if not 0 <= time_ms <= LATEST_MS:
        raise BadValue(RejectCode.BAD_TIME, f"{_shown(value)} is no time between 1970 and 2200")
    return round(time_ms)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

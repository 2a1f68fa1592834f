"""The time a message carries, in whatever form, to UTC milliseconds since 1970."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from scada.values import TYPE_NAMES, BadValue, RejectCode

LAST_TIME_MS = 7_258_118_400_000  # 2200-01-01T00:00:00Z; from 1970 to here a time is plausible
FIRST_AUTO_MS = 10_000_000_000
"""From here on a number in AUTO is milliseconds (26 April 1970), below it seconds (up to 2286)."""


class TimeFormat(StrEnum):
    """How a time is written.

    EPOCH_S and EPOCH_MS: a number since 1970-01-01T00:00:00Z. ISO8601: text, a date and a time of day to the minute or finer,
    extended (2026-11-21T04:44:21.5+01:00) or basic (20261121T044421Z), with T or one space between; without an offset it is
    UTC, whatever the zone of the machine, so that no hour is missing or twice when clocks change. AUTO: text is ISO 8601, a
    number is seconds below FIRST_AUTO_MS and milliseconds from there.
    """

    AUTO = "auto"
    EPOCH_S = "epoch_s"
    EPOCH_MS = "epoch_ms"
    ISO8601 = "iso8601"


def compile_time(fmt: TimeFormat) -> Callable[[Any], int]:
    """The function from a JSON value to UTC milliseconds 0..LAST_TIME_MS; it raises BadValue (BAD_TIME) for all else.

    Fractions of a millisecond of a number are rounded, those of a text cut. Numbers in quotes are no numbers.
    """
    return _READERS[fmt]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

# datetime.fromisoformat takes any character between date and time, bare dates and, by version, 24:00: so the form is ours
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]([01]\d|2[0-3]):\d\d(:\d\d([.,]\d{1,9})?)?|\d{8}[Tt]([01]\d|2[0-3])\d\d(\d\d([.,]\d{1,9})?)?)"
    r"([Zz]|[+-]\d\d(:?\d\d)?)?",
    re.ASCII,
)


def _seconds(value: Any) -> int:
    return _milliseconds(_number(value) * 1000, value)


def _whole_milliseconds(value: Any) -> int:
    return _milliseconds(_number(value), value)


def _text(value: Any) -> int:
    if value.__class__ is not str:
        raise _wrong(value, "text in ISO 8601")
    if len(value) > 40 or not _ISO.fullmatch(value):
        raise _wrong(value, "a date and a time of day in ISO 8601")
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError as exc:
        raise BadValue(RejectCode.BAD_TIME, f"{value!r} is no time: {exc}") from exc
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return _milliseconds((moment - _EPOCH) // _MILLISECOND, value)


def _auto(value: Any) -> int:
    if value.__class__ is str:
        return _text(value)
    number = _number(value)
    return _milliseconds(number * 1000 if number < FIRST_AUTO_MS else number, value)


_READERS = {
    TimeFormat.AUTO: _auto,
    TimeFormat.EPOCH_S: _seconds,
    TimeFormat.EPOCH_MS: _whole_milliseconds,
    TimeFormat.ISO8601: _text,
}


def _number(value: Any) -> int | float:
    if value.__class__ is int or value.__class__ is float:
        return value
    raise _wrong(value, "a number")


def _milliseconds(time: int | float, value: Any) -> int:
    if 0 <= time <= LAST_TIME_MS:  # false for NaN and infinity too
        return round(time)
    raise _wrong(value, "a time from 1970 to 2200")


def _wrong(value: Any, wanted: str) -> BadValue:
    if value.__class__ is str:
        shown = f"text {value[:40]!r}"
    elif value.__class__ is float or (value.__class__ is int and value.bit_length() <= 64):
        shown = repr(value)
    else:
        shown = TYPE_NAMES.get(value.__class__, value.__class__.__name__)
    return BadValue(RejectCode.BAD_TIME, f"{wanted} was expected, not {shown}")

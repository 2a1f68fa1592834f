"""Values as the console names, finds and shows them. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from scada.bus_messages import decode_state
from scada.topics import BusTopics
from scada.values import BadValue, Sample, Value


class Named(NamedTuple):
    """A sample with its tag's full name, `Device@Tag`."""

    name: str
    sample: Sample


@dataclass(frozen=True, slots=True)
class Pattern:
    """Names that an operator means: with * or ? all of a name, else any part of it; `exact` ones mean one name."""

    text: str
    exact: bool = False

    @property
    def is_glob(self) -> bool:
        """Whether it has a wildcard."""
        return not {"*", "?"}.isdisjoint(self.text)

    @property
    def device(self) -> str:
        """The one device that it can match; "+", which stands for any in topics, when there may be several."""
        device, at, _ = self.text.partition("@")
        one = at and device and not {"*", "?"}.intersection(device) and (self.exact or self.is_glob)
        return device if one else "+"

    def find(self, names: Iterable[str]) -> list[str]:
        """Those that match."""
        if self.is_glob:
            parts = ({"*": ".*", "?": "."}.get(char) or re.escape(char) for char in self.text)
            matches = re.compile("".join(parts), re.DOTALL).fullmatch
            return [name for name in names if matches(name)]
        if self.exact:
            return [name for name in names if name == self.text]
        return [name for name in names if self.text in name]


def picture(topics: BusTopics, messages: Mapping[str, bytes]) -> tuple[dict[str, Sample], list[str]]:
    """The samples in `state` messages by full name, in the order of the names, and what could not be understood.

    When two owners tell of one tag, the newer sample counts.
    """
    found: dict[str, Sample] = {}
    faults: list[str] = []
    for topic, payload in messages.items():
        parts = topics.split(topic)
        if parts is None or parts.kind != "state":
            continue
        try:
            samples, wrong = decode_state(payload)
        except BadValue as error:
            samples, wrong = [], [str(error)]
        faults += (f"{topic}: {each}" for each in wrong)
        for sample in samples:
            name = f"{parts.device}@{sample.tag}"
            known = found.get(name)
            if known is None or known.time_ms < sample.time_ms:
                found[name] = sample
    return dict(sorted(found.items())), faults


def shown_value(value: object) -> str:
    """A value on one line, and harmless to a terminal: JSON, but text as it is."""
    if isinstance(value, str):
        return printable(value)
    return orjson.dumps(value).decode()


def printable(text: str) -> str:
    """Text from elsewhere: control and invisible characters as \\n, \\x1b."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def shown_time(time_ms: int, terminal: bool) -> str:
    """UTC in full for programs; for people the local time, with the date where that is not today."""
    try:
        then = datetime.fromtimestamp(time_ms / 1000, UTC)
        if not terminal:
            return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        here = then.astimezone()
    except (ValueError, OverflowError, OSError):
        return str(time_ms)  # beyond the calendar
    today = datetime.now(UTC).astimezone().date()
    return here.strftime("%H:%M:%S.%f" if here.date() == today else "%Y-%m-%d %H:%M:%S.%f")[:-3]


def cells(name: str, sample: Sample, terminal: bool) -> tuple[str, str, str, str]:
    """What stands in a line or a table: name, value, quality with its reason, time."""
    quality = f"{sample.quality} ({sample.reason})" if sample.reason else str(sample.quality)
    if sample.late:
        quality += " late"
    return printable(name), shown_value(sample.value), quality, shown_time(sample.time_ms, terminal)


def line(row: Iterable[str], widths: Iterable[int] | None) -> str:
    """A line: columns with tabs between them for programs (`widths` is None), or of these widths for people."""
    if widths is None:
        return "\t".join(row)
    return "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def widths_of(rows: Iterable[tuple[str, ...]], most: int = 48) -> list[int]:
    """The columns' widths, none of them wider than `most`."""
    return [min(max(map(len, column)), most) for column in zip(*rows, strict=True)]


def parse_value(text: str) -> Value:
    """What an operator typed: a JSON scalar, or the text itself. Raises ValueError for what no tag can hold."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"{text[:60]!r} is no number, text, true or false")
    return value

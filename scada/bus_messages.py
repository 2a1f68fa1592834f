"""What the messages of the bus say: samples, states, links, commands, feedback; JSON in and out. Pure.

A sample on the bus is `[tag, value, quality, time_ms]`; with a fifth element `{"reason": ..., "late": true}` where there is
a reason for its quality, or where it comes late.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from scada.payload import decode_payload
from scada.values import TYPE_NAMES, BadValue, Quality, Reason, RejectCode, Sample, Value

_QUALITIES = {each.value: each for each in Quality}
_REASONS = {each.value: each for each in Reason}
_MAX_TIME_MS = 2**53
COUNTERS = ("published", "late", "dropped", "poisoned", "buffered")
"""What a program counts of its samples and tells with each heartbeat, since it was started; `buffered`: waiting just now."""
MAX_STATE_BYTES = 32 * 1024 * 1024
"""A state holds every tag of its device: 100,000 of them take about 8 MiB. Only programs of ours publish states."""


class LinkReport(NamedTuple):
    """Whether an owner reaches a device, since when (UTC, milliseconds), and why not."""

    online: bool
    since_ms: int
    error: str | None


def encode_data(samples: Iterable[Sample], late: bool = False) -> bytes:
    """A `data` message; `late` marks every sample in it."""
    # 100,000 a second are no rarity, and nearly all of them have four elements: no call for those.
    rows = [
        [tag, value, quality, time_ms, _more(reason, late or was_late)]
        if reason or late or was_late
        else [tag, value, quality, time_ms]
        for tag, value, quality, time_ms, reason, was_late in samples
    ]
    return orjson.dumps(rows)


def decode_data(payload: bytes) -> tuple[list[Sample], list[str]]:
    """The samples of a `data` message and what is wrong with its other rows; raises BadValue when it is no such message."""
    document = decode_payload(payload)
    if not isinstance(document, list):
        raise BadValue(RejectCode.WRONG_TYPE, f"must be an array of samples, not {_kind(document)}")
    samples: list[Sample] = []
    faults: list[str] = []
    for number, row in enumerate(document):
        try:
            tag, rest = row[0], row[1:]
            samples.append(_sample(tag, rest))
        except (BadValue, TypeError, KeyError, IndexError, ValueError) as exc:
            faults.append(f"sample {number}: {exc}"[:200])
    return samples, faults


def encode_state(samples: Iterable[Sample]) -> bytes:
    """A `state` message: the last sample of each tag."""
    return orjson.dumps(state_document(samples))


def state_document(samples: Iterable[Sample]) -> dict[str, list[Any]]:
    """What a `state` message says, before it is JSON; so does the answer of a call."""
    return {
        tag: [value, quality, time_ms, _more(reason, late)] if reason or late else [value, quality, time_ms]
        for tag, value, quality, time_ms, reason, late in samples
    }


def decode_state(payload: bytes) -> tuple[list[Sample], list[str]]:
    """As decode_data, of a `state` message."""
    document = decode_payload(payload, MAX_STATE_BYTES)
    if not isinstance(document, dict):
        raise BadValue(RejectCode.WRONG_TYPE, f"must be an object of samples, not {_kind(document)}")
    return samples_by_tag(document)


def samples_by_tag(document: Mapping[str, Any]) -> tuple[list[Sample], list[str]]:
    """The samples in `{tag: [value, quality, time_ms]}`, and what is wrong with the others."""
    samples: list[Sample] = []
    faults: list[str] = []
    for tag, rest in document.items():
        try:
            samples.append(_sample(tag, rest))
        except (BadValue, TypeError, KeyError, IndexError, ValueError) as exc:
            faults.append(f"tag {tag[:64]}: {exc}"[:200])
    return samples, faults


def encode_link(report: LinkReport) -> bytes:
    """A `link` message."""
    return orjson.dumps({"online": report.online, "since": report.since_ms, "error": report.error})


def decode_link(payload: bytes) -> LinkReport:
    """A `link` message; raises BadValue."""
    document = decode_payload(payload)
    if not isinstance(document, Mapping) or not isinstance(document.get("online"), bool):
        raise BadValue(RejectCode.WRONG_TYPE, 'must be an object with a boolean "online"')
    since, error = document.get("since"), document.get("error")
    return LinkReport(document["online"], since if type(since) is int else 0, error if isinstance(error, str) else None)


def decode_counters(heartbeat: bytes) -> Mapping[str, int] | None:
    """The COUNTERS in a heartbeat; None in one that is none of ours."""
    # Of a name and a number, which only the sender needs, and the counters.
    words = heartbeat.split(b" ", 2)
    if len(words) < 3:
        return None
    try:
        document = decode_payload(words[2])
    except BadValue:
        return None  # anybody may send anything there
    if not isinstance(document, Mapping):
        return None
    counters = {kind: each for kind in COUNTERS if type(each := document.get(kind)) is int and each >= 0}
    return counters if len(counters) == len(COUNTERS) else None


def _more(reason: Reason, late: bool) -> dict[str, Any]:
    more: dict[str, Any] = {"reason": reason} if reason else {}
    if late:
        more["late"] = True
    return more


def _sample(tag: Any, rest: Any) -> Sample:
    value, quality, time_ms, *more = rest
    if type(tag) is not str or not tag:
        raise BadValue(RejectCode.WRONG_TYPE, f"its tag must be text, not {_kind(tag)}")
    if value is not None and not isinstance(value, bool | int | float | str):
        raise BadValue(RejectCode.WRONG_TYPE, f"its value must be a scalar, not {_kind(value)}")
    if type(time_ms) is not int or not 0 <= time_ms < _MAX_TIME_MS:
        raise BadValue(RejectCode.BAD_TIME, f"its time must be UTC milliseconds, not {time_ms!r}"[:100])
    reason, late = Reason.NONE, False
    if more:
        extra = more[0]
        if not isinstance(extra, Mapping):
            raise BadValue(RejectCode.WRONG_TYPE, f"what stands beside it must be an object, not {_kind(extra)}")
        reason = _REASONS.get(extra.get("reason", ""), Reason.NONE)
        late = extra.get("late") is True
    return Sample(tag, _known(value), _QUALITIES[quality], time_ms, reason, late)


def _known(value: Any) -> Value | None:
    return value  # type: ignore[no-any-return]  # checked by the caller


def _kind(value: object) -> str:
    return TYPE_NAMES.get(type(value), type(value).__name__)

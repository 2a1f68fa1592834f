"""The messages of the topics `set`, `call` and `feedback`: JSON objects in and out. Pure.

Unknown fields are ignored, as newer programs may send more; a known field of the wrong kind refuses the message as a whole. What
is asked for is read as strictly as in REST (`scada.plain_json`): of a tag that stands twice nobody knows which one was meant.
"""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import orjson

from scada.bus_messages import samples_by_tag, state_document
from scada.commands import (
    DEFAULT_EXPIRY_MS,
    MAX_AHEAD_MS,
    MAX_EXPIRY_MS,
    MAX_GROUP,
    MAX_ID_CHARACTERS,
    MAX_REASON_CHARACTERS,
    MAX_WHO_CHARACTERS,
    Call,
    Command,
    CommandState,
    Step,
)
from scada.errors import ConfigError
from scada.payload import decode_payload
from scada.plain_json import read_in_part, read_plain
from scada.topics import check_name
from scada.values import TYPE_NAMES, BadValue, RejectCode, Value

MAX_TEXT_CHARACTERS = 1_024
_MAX_TIME_MS = 2**53
_STATES = {each.value: each for each in CommandState}


class BadCall(BadValue):
    """A request to read that cannot be carried out. `call`: what can be told of it on feedback; None without a usable id."""

    def __init__(self, code: RejectCode, message: str, call: Call | None) -> None:
        self.call = call
        super().__init__(code, message)


class BadCommand(BadValue):
    """A message that cannot be carried out. `command`: what can be told of it on feedback; None without a usable id."""

    def __init__(self, code: RejectCode, message: str, command: Command | None) -> None:
        self.command = command
        super().__init__(code, message)


def encode_set(command: Command, asked_ms: int) -> bytes:
    """A `set` message. `asked_ms`: now, by the clock that `expires_ms` is of."""
    what: dict[str, Any] = (
        {"values": dict(command.values)} if command.group else {"tag": command.tag, "value": command.value}
    )
    return orjson.dumps({"id": command.id, **what, **_common(command, asked_ms)})


def decode_set(payload: bytes, device: str, now_ms: int, new_id: str, *, must_expire: bool = False) -> Command:
    """The command in a message to a device; raises BadCommand.

    Without an id it gets `new_id`, without a time of expiry `now_ms` and 5 s. One that has expired is no fault here. One that
    says when it was asked lasts no longer from now on than it was to last from then on: the sender's clock may be ahead of ours.
    `must_expire`: the message may be old, so one that does not say when it expires is refused.
    """
    try:
        document = _object(payload)
    except BadValue as error:
        raise BadCommand(error.code, str(error), None) from None
    try:
        _check_plain(payload)
        if must_expire and document.get("expires_ms") is None:
            message = "expires_ms: must be there, as the broker may have kept this message for a while"
            raise BadValue(RejectCode.BAD_TIME, message)
        values, group = _values(document)
        return Command(_id(document, new_id), device, values, _expiry(document, now_ms), *_from_whom(document), group)
    except BadValue as error:
        raise BadCommand(error.code, str(error), _legible(payload, device, now_ms, new_id)) from None


def encode_call(call: Call, asked_ms: int) -> bytes:
    """A `call` message. `asked_ms`: as in `encode_set`."""
    return orjson.dumps({"id": call.id, "tags": list(call.tags), **_common(call, asked_ms)})


def decode_call(payload: bytes, device: str, now_ms: int, new_id: str) -> Call:
    """The call in a message to a device; raises BadCall. What is missing is filled in as in `decode_set`."""
    try:
        document = _object(payload)
    except BadValue as error:
        raise BadCall(error.code, str(error), None) from None
    try:
        _check_plain(payload)
        return Call(_id(document, new_id), device, _tags(document), _expiry(document, now_ms), *_from_whom(document))
    except BadValue as error:
        asked = _legible(payload, device, now_ms, new_id)
        call = None if asked is None else Call(asked.id, device, (), now_ms, asked.by, asked.origin)
        raise BadCall(error.code, str(error), call) from None


def encode_feedback(step: Step) -> bytes:
    """A `feedback` message. `values` is there only in the answer of a call."""
    document: dict[str, Any] = {
        "id": step.id,
        "tag": step.tag,
        "state": step.state.value,
        "time_ms": step.time_ms,
        "value": _plain(step.value),
        "old_value": _plain(step.old_value),
        "reason": step.reason,
        "by": step.by,
        "from": step.origin,
        "final": step.final,
    }
    if step.samples:
        document["values"] = state_document(step.samples)
    return orjson.dumps(document)


def decode_feedback(payload: bytes, device: str) -> Step:
    """The step in a message about a device; raises BadValue."""
    document = _object(payload)
    state = document.get("state")
    if not isinstance(state, str) or state not in _STATES:
        raise _wrong("state", f"one of {', '.join(_STATES)}", state)
    tag, final = document.get("tag"), document.get("final", False)
    if tag is not None:
        _check_tag(tag, "tag")
    if not isinstance(final, bool):
        raise _wrong("final", "true or false", final)
    values = document.get("values", {})
    if not isinstance(values, Mapping):
        raise _wrong("values", "an object of samples by tag", values)
    samples, faults = samples_by_tag(values)
    if faults:
        raise BadValue(RejectCode.WRONG_TYPE, f"values: {faults[0]}")
    by, origin = _from_whom(document)
    return Step(
        _id(document, ""),
        device,
        tag,
        _STATES[state],
        _time(document, "time_ms", None),
        _shown_value(document, "value"),
        _shown_value(document, "old_value"),
        _text(document, "reason", MAX_REASON_CHARACTERS),
        by,
        origin,
        final,
        tuple(samples),
    )


def _common(asked: Command | Call, asked_ms: int) -> dict[str, Any]:
    return {"by": asked.by, "from": asked.origin, "asked_ms": asked_ms, "expires_ms": asked.expires_ms}


def _object(payload: bytes) -> Mapping[str, Any]:
    document = decode_payload(payload)
    if not isinstance(document, Mapping):
        raise BadValue(RejectCode.WRONG_TYPE, f"must be an object, not {_kind(document)}")
    return document


def _check_plain(payload: bytes) -> None:
    try:
        read_plain(payload)
    except ValueError as error:
        raise BadValue(RejectCode.NOT_JSON, str(error)) from None


def _id(document: Mapping[str, Any], missing: str) -> str:
    found = document.get("id")
    if found is None and missing:
        return missing
    if not isinstance(found, str) or not found or not found.isprintable() or len(found) > MAX_ID_CHARACTERS:
        raise _wrong("id", f"a text of 1 to {MAX_ID_CHARACTERS} printable characters", found)
    return found


def _legible(payload: bytes, device: str, now_ms: int, new_id: str) -> Command | None:
    """What can be read of a command that is refused; None with an id that cannot be used."""
    document = read_in_part(payload)
    missing = new_id if _object(payload).get("id") is None else ""

    def read(part: Callable[[], Any], missing: Any) -> Any:
        try:
            return part()
        except BadValue:
            return missing

    identity = read(lambda: _id(document, missing), "")
    values, group = read(lambda: _values(document), ({}, True))
    by = read(lambda: _text(document, "by", MAX_WHO_CHARACTERS), "")
    origin = read(lambda: _text(document, "from", MAX_WHO_CHARACTERS), "")
    return Command(identity, device, values, now_ms, by, origin, group) if identity else None


def _tags(document: Mapping[str, Any]) -> tuple[str, ...]:
    tags = document.get("tags", [])
    if not isinstance(tags, list):
        raise _wrong("tags", "an array of tag names", tags)
    if len(tags) > MAX_GROUP:
        raise BadValue(RejectCode.TOO_LARGE, f"tags: at most {MAX_GROUP}, not {len(tags)}")
    for index, tag in enumerate(tags):
        _check_tag(tag, f"tags.{index}")
    return tuple(tags)


def _values(document: Mapping[str, Any]) -> tuple[dict[str, Value], bool]:
    if "values" not in document:
        tag = document.get("tag")
        _check_tag(tag, "tag")
        return {str(tag): _value(document.get("value"), "value")}, False
    if "tag" in document or "value" in document:
        raise BadValue(RejectCode.WRONG_TYPE, "values: stands for a group, and tag and value for one tag; not both")
    values = document["values"]
    if not isinstance(values, Mapping) or not values:
        raise _wrong("values", "an object of values by tag", values)
    if len(values) > MAX_GROUP:
        raise BadValue(RejectCode.TOO_LARGE, f"values: at most {MAX_GROUP} tags, not {len(values)}")
    for tag in values:
        _check_tag(tag, "values")
    return {tag: _value(value, f"values.{tag}") for tag, value in values.items()}, True


def _check_tag(tag: object, field: str) -> None:
    if not isinstance(tag, str):
        raise _wrong(field, "the name of a tag", tag)
    try:
        check_name(tag)
    except ConfigError as error:
        raise BadValue(RejectCode.WRONG_TYPE, f"{field}: {error}") from None


def _value(value: object, field: str) -> Value:
    if not _is_scalar(value):
        raise _wrong(field, "a number, text, true or false", value)
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS:
        raise BadValue(RejectCode.TOO_LARGE, f"{field}: at most {MAX_TEXT_CHARACTERS} characters, not {len(value)}")
    return value  # type: ignore[return-value]  # _is_scalar has looked


def _is_scalar(value: object) -> bool:
    return isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value))


def _shown_value(document: Mapping[str, Any], field: str) -> Any:
    """A value in feedback: a scalar, null, or for a group an object of those."""
    value = document.get(field)
    parts = value.values() if isinstance(value, Mapping) else (value,)
    for part in parts:
        if part is not None:
            _value(part, field)
    return value


def _expiry(document: Mapping[str, Any], now_ms: int) -> int:
    expires_ms = _time(document, "expires_ms", now_ms + DEFAULT_EXPIRY_MS)
    if expires_ms > now_ms + MAX_EXPIRY_MS:
        message = f"expires_ms: at most {MAX_EXPIRY_MS} ms ahead, not {expires_ms - now_ms} (clocks must agree)"
        raise BadValue(RejectCode.BAD_TIME, message)
    if document.get("asked_ms") is None:
        return expires_ms
    asked_ms = _time(document, "asked_ms", None)
    if asked_ms > now_ms + MAX_AHEAD_MS:
        # However long it waited on its way, it would look young.
        message = f"asked_ms: {asked_ms - now_ms} ms ahead, at most {MAX_AHEAD_MS} (clocks must agree)"
        raise BadValue(RejectCode.BAD_TIME, message)
    return min(expires_ms, now_ms + max(0, expires_ms - asked_ms))


def _time(document: Mapping[str, Any], field: str, missing: int | None) -> int:
    found = document.get(field, missing)
    if type(found) is not int or not 0 <= found < _MAX_TIME_MS:
        raise _wrong(field, "UTC milliseconds, an integer", found, RejectCode.BAD_TIME)
    return found


def _from_whom(document: Mapping[str, Any]) -> tuple[str, str]:
    return _text(document, "by", MAX_WHO_CHARACTERS), _text(document, "from", MAX_WHO_CHARACTERS)


def _text(document: Mapping[str, Any], field: str, most: int) -> str:
    found = document.get(field)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise _wrong(field, "text", found)
    if len(found) > most:
        raise BadValue(RejectCode.TOO_LARGE, f"{field}: at most {most} characters, not {len(found)}")
    return found


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _wrong(field: str, wanted: str, found: object, code: RejectCode = RejectCode.WRONG_TYPE) -> BadValue:
    shown = _kind(found)
    if isinstance(found, str | int | float) and not isinstance(found, bool):
        text = repr(found)
        shown += f" {text if len(text) <= 40 else text[:37] + '...'}"
    return BadValue(code, f"{field}: must be {wanted}, not {shown}")


def _kind(value: object) -> str:
    return TYPE_NAMES.get(type(value), type(value).__name__)

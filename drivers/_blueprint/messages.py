"""The wire form, without input or output: one JSON object a line.

{"id": 7, "unit": 1, "read": ["level", "pump"]}      {"id": 7, "values": [50.0, true]}   null for what has no value
{"id": 8, "unit": 1, "write": {"pump": false}}       {"id": 8}
                                                     {"id": 9, "refused": 2, "text": "no point x"}
"""

from collections.abc import Mapping, Sequence
from math import isfinite

import orjson

from scada.errors import DeviceRefused, ProtocolError
from scada.values import BadValue, RejectCode, Value

MAX_LINE_BYTES = 65_536
NO_SUCH_POINT = 2


def encode_read(identity: int, unit: int, names: Sequence[str]) -> bytes:
    """A request for the values of `names`."""
    return orjson.dumps({"id": identity, "unit": unit, "read": names}) + b"\n"


def encode_write(identity: int, unit: int, values: Mapping[str, Value]) -> bytes:
    """A request to set values, all or none; each passed `check_value`."""
    return orjson.dumps({"id": identity, "unit": unit, "write": values}) + b"\n"


def check_value(name: str, value: Value) -> None:
    """Raise BadValue for a number that JSON does not have, or that has more than 64 bits."""
    if (isinstance(value, float) and not isfinite(value)) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
        raise BadValue(RejectCode.OUT_OF_RANGE, f"{name}: {value!r:.60} cannot be sent")


def decode_reply(line: bytes) -> tuple[int, Mapping[str, object]]:
    """(id, the whole reply); raises ProtocolError."""
    try:
        reply = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise ProtocolError(f"no JSON: {line[:60]!r}") from exc
    identity = reply.get("id") if isinstance(reply, dict) else None
    if not isinstance(identity, int) or isinstance(identity, bool):
        raise ProtocolError(f"no reply: {line[:60]!r}")
    return identity, reply


def accepted(reply: Mapping[str, object]) -> None:
    """Raise DeviceRefused when the reply is a no, ProtocolError when it says neither."""
    code = reply.get("refused")
    if code is None:
        return
    if not isinstance(code, int) or isinstance(code, bool):
        raise ProtocolError(f"refused with {code!r:.60}")
    raise DeviceRefused(f"refused with {code}: {str(reply.get('text', ''))[:60]!r}", code)


def values_of(reply: Mapping[str, object], count: int) -> list[Value | BadValue]:
    """The values of a reply to a read of `count` points; raises ProtocolError."""
    values = reply.get("values")
    if not isinstance(values, list) or len(values) != count:
        raise ProtocolError(f"{count} values were asked for, not {values!r:.60}")
    return [_value(value) for value in values]


def _value(value: object) -> Value | BadValue:
    if isinstance(value, bool | int | float | str):
        return value
    return BadValue(RejectCode.MISSING if value is None else RejectCode.WRONG_TYPE, f"the device says {value!r:.60}")

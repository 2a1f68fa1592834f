"""Read Device Identification, function 43 with MEI type 14 (APS 6.21): who a device says it is. Without I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from scada.errors import ProtocolError
from scada.modbus.limits import MAX_PDU, MEI_DEVICE_IDENTIFICATION
from scada.modbus.pdu import ExceptionCode, Function, refuse

_HEAD_SIZE = 7
_LAST_BASIC = 0x02
_LAST_REGULAR = 0x7F
_REGULAR_LEVEL = 0x82  # regular objects, by stream and one by one


class Access(IntEnum):
    """How much is asked for (Read Device ID code)."""

    BASIC = 1
    REGULAR = 2
    EXTENDED = 3
    SPECIFIC = 4


_LAST_OBJECT = {Access.BASIC: _LAST_BASIC, Access.REGULAR: _LAST_REGULAR, Access.EXTENDED: _LAST_REGULAR}


@dataclass(frozen=True, slots=True)
class Identification:
    """What one response carries: objects by id, and where to go on reading when there are more."""

    objects: Mapping[int, bytes]
    level: int
    next_object: int | None = None


def encode_identification_request(access: Access, first_object: int = 0) -> bytes:
    """Ask for the objects of a category, or for one object."""
    return bytes((Function.ENCAPSULATED_INTERFACE, MEI_DEVICE_IDENTIFICATION, access, first_object))


def answer_identification(pdu: bytes, objects: Mapping[int, bytes]) -> bytes:
    """The response to a request with function code 43.

    `objects` are the device's, of the basic and regular categories, ordered by id, with at least the ids 0, 1 and 2; each
    value fits one response (244 bytes). Raises DeviceRefused.
    """
    if len(pdu) < 2 or pdu[1] != MEI_DEVICE_IDENTIFICATION:
        raise refuse(ExceptionCode.ILLEGAL_FUNCTION, f"MEI type {pdu[1:2].hex()} is not supported")
    if len(pdu) != 4:
        raise refuse(ExceptionCode.ILLEGAL_DATA_VALUE, f"identification request of {len(pdu)} bytes instead of 4")
    code, first = pdu[2], pdu[3]
    if code == Access.SPECIFIC:
        if first not in objects:
            raise refuse(ExceptionCode.ILLEGAL_DATA_ADDRESS, f"no identification object {first:#04x}")
        return _encode(code, None, {first: objects[first]})
    # Figure 30 looks at the object id first; but what id is wrong depends on the code, and the text has 03 for a wrong code.
    if code not in (Access.BASIC, Access.REGULAR, Access.EXTENDED):
        raise refuse(ExceptionCode.ILLEGAL_DATA_VALUE, f"read device id code {code}")
    category = {key: value for key, value in objects.items() if key <= _LAST_OBJECT[Access(code)]}
    # An unknown object in stream access means: restart at the beginning.
    wanted = [key for key in category if key >= first] if first in category else list(category)
    taken: dict[int, bytes] = {}
    size = _HEAD_SIZE
    for key in wanted:
        size += 2 + len(category[key])
        if size > MAX_PDU:
            return _encode(code, key, taken)
        taken[key] = category[key]
    return _encode(code, None, taken)


def _encode(code: int, next_object: int | None, objects: Mapping[int, bytes]) -> bytes:
    more = (0x00, 0x00) if next_object is None else (0xFF, next_object)
    head = (Function.ENCAPSULATED_INTERFACE, MEI_DEVICE_IDENTIFICATION, code, _REGULAR_LEVEL, *more, len(objects))
    return bytes(head) + b"".join(bytes((key, len(value))) + value for key, value in objects.items())


def decode_identification(pdu: bytes) -> Identification:
    """The objects in a normal response; ProtocolError (remote) when its lengths do not add up."""
    if len(pdu) < _HEAD_SIZE or pdu[0] != Function.ENCAPSULATED_INTERFACE or pdu[1] != MEI_DEVICE_IDENTIFICATION:
        raise ProtocolError(f"not an identification response: {pdu[:8].hex(' ')!r}")
    objects: dict[int, bytes] = {}
    at = _HEAD_SIZE
    for _ in range(pdu[6]):
        head, value = pdu[at : at + 2], pdu[at + 2 : at + 2 + pdu[at + 1]] if at + 1 < len(pdu) else b""
        if len(head) < 2 or len(value) != head[1]:
            raise ProtocolError(f"identification response ends within object {len(objects)}")
        objects[head[0]] = value
        at += 2 + head[1]
    if at != len(pdu):
        raise ProtocolError(f"identification response has {len(pdu) - at} bytes too many")
    return Identification(objects, pdu[3], pdu[5] if pdu[4] else None)

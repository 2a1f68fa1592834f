"""Requests that were understood before: from the bytes of a frame straight to the registers. Pure.

A frame is known by its bytes 2 to 12: protocol, length, unit, function, address, quantity and, where data follows, the byte
count. They are everything that the specification has a server check, so the check need not be repeated; only the
transaction identifier and the data differ from one such frame to the next (docs/decisions/0102-modbus-server-plans.md).
"""

import struct
from collections.abc import Callable, Mapping

from scada.modbus.image import Image
from scada.modbus.limits import MBAP_HEADER, MODBUS_PROTOCOL_ID, Table
from scada.modbus.pdu import Function

Plan = Callable[[bytes], bytes | None]

PLAN_KEY = slice(2, 13)

_TABLES: Mapping[int, Table] = {
    Function.READ_HOLDING_REGISTERS: Table.HOLDING_REGISTER,
    Function.READ_INPUT_REGISTERS: Table.INPUT_REGISTER,
    Function.WRITE_MULTIPLE_REGISTERS: Table.HOLDING_REGISTER,
}
PLANNED = frozenset(int(function) for function in _TABLES)
"""The functions that plans are made for."""

_REQUEST = struct.Struct(">BHH")
_HEADER_REST = struct.Struct(">HHB")  # the MBAP header behind the transaction identifier


def is_repeatable(pdu: bytes, image: Image) -> bool:
    """Whether a request that the image has just carried out, of a function in PLANNED, may have a plan."""
    function, address, quantity = _REQUEST.unpack_from(pdu)
    writing = function == Function.WRITE_MULTIPLE_REGISTERS
    return not image.has_effects(_TABLES[function], address, quantity, writing=writing)


def make_plan(unit_id: int, pdu: bytes, image: Image) -> tuple[bytes, Plan]:
    """The key and the plan of a request that the image has just carried out; its function is one of PLANNED."""
    function, address, quantity = _REQUEST.unpack_from(pdu)
    memory, part = image.memory, image.registers(_TABLES[function], address, quantity)
    size = MBAP_HEADER + len(pdu)
    key = (_HEADER_REST.pack(MODBUS_PROTOCOL_ID, len(pdu) + 1, unit_id) + pdu)[: PLAN_KEY.stop - PLAN_KEY.start]

    def read(frame: bytes) -> bytes | None:
        return frame[:2] + head + memory[part]

    def write(frame: bytes) -> bytes | None:
        if len(frame) != size:
            return None  # less or more than this one frame
        memory[part] = frame[13:]
        return frame[:2] + head

    if function == Function.WRITE_MULTIPLE_REGISTERS:
        head = _HEADER_REST.pack(MODBUS_PROTOCOL_ID, 1 + _REQUEST.size, unit_id) + pdu[: _REQUEST.size]
        return key, write
    head = _HEADER_REST.pack(MODBUS_PROTOCOL_ID, 3 + 2 * quantity, unit_id) + bytes((function, 2 * quantity))
    return key, read

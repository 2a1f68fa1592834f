"""Modbus RTU frames on the client's side: a reply found in what a serial line brought, without I/O.

Document: "MODBUS over Serial Line Specification and Implementation Guide V1.02", here: Serial.
"""

from typing import Final

from scada.modbus.limits import ERROR_FLAG
from scada.modbus.pdu import MaskWriteRequest, Request, WriteRequest, encode_request, packed_size, write_echo

MIN_FRAME: Final = 4  # Serial 2.5.1: address, function, two bytes of CRC
_EXCEPTION_FRAME: Final = 5
_POLYNOMIAL: Final = 0xA001  # Serial 6.2.2


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ _POLYNOMIAL if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def crc16(data: bytes) -> int:
    """The CRC of Serial 6.2.2, sent low byte first; 0 over a whole frame with its own CRC."""
    crc = 0xFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc


def find_reply(data: bytes, unit_id: int, request: Request) -> bytes | None:
    """The PDU of the reply to `request` in `data`, all that was received since it went out; None while it is not there.

    Noise before and after the reply is passed over: line drivers make it when they turn round, and the CRC guards the
    rest. So is another unit's frame: it may be late. One sound frame of the unit is returned whatever it says. What begins
    as the reply is not searched for a smaller one: what it carries may look like a frame of its own.
    """
    function = request.function
    echo = _echo(unit_id, request) if isinstance(request, WriteRequest | MaskWriteRequest) else b""
    head = echo[:4] or bytes((unit_id, function, _frame_size(request) - 5))
    for start in range(len(data) - MIN_FRAME):
        if data[start] != unit_id or data[start + 1] & ~ERROR_FLAG != function:
            continue
        end = start + (_EXCEPTION_FRAME if data[start + 1] & ERROR_FLAG else _frame_size(request))
        if end <= len(data) and crc16(data[start:end]) == 0:
            return data[start + 1 : end - 2]
        if end > len(data) and data.startswith(head, start):
            # Where the CRC ends in 0 an echo without its last byte is sound too: only what is another one is broken.
            if echo.startswith(data[start:]) or not echo:
                return None
            break
    is_begun = len(data) == MIN_FRAME and data.startswith(head)
    if len(data) >= MIN_FRAME and data[0] == unit_id and crc16(data) == 0 and not is_begun:
        return data[1:-2]  # another function or size: the caller's check tells which
    return None


def _echo(unit_id: int, request: WriteRequest | MaskWriteRequest) -> bytes:
    frame = bytes((unit_id,)) + write_echo(encode_request(request))
    return frame + crc16(frame).to_bytes(2, "little")


def _frame_size(request: Request) -> int:
    if isinstance(request, WriteRequest):
        return 8
    if isinstance(request, MaskWriteRequest):
        return 10
    return 5 + (packed_size(request.quantity) if request.function <= 2 else 2 * request.quantity)

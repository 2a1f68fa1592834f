"""Modbus PDUs, without I/O: requests and responses, encoded and decoded side by side.

A server decodes a request and encodes its response; a client encodes the request and decodes the response to it.
Decoding a request checks it in the order of each function's state diagram (APS 6, Figures 11 to 27): the function is known,
then quantity, byte count and value; the address is the image's business. (The general diagram, Figure 9, has the address
before the value; the particular ones are followed.) `DeviceRefused` carries the exception code to answer, or that was
answered.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

from scada.errors import DeviceRefused, ProtocolError, Side
from scada.modbus.limits import (
    COIL_OFF,
    COIL_ON,
    ERROR_FLAG,
    MAX_READ_BITS,
    MAX_READ_REGISTERS,
    MAX_READ_WRITE_REGISTERS,
    MAX_WRITE_BITS,
    MAX_WRITE_REGISTERS,
)


class Function(IntEnum):
    """The public function codes spoken here (APS 5.1)."""

    READ_COILS = 1
    READ_DISCRETE_INPUTS = 2
    READ_HOLDING_REGISTERS = 3
    READ_INPUT_REGISTERS = 4
    WRITE_SINGLE_COIL = 5
    WRITE_SINGLE_REGISTER = 6
    WRITE_MULTIPLE_COILS = 15
    WRITE_MULTIPLE_REGISTERS = 16
    MASK_WRITE_REGISTER = 22
    READ_WRITE_MULTIPLE_REGISTERS = 23
    ENCAPSULATED_INTERFACE = 43


class ExceptionCode(IntEnum):
    """Why a device refuses (APS 7)."""

    ILLEGAL_FUNCTION = 1
    ILLEGAL_DATA_ADDRESS = 2
    ILLEGAL_DATA_VALUE = 3
    SERVER_DEVICE_FAILURE = 4
    ACKNOWLEDGE = 5
    SERVER_DEVICE_BUSY = 6
    MEMORY_PARITY_ERROR = 8
    GATEWAY_PATH_UNAVAILABLE = 10
    GATEWAY_TARGET_FAILED_TO_RESPOND = 11


class ReadRequest(NamedTuple):
    """Functions 1 to 4: `quantity` bits or registers from `address`."""

    function: int
    address: int
    quantity: int


class WriteRequest(NamedTuple):
    """Functions 5, 6, 15 and 16.

    `data`: registers big-endian, or bits packed eight a byte, the lowest address in the lowest bit of the first byte.
    """

    function: int
    address: int
    quantity: int
    data: bytes


class MaskWriteRequest(NamedTuple):
    """Function 22: register = (register AND and_mask) OR (or_mask AND NOT and_mask)."""

    address: int
    and_mask: int
    or_mask: int
    function: int = Function.MASK_WRITE_REGISTER


class ReadWriteRequest(NamedTuple):
    """Function 23: write `data` (whole registers, big-endian) at `write_address`, then read."""

    address: int
    quantity: int
    write_address: int
    data: bytes
    function: int = Function.READ_WRITE_MULTIPLE_REGISTERS


Request = ReadRequest | WriteRequest | MaskWriteRequest | ReadWriteRequest

_new = tuple.__new__  # half the cost of calling the class, and a server does this for every request

_HEAD = struct.Struct(">BHH")
_HEAD_SIZE = _HEAD.size
_WRITE_HEAD = struct.Struct(">BHHB")
_MASK = struct.Struct(">BHHH")
_READ_WRITE_HEAD = struct.Struct(">BHHHHB")
_BYTE_COUNT_HEAD = struct.Struct(">BB")

_READ_LIMIT = {
    Function.READ_COILS: MAX_READ_BITS,
    Function.READ_DISCRETE_INPUTS: MAX_READ_BITS,
    Function.READ_HOLDING_REGISTERS: MAX_READ_REGISTERS,
    Function.READ_INPUT_REGISTERS: MAX_READ_REGISTERS,
}


def packed_size(count: int) -> int:
    """Bytes that hold `count` bits."""
    return (count + 7) // 8


def refuse(code: ExceptionCode, message: str) -> DeviceRefused:
    """The error that stands for an exception response."""
    return DeviceRefused(message, int(code))


def _illegal_value(message: str) -> DeviceRefused:
    return refuse(ExceptionCode.ILLEGAL_DATA_VALUE, message)


def _wrong_length(pdu: bytes, size: int) -> DeviceRefused:
    # APS 7, code 3: also for a request whose structure is at fault, such as an implied length that is not the real one.
    return _illegal_value(f"function {pdu[0]}: {len(pdu)} bytes instead of {size}")


def decode_read_request(pdu: bytes) -> ReadRequest:
    """Functions 1 to 4 (APS 6.1-6.4)."""
    if len(pdu) != _HEAD_SIZE:
        raise _wrong_length(pdu, _HEAD_SIZE)
    function, address, count = _HEAD.unpack(pdu)
    if not 1 <= count <= _READ_LIMIT[function]:
        raise _illegal_value(f"function {function}: quantity {count} is not within 1-{_READ_LIMIT[function]}")
    return _new(ReadRequest, (function, address, count))


def _encode_read_request(request: ReadRequest) -> bytes:
    return _HEAD.pack(request.function, request.address, request.quantity)


def decode_write_coil_request(pdu: bytes) -> WriteRequest:
    """Function 5 (APS 6.5)."""
    if len(pdu) != _HEAD_SIZE:
        raise _wrong_length(pdu, _HEAD_SIZE)
    function, address, value = _HEAD.unpack(pdu)
    if value not in (COIL_ON, COIL_OFF):
        raise _illegal_value(f"function {function}: value {value:#06x} is neither on nor off")
    return WriteRequest(function, address, 1, b"\x01" if value else b"\x00")


def _encode_write_coil(request: WriteRequest) -> bytes:
    return _HEAD.pack(request.function, request.address, COIL_ON if request.data[0] & 1 else COIL_OFF)


def decode_write_register_request(pdu: bytes) -> WriteRequest:
    """Function 6 (APS 6.6): every 16-bit value is legal."""
    if len(pdu) != _HEAD_SIZE:
        raise _wrong_length(pdu, _HEAD_SIZE)
    function, address, _ = _HEAD.unpack(pdu)
    return WriteRequest(function, address, 1, pdu[3:])


def _encode_write_register(request: WriteRequest) -> bytes:
    return struct.pack(">BH", request.function, request.address) + request.data


def decode_write_coils_request(pdu: bytes) -> WriteRequest:
    """Function 15 (APS 6.11)."""
    size = len(pdu) - _WRITE_HEAD.size
    if size < 0:
        raise _illegal_value(f"function {pdu[0]}: {len(pdu)} bytes are too few")
    function, address, quantity, byte_count = _WRITE_HEAD.unpack_from(pdu)
    if not 1 <= quantity <= MAX_WRITE_BITS or not packed_size(quantity) == byte_count == size:
        raise _illegal_value(f"function {function}: quantity {quantity}, byte count {byte_count} with {size} bytes")
    return _new(WriteRequest, (function, address, quantity, pdu[_WRITE_HEAD.size :]))


def decode_write_registers_request(pdu: bytes) -> WriteRequest:
    """Function 16 (APS 6.12)."""
    size = len(pdu) - _WRITE_HEAD.size
    if size < 0:
        raise _illegal_value(f"function {pdu[0]}: {len(pdu)} bytes are too few")
    function, address, quantity, byte_count = _WRITE_HEAD.unpack_from(pdu)
    if not 1 <= quantity <= MAX_WRITE_REGISTERS or not 2 * quantity == byte_count == size:
        raise _illegal_value(f"function {function}: quantity {quantity}, byte count {byte_count} with {size} bytes")
    return _new(WriteRequest, (function, address, quantity, pdu[_WRITE_HEAD.size :]))


def _encode_write_many(request: WriteRequest) -> bytes:
    return _WRITE_HEAD.pack(request.function, request.address, request.quantity, len(request.data)) + request.data


def decode_mask_write_request(pdu: bytes) -> MaskWriteRequest:
    """Function 22 (APS 6.16): every mask is legal."""
    if len(pdu) != _MASK.size:
        raise _wrong_length(pdu, _MASK.size)
    function, address, and_mask, or_mask = _MASK.unpack(pdu)
    return MaskWriteRequest(address, and_mask, or_mask, function)


def _encode_mask_write(request: MaskWriteRequest) -> bytes:
    return _MASK.pack(request.function, request.address, request.and_mask, request.or_mask)


def decode_read_write_request(pdu: bytes) -> ReadWriteRequest:
    """Function 23 (APS 6.17)."""
    if len(pdu) < _READ_WRITE_HEAD.size:
        raise _illegal_value(f"function {pdu[0]}: {len(pdu)} bytes are too few")
    function, address, count, write_address, write_count, byte_count = _READ_WRITE_HEAD.unpack_from(pdu)
    data = pdu[_READ_WRITE_HEAD.size :]
    if not 1 <= count <= MAX_READ_REGISTERS or not 1 <= write_count <= MAX_READ_WRITE_REGISTERS:
        raise _illegal_value(f"function {function}: quantities {count} to read, {write_count} to write")
    if byte_count != 2 * write_count or len(data) != byte_count:
        raise _illegal_value(f"function {function}: byte count {byte_count} with {len(data)} bytes")
    return ReadWriteRequest(address, count, write_address, data, function)


def _encode_read_write(request: ReadWriteRequest) -> bytes:
    size = len(request.data)
    head = (request.function, request.address, request.quantity, request.write_address, size // 2, size)
    return _READ_WRITE_HEAD.pack(*head) + request.data


def encode_data_response(function: int, data: bytes) -> bytes:
    """The response of a reading function: what was read, with its byte count."""
    return _BYTE_COUNT_HEAD.pack(function, len(data)) + data


def write_echo(request_pdu: bytes) -> bytes:
    """The response of a writing function: the request again, without its data when it has many values."""
    if request_pdu[0] in (Function.WRITE_MULTIPLE_REGISTERS, Function.WRITE_MULTIPLE_COILS):
        return request_pdu[: _HEAD.size]
    return request_pdu


def encode_exception(function: int, code: int) -> bytes:
    """The response that says no."""
    return bytes((function | ERROR_FLAG, code))


def decode_response(request: Request, pdu: bytes) -> bytes:
    """What a device answered to `request`: the data read (see WriteRequest for its form), b"" for a write.

    Raises DeviceRefused for an exception response, ProtocolError (remote) for anything else that does not answer this
    request.
    """
    if len(pdu) == 2 and pdu[0] == request.function | ERROR_FLAG:
        raise DeviceRefused(f"function {request.function}: exception {pdu[1]} ({_exception_name(pdu[1])})", pdu[1])
    if not pdu or pdu[0] != request.function:
        raise ProtocolError(f"function {request.function} was answered with {pdu[:8].hex(' ')!r}")
    if isinstance(request, WriteRequest | MaskWriteRequest):
        if pdu != write_echo(encode_request(request)):
            raise ProtocolError(f"function {request.function}: the answer {pdu[:8].hex(' ')} is no echo")
        return b""
    size = packed_size(request.quantity) if request.function <= Function.READ_DISCRETE_INPUTS else 2 * request.quantity
    if len(pdu) != 2 + size or pdu[1] != size:
        raise ProtocolError(f"function {request.function}: {len(pdu) - 2} bytes of data instead of {size}")
    return pdu[2:]


def _exception_name(code: int) -> str:
    try:
        return ExceptionCode(code).name.lower().replace("_", " ")
    except ValueError:
        return "unknown"


_DECODE: dict[int, Callable[[bytes], Request]] = {
    Function.READ_COILS: decode_read_request,
    Function.READ_DISCRETE_INPUTS: decode_read_request,
    Function.READ_HOLDING_REGISTERS: decode_read_request,
    Function.READ_INPUT_REGISTERS: decode_read_request,
    Function.WRITE_SINGLE_COIL: decode_write_coil_request,
    Function.WRITE_SINGLE_REGISTER: decode_write_register_request,
    Function.WRITE_MULTIPLE_COILS: decode_write_coils_request,
    Function.WRITE_MULTIPLE_REGISTERS: decode_write_registers_request,
    Function.MASK_WRITE_REGISTER: decode_mask_write_request,
    Function.READ_WRITE_MULTIPLE_REGISTERS: decode_read_write_request,
}

_ENCODE: dict[int, Callable[[Any], bytes]] = {
    Function.READ_COILS: _encode_read_request,
    Function.READ_DISCRETE_INPUTS: _encode_read_request,
    Function.READ_HOLDING_REGISTERS: _encode_read_request,
    Function.READ_INPUT_REGISTERS: _encode_read_request,
    Function.WRITE_SINGLE_COIL: _encode_write_coil,
    Function.WRITE_SINGLE_REGISTER: _encode_write_register,
    Function.WRITE_MULTIPLE_COILS: _encode_write_many,
    Function.WRITE_MULTIPLE_REGISTERS: _encode_write_many,
    Function.MASK_WRITE_REGISTER: _encode_mask_write,
    Function.READ_WRITE_MULTIPLE_REGISTERS: _encode_read_write,
}


def decode_request(pdu: bytes) -> Request:
    """The request in a PDU of at least one byte; DeviceRefused with the exception code that it deserves."""
    decode = _DECODE.get(pdu[0])
    if decode is None:
        raise refuse(ExceptionCode.ILLEGAL_FUNCTION, f"function {pdu[0]} is not supported")
    return decode(pdu)


def encode_request(request: Request) -> bytes:
    """The PDU of a request; ProtocolError (local) when no conforming device could accept it."""
    try:
        pdu = _ENCODE[request.function](request)
        decode_request(pdu)
    except (KeyError, IndexError, struct.error, DeviceRefused) as exc:
        raise ProtocolError(f"{request} is not a legal request: {exc}", Side.LOCAL) from exc
    return pdu

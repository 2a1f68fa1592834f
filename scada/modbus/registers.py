"""Values to registers and back: types, byte orders, bits, BCD and text, each pair compiled once.

MODBUS Application Protocol V1.1b3, section 4.2, sends a register high byte first and knows nothing wider than 16 bits;
how a device lays a wider value over registers is its own choice, here called the order.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from math import isfinite

from scada.errors import ConfigError, Fault, ProtocolError, Side
from scada.values import TYPE_NAMES, BadValue, RejectCode, Value

MAX_TEXT_BYTES = 250  # 125 registers, the most that one read answers (V1.1b3 section 6.3)
EXACT_FLOAT = 2**53  # from here on a float stands for more than one integer (IEEE 754 binary64)


class RegisterType(StrEnum):
    """How a value is written in registers. `bcd` is unsigned, four decimal digits a register."""

    INT16 = "int16"
    UINT16 = "uint16"
    INT32 = "int32"
    UINT32 = "uint32"
    INT64 = "int64"
    UINT64 = "uint64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BOOL = "bool"
    BCD16 = "bcd16"
    BCD32 = "bcd32"
    STRING = "string"


class Order(StrEnum):
    """Where the bytes of a value stand, A the most significant.

    | order | 16 bit, each register of a text | 32 bit   | 64 bit          |
    | ABCD  | AB                              | AB CD    | AB CD EF GH     |
    | CDAB  | AB                              | CD AB    | GH EF CD AB     |
    | BADC  | BA                              | BA DC    | BA DC FE HG     |
    | DCBA  | BA                              | DC BA    | HG FE DC BA     |

    The registers of a text stay in reading order whatever the order says.
    """

    ABCD = "ABCD"
    CDAB = "CDAB"
    BADC = "BADC"
    DCBA = "DCBA"


Encode = Callable[[Value], bytes]
Decode = Callable[[bytes], Value]


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to write a value into `registers` 16-bit registers.

    `encode` gives 2 * registers bytes as they stand on the wire, or raises BadValue (WRONG_TYPE, NOT_INTEGER,
    OUT_OF_RANGE); it never wraps and never truncates. `decode` is its exact inverse and raises BadValue (OUT_OF_RANGE)
    for bytes that are no value: a BCD nibble above 9, NaN and infinity, text that is not UTF-8 or has a NUL inside;
    ProtocolError (local) for another number of bytes.
    """

    type: RegisterType
    order: Order
    registers: int
    encode: Encode
    decode: Decode


def codec(type: RegisterType, order: Order = Order.ABCD, *, length: int | None = None, bit: int | None = None) -> Codec:
    """The codec of a type, the same object for the same arguments.

    `length` is the bytes of text of a STRING, 1..250, and belongs to it alone; an odd length is padded to whole
    registers, with a last byte that is written 0 and not read. `bit` 0..15 (0 the least significant) makes a BOOL one
    bit of a register: encode gives the register with only this bit, bit_masks what leaves the others alone. A BOOL
    without bit is a whole register, written 0 or 1, true when not 0. Raises ConfigError (fields `length`, `bit`).
    """
    return _compile(type, order, length, bit)


def bit_masks(bit: int, value: bool) -> tuple[int, int]:
    """AND mask and OR mask of function 22 (V1.1b3 section 6.16) that set or clear one bit 0..15 of a register.

    The device computes (current & and) | (or & ~and). Raises ConfigError (field `bit`).
    """
    if not 0 <= bit <= 15:
        raise ConfigError([Fault("bit", f"a register has the bits 0..15, not {bit}")])
    mask = 1 << bit
    return 0xFFFF ^ mask, mask if value else 0


_INTEGERS = {
    RegisterType.INT16: ("h", -(2**15), 2**15 - 1),
    RegisterType.UINT16: ("H", 0, 2**16 - 1),
    RegisterType.INT32: ("i", -(2**31), 2**31 - 1),
    RegisterType.UINT32: ("I", 0, 2**32 - 1),
    RegisterType.INT64: ("q", -(2**63), 2**63 - 1),
    RegisterType.UINT64: ("Q", 0, 2**64 - 1),
}
_FLOATS = {RegisterType.FLOAT32: "f", RegisterType.FLOAT64: "d"}
_BCD = {RegisterType.BCD16: ("H", 9999), RegisterType.BCD32: ("I", 99_999_999)}


@cache  # bounded by what is valid: 12 types, 4 orders, 250 lengths, 16 bits; a ConfigError is not kept
def _compile(type: RegisterType, order: Order, length: int | None, bit: int | None) -> Codec:
    _check_options(type, order, length, bit)
    if type in _INTEGERS:
        return _integer_codec(type, order, *_INTEGERS[type])
    if type in _FLOATS:
        return _float_codec(type, order, _FLOATS[type])
    if type in _BCD:
        return _bcd_codec(type, order, *_BCD[type])
    if type is RegisterType.STRING:
        return _string_codec(order, length or 0)
    return _bool_codec(order, bit)


def _check_options(type: RegisterType, order: Order, length: int | None, bit: int | None) -> None:
    faults = []
    if type is RegisterType.STRING:
        if length is None:
            faults.append(Fault("length", "a string needs its length in bytes"))
        elif not 1 <= length <= MAX_TEXT_BYTES:
            faults.append(Fault("length", f"1..{MAX_TEXT_BYTES} bytes, not {length}"))
    elif length is not None:
        faults.append(Fault("length", f"belongs to type string, not to {type}"))
    if bit is not None:
        if type is not RegisterType.BOOL:
            faults.append(Fault("bit", f"belongs to type bool, not to {type}"))
        elif not 0 <= bit <= 15:
            faults.append(Fault("bit", f"a register has the bits 0..15, not {bit}"))
        elif _little(order):
            faults.append(
                Fault("bit", f"order {order} moves bit {bit} to bit {bit ^ 8}: name that one, with order ABCD")
            )
    if faults:
        raise ConfigError(faults)


def _integer_codec(type: RegisterType, order: Order, letter: str, low: int, high: int) -> Codec:
    layout = _layout(order, letter)
    pack = layout.pack

    def encode(value: Value) -> bytes:
        number = value if value.__class__ is int else _integer(value, type, low, high)
        try:
            return pack(number)
        except struct.error:
            raise _out_of_range(value, type, f"{low}..{high}") from None

    return _codec(type, order, layout, encode, _unpacker(layout, type))


def _float_codec(type: RegisterType, order: Order, letter: str) -> Codec:
    layout = _layout(order, letter)
    pack, unpack = layout.pack, _unpacker(layout, type)

    def encode(value: Value) -> bytes:
        if value.__class__ is not float and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise _wrong_type(value, type, "a number")
        try:
            if isfinite(value):
                return pack(value)
        except (OverflowError, struct.error):  # float64 for isfinite, float32 for a float, float32 for an integer
            pass
        raise _out_of_range(value, type, f"finite {type} numbers")

    def decode(data: bytes) -> Value:
        value = unpack(data)
        if isfinite(value):
            return value
        raise BadValue(RejectCode.OUT_OF_RANGE, f"{data.hex()} is no {type}: {value}")

    return _codec(type, order, layout, encode, decode)


def _bcd_codec(type: RegisterType, order: Order, letter: str, high: int) -> Codec:
    layout = _layout(order, letter)
    pack, unpack = layout.pack, _unpacker(layout, type)

    def encode(value: Value) -> bytes:
        number = value if value.__class__ is int else _integer(value, type, 0, high)
        if 0 <= number <= high:
            return pack(int(str(number), 16))
        raise _out_of_range(value, type, f"0..{high}")

    def decode(data: bytes) -> Value:
        try:
            return int(f"{unpack(data):x}")
        except ValueError:
            raise BadValue(RejectCode.OUT_OF_RANGE, f"{data.hex()} is no {type}: a nibble is above 9") from None

    return _codec(type, order, layout, encode, decode)


def _bool_codec(order: Order, bit: int | None) -> Codec:
    layout = _layout(order, "H")
    unpack = _unpacker(layout, RegisterType.BOOL)
    on, off = layout.pack(1 << (bit or 0)), layout.pack(0)
    mask = 0xFFFF if bit is None else 1 << bit

    def encode(value: Value) -> bytes:
        if value is True:
            return on
        if value is False:
            return off
        if isinstance(value, int | float):
            if value in (0, 1):
                return on if value else off
            raise _out_of_range(value, RegisterType.BOOL, "true, false, 0 and 1")
        raise _wrong_type(value, RegisterType.BOOL, "true, false, 0 or 1")

    def decode(data: bytes) -> Value:
        return unpack(data) & mask != 0

    return _codec(RegisterType.BOOL, order, layout, encode, decode)


def _string_codec(order: Order, length: int) -> Codec:
    registers = (length + 1) // 2
    size = 2 * registers
    swapped = _little(order)

    def encode(value: Value) -> bytes:
        if not isinstance(value, str):
            raise _wrong_type(value, RegisterType.STRING, "text")
        try:
            data = value.encode()
        except UnicodeEncodeError:
            raise _out_of_range(value, RegisterType.STRING, "text without lone surrogates") from None
        if len(data) > length:
            raise _out_of_range(value, RegisterType.STRING, f"up to {length} bytes of UTF-8, not {len(data)}")
        if b"\0" in data:
            raise _out_of_range(value, RegisterType.STRING, "text without NUL")
        padded = data.ljust(size, b"\0")
        return _swap_bytes(padded) if swapped else padded

    def decode(data: bytes) -> Value:
        if len(data) != size:
            raise _wrong_size(data, RegisterType.STRING, size)
        text = (_swap_bytes(data) if swapped else data)[:length].rstrip(b"\0")
        if b"\0" in text:
            raise BadValue(RejectCode.OUT_OF_RANGE, f"{data[:40].hex()} is no text: NUL inside")
        try:
            return text.decode()
        except UnicodeDecodeError as exc:
            raise BadValue(RejectCode.OUT_OF_RANGE, f"{data[:40].hex()} is no UTF-8: {exc.reason}") from exc

    return Codec(RegisterType.STRING, order, registers, encode, decode)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Number to wire bytes and back, in an order; errors are those of struct."""

    size: int
    pack: Callable[..., bytes]
    unpack: Callable[[bytes], tuple[int | float, ...]]


def _layout(order: Order, letter: str) -> _Layout:
    """BADC is DCBA with its words reversed, as CDAB is ABCD's: so a struct and one shuffle make all four."""
    form = struct.Struct(("<" if _little(order) else ">") + letter)
    pack, unpack = form.pack, form.unpack
    if form.size == 2 or order in (Order.ABCD, Order.DCBA):
        return _Layout(form.size, pack, unpack)
    if form.size == 4:

        def pack_two(number: int | float) -> bytes:
            data = pack(number)
            return data[2:] + data[:2]

        return _Layout(4, pack_two, lambda data: unpack(data[2:] + data[:2]))

    def pack_four(number: int | float) -> bytes:
        data = pack(number)
        return data[6:] + data[4:6] + data[2:4] + data[:2]

    return _Layout(8, pack_four, lambda data: unpack(data[6:] + data[4:6] + data[2:4] + data[:2]))


def _codec(type: RegisterType, order: Order, layout: _Layout, encode: Encode, decode: Decode) -> Codec:
    return Codec(type, order, layout.size // 2, encode, decode)


def _unpacker(layout: _Layout, type: RegisterType) -> Callable[[bytes], int]:
    unpack, size = layout.unpack, layout.size

    def read(data: bytes) -> int:
        try:
            return unpack(data)[0]  # type: ignore[return-value]  # float for the float types, whose caller knows
        except struct.error:
            raise _wrong_size(data, type, size) from None

    return read


def _little(order: Order) -> bool:
    return order in (Order.BADC, Order.DCBA)


def _swap_bytes(data: bytes) -> bytes:
    swapped = bytearray(len(data))
    swapped[::2], swapped[1::2] = data[1::2], data[::2]
    return bytes(swapped)


def _integer(value: Value, type: RegisterType, low: int, high: int) -> int:
    """A value that is no plain int, as the integer that it is; the range is checked by the caller."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(value, type, "an integer")
    if isinstance(value, int):
        return int(value)
    if not isfinite(value):
        raise _out_of_range(value, type, f"{low}..{high}")
    if not value.is_integer():
        raise BadValue(RejectCode.NOT_INTEGER, f"{value!r} is no integer: {type} takes {low}..{high}")
    if abs(value) >= EXACT_FLOAT:
        # JSON parsers make a float of an integer beyond 64 bits: -2**63-1 would arrive as -2**63 and fit
        raise _out_of_range(value, type, f"{low}..{high}, as a float only below 2**53 where it is exact")
    return int(value)


def _wrong_type(value: Value, type: RegisterType, wanted: str) -> BadValue:
    name = TYPE_NAMES.get(value.__class__, value.__class__.__name__)
    return BadValue(RejectCode.WRONG_TYPE, f"{type} takes {wanted}, not {name} {_shown(value)}".rstrip())


def _out_of_range(value: Value, type: RegisterType, wanted: str) -> BadValue:
    name = TYPE_NAMES.get(value.__class__, value.__class__.__name__)
    return BadValue(RejectCode.OUT_OF_RANGE, f"{name} {_shown(value)} does not fit: {type} takes {wanted}")


def _wrong_size(data: bytes, type: RegisterType, size: int) -> ProtocolError:
    return ProtocolError(f"{type} is decoded from {size} bytes, not {len(data)}", Side.LOCAL)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:60]!r}..."
    if isinstance(value, int) and value.bit_length() > 256:  # str() refuses integers of more than 4,300 digits
        return f"of {value.bit_length()} bits"
    return repr(value) if isinstance(value, int | float) else ""

"""All values of one read at once: a reply's data through one or two compiled structs instead of value by value.

Any order is big-endian or little-endian once the two bytes of every register were swapped or not: ABCD is big-endian as
it stands, DCBA little-endian; swapped, BADC is big-endian and CDAB little-endian.
"""

import struct
from array import array
from collections.abc import Callable, Sequence
from math import isfinite
from operator import itemgetter
from typing import Any, Final, NamedTuple

from scada.modbus.registers import Codec, Order, RegisterType
from scada.values import BadValue, Value

Decoder = Callable[[bytes], list[Value | BadValue]]

_LETTERS: Final = {
    RegisterType.INT16: "h",
    RegisterType.UINT16: "H",
    RegisterType.INT32: "i",
    RegisterType.UINT32: "I",
    RegisterType.INT64: "q",
    RegisterType.UINT64: "Q",
    RegisterType.FLOAT32: "f",
    RegisterType.FLOAT64: "d",
    RegisterType.BOOL: "H",
}
_PREFIX: Final = {Order.ABCD: ">", Order.DCBA: "<", Order.CDAB: "<", Order.BADC: ">"}
_SWAPPED: Final = (Order.CDAB, Order.BADC)
_EIGHT_BITS: Final = tuple(tuple(bool(byte >> bit & 1) for bit in range(8)) for byte in range(256))


class Field(NamedTuple):
    """A value in a reply: from which register on, how it is coded, and which bit of the register it is, if one."""

    offset: int
    codec: Codec
    bit: int | None = None


def unpack_bits(packed: bytes) -> list[bool]:
    """The bits of a reply to functions 1 and 2, with those that fill the last byte (APS 6.1)."""
    return [bit for byte in packed for bit in _EIGHT_BITS[byte]]


def compile_bits(offsets: Sequence[int]) -> Decoder:
    """A decoder of packed bits: those at `offsets`, in that order."""
    if len(offsets) == 1:
        at, bit = divmod(offsets[0], 8)
        return lambda packed: [_EIGHT_BITS[packed[at]][bit]]
    pick = itemgetter(*offsets)
    return lambda packed: list(pick(unpack_bits(packed)))


def compile_registers(fields: Sequence[Field], count: int) -> Decoder:
    """A decoder of the `count` registers of a reply: the values of `fields`, in that order.

    BadValue stands for a field whose bytes are no value, with the same words as its codec's.
    """
    passes, slots = _lay_out(fields, count)
    floats = [i for i, field in enumerate(fields) if field.codec.type in (RegisterType.FLOAT32, RegisterType.FLOAT64)]
    bools = [
        (i, 0xFFFF if field.bit is None else 1 << field.bit)
        for i, field in enumerate(fields)
        if field.codec.type is RegisterType.BOOL
    ]
    others = [i for i, field in enumerate(fields) if field.codec.type not in _LETTERS]

    def one_by_one(data: bytes, values: list[Any], which: Sequence[int]) -> list[Value | BadValue]:
        for index in which:
            offset, codec, _ = fields[index]
            try:
                values[index] = codec.decode(data[2 * offset : 2 * (offset + codec.registers)])
            except BadValue as error:
                values[index] = error
        return values

    if len(passes) == 1 and slots == list(range(len(fields))) and not bools:
        unpack, is_swapped = passes[0]

        def decode_plain(data: bytes) -> list[Value | BadValue]:
            values = list(unpack(_swap(data) if is_swapped else data))
            # One NaN or infinity makes the sum one; so may large numbers, which then pass the second look.
            if floats and not isfinite(sum(values)):
                return one_by_one(data, values, [i for i in floats if not isfinite(values[i])])
            return values

        return decode_plain
    places = [slot + 1 for slot in slots]  # behind one None, for the fields that no struct reads
    pick = itemgetter(*places) if len(places) > 1 else lambda raw: (raw[places[0]],)

    def decode(data: bytes) -> list[Value | BadValue]:
        swapped = b""
        raw: tuple[Any, ...] = (None,)
        for unpack, is_swapped in passes:
            if is_swapped and not swapped:
                swapped = _swap(data)
            raw += unpack(swapped if is_swapped else data)
        values = list(pick(raw))
        for index, mask in bools:
            values[index] = values[index] & mask != 0
        bad = [i for i in floats if not isfinite(values[i])]
        return one_by_one(data, values, bad + others) if bad or others else values

    return decode


_Kind = tuple[str, bool]  # a struct's byte order; whether registers are swapped before
_Pass = tuple[Callable[[bytes], tuple[Any, ...]], bool]


def _lay_out(fields: Sequence[Field], count: int) -> tuple[list[_Pass], list[int]]:
    """Structs over a whole reply (and whether its registers are swapped first), and where each field stands in their results.

    -1 is the place of a field that no struct reads. A struct reads nothing twice: fields that overlap go into further ones.
    """
    layers: dict[_Kind, list[tuple[list[str], list[int]]]] = {}
    places: dict[int, tuple[_Kind, int, int]] = {}
    ends: dict[tuple[_Kind, int], int] = {}
    seen: dict[tuple[_Kind, int, str], tuple[_Kind, int, int]] = {}
    for index in sorted(range(len(fields)), key=lambda i: fields[i].offset):
        offset, codec, _ = fields[index]
        letter = _LETTERS.get(codec.type)
        if letter is None:
            continue
        kind = (_PREFIX[codec.order], codec.order in _SWAPPED)
        if (kind, offset, letter) not in seen:
            known = layers.setdefault(kind, [])
            layer = next((n for n in range(len(known)) if ends[kind, n] <= offset), len(known))
            if layer == len(known):
                known.append(([], []))
                ends[kind, layer] = 0
            form, members = known[layer]
            form.append(f"{2 * (offset - ends[kind, layer])}x{letter}")
            seen[kind, offset, letter] = (kind, layer, len(members))
            members.append(index)
            ends[kind, layer] = offset + codec.registers
        places[index] = seen[kind, offset, letter]
    passes: list[_Pass] = []
    starts: dict[tuple[_Kind, int], int] = {}
    total = 0
    for kind, known in layers.items():
        for layer, (form, members) in enumerate(known):
            whole = struct.Struct(kind[0] + "".join(form) + f"{2 * (count - ends[kind, layer])}x")
            passes.append((whole.unpack, kind[1]))
            starts[kind, layer] = total
            total += len(members)
    return passes, [starts[places[i][:2]] + places[i][2] if i in places else -1 for i in range(len(fields))]


def _swap(data: bytes) -> bytes:
    words = array("H", data)
    words.byteswap()
    return words.tobytes()

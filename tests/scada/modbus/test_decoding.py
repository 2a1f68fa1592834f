"""A whole reply decoded at once says the same as each value's own codec."""

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.modbus.decoding import Field, compile_bits, compile_registers, unpack_bits
from scada.modbus.registers import Order, RegisterType, codec
from scada.values import BadValue, RejectCode

COUNT = 24


@st.composite
def fields(draw: st.DrawFn) -> Field:
    kind = draw(st.sampled_from(list(RegisterType)))
    bit = draw(st.sampled_from([None, 0, 5, 15])) if kind is RegisterType.BOOL else None
    order = Order.ABCD if bit is not None else draw(st.sampled_from(list(Order)))
    form = codec(kind, order, length=draw(st.integers(1, 9)) if kind is RegisterType.STRING else None, bit=bit)
    return Field(draw(st.integers(0, COUNT - form.registers)), form, bit)


def one_by_one(wanted: list[Field], data: bytes) -> list[Any]:
    values: list[Any] = []
    for offset, form, _ in wanted:
        try:
            values.append(form.decode(data[2 * offset : 2 * (offset + form.registers)]))
        except BadValue as error:
            values.append(error)
    return values


def same(one: Any, other: Any) -> bool:
    if isinstance(one, BadValue):
        return isinstance(other, BadValue) and (one.code, str(one)) == (other.code, str(other))
    return type(one) is type(other) and one == other


# Whole registers, some of them digits and text, so that not every BCD number and every text is refused.
data_of_a_reply = st.lists(
    st.one_of(
        st.binary(min_size=2, max_size=2), st.sampled_from([b"\x12\x34", b"Ab", b"\0\0", b"\x7f\xc0", b"\x7f\x80"])
    ),
    min_size=COUNT,
    max_size=COUNT,
).map(b"".join)


@given(st.lists(fields(), min_size=1, max_size=12), data_of_a_reply)
def test_at_once_is_as_one_by_one(wanted: list[Field], data: bytes) -> None:
    values = compile_registers(wanted, COUNT)(data)
    expected = one_by_one(wanted, data)
    assert len(values) == len(expected)
    assert all(map(same, values, expected)), (values, expected)


@given(st.lists(st.integers(0, 39), min_size=1, max_size=50), st.binary(min_size=5, max_size=5))
def test_bits_stand_lowest_first(offsets: list[int], packed: bytes) -> None:
    number = int.from_bytes(packed, "little")
    assert compile_bits(offsets)(packed) == [bool(number >> offset & 1) for offset in offsets]
    assert unpack_bits(packed) == [bool(number >> offset & 1) for offset in range(40)]


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_float_spoils_no_other(order: Order, bad: float) -> None:
    form = codec(RegisterType.FLOAT32, order)
    good = b"".join(form.encode(float(n)) for n in range(50))
    raw = bytearray(struct.pack(">f", bad))
    registers = [bytes(raw[0:2]), bytes(raw[2:4])]
    if order in (Order.CDAB, Order.DCBA):
        registers.reverse()
    if order in (Order.BADC, Order.DCBA):
        registers = [register[::-1] for register in registers]
    data = good[:40] + b"".join(registers) + good[44:]
    values = compile_registers([Field(2 * n, form) for n in range(50)], 100)(data)
    assert values[:10] + values[11:] == [float(n) for n in range(50) if n != 10]
    assert isinstance(values[10], BadValue)
    assert values[10].code is RejectCode.OUT_OF_RANGE


def test_numbers_whose_sum_is_too_large_are_still_numbers() -> None:
    form = codec(RegisterType.FLOAT64)
    largest = 1.7e308
    decode = compile_registers([Field(0, form), Field(4, form)], 8)
    assert decode(form.encode(largest) * 2) == [largest, largest]

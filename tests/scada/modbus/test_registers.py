import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client.mixin import ModbusClientMixin

from scada.errors import ConfigError, ProtocolError
from scada.modbus.registers import EXACT_FLOAT, MAX_TEXT_BYTES, Order, RegisterType, bit_masks, codec
from scada.values import BadValue, RejectCode

T = RegisterType
RANGES = {
    T.INT16: (-(2**15), 2**15 - 1),
    T.UINT16: (0, 2**16 - 1),
    T.INT32: (-(2**31), 2**31 - 1),
    T.UINT32: (0, 2**32 - 1),
    T.INT64: (-(2**63), 2**63 - 1),
    T.UINT64: (0, 2**64 - 1),
    T.BCD16: (0, 9999),
    T.BCD32: (0, 99_999_999),
}
REGISTERS = {T.INT16: 1, T.UINT16: 1, T.BOOL: 1, T.BCD16: 1, T.INT64: 4, T.UINT64: 4, T.FLOAT64: 4}
TEXT_BYTES = 9
FLOAT32_MAX = struct.unpack(">f", bytes.fromhex("7f7fffff"))[0]

orders = st.sampled_from(Order)
any_value = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.text(), st.integers(-(2**64), 2**65), st.just(10**5000)
)


def values(type: RegisterType) -> st.SearchStrategy:
    if type in RANGES:
        return st.integers(*RANGES[type])
    if type is T.FLOAT32:
        return st.floats(width=32, allow_nan=False, allow_infinity=False)
    if type is T.FLOAT64:
        return st.floats(allow_nan=False, allow_infinity=False)
    if type is T.BOOL:
        return st.booleans()
    text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=TEXT_BYTES)
    return text.filter(lambda value: len(value.encode()) <= TEXT_BYTES)


def make(type: RegisterType, order: Order = Order.ABCD):
    return codec(type, order, length=TEXT_BYTES if type is T.STRING else None)


def refused(encode, value) -> RejectCode:
    with pytest.raises(BadValue) as caught:
        encode(value)
    return caught.value.code


def attempt(call, value) -> tuple[object, BadValue | None]:
    try:
        return call(value), None
    except BadValue as exc:
        return None, exc


GOLDEN = [
    (T.UINT16, 0x1234, "1234", "1234", "3412", "3412"),
    (T.INT16, -2, "fffe", "fffe", "feff", "feff"),
    (T.UINT32, 0x01020304, "01020304", "03040102", "02010403", "04030201"),
    (T.INT32, -2, "fffffffe", "fffeffff", "fffffeff", "feffffff"),
    (T.FLOAT32, 21.5, "41ac0000", "000041ac", "ac410000", "0000ac41"),
    (T.UINT64, 0x0102030405060708, "0102030405060708", "0708050603040102", "0201040306050807", "0807060504030201"),
    (T.INT64, -2, "fffffffffffffffe", "fffeffffffffffff", "fffffffffffffeff", "feffffffffffffff"),
    (T.FLOAT64, 1.5, "3ff8000000000000", "0000000000003ff8", "f83f000000000000", "000000000000f83f"),
    (T.BCD16, 1234, "1234", "1234", "3412", "3412"),
    (T.BCD32, 12345678, "12345678", "56781234", "34127856", "78563412"),
    (T.BOOL, True, "0001", "0001", "0100", "0100"),
    (T.BOOL, False, "0000", "0000", "0000", "0000"),
    (
        T.STRING,
        "boiler 1",
        "626f696c657220310000",
        "626f696c657220310000",
        "6f626c69726531200000",
        "6f626c69726531200000",
    ),
]


@pytest.mark.parametrize(("type", "value", "abcd", "cdab", "badc", "dcba"), GOLDEN)
def test_golden_bytes_both_ways(type, value, abcd, cdab, badc, dcba):
    for order, expected in zip(Order, (abcd, cdab, badc, dcba), strict=True):
        made = make(type, order)
        assert made.encode(value).hex() == expected
        assert made.decode(bytes.fromhex(expected)) == value


@pytest.mark.parametrize("type", RegisterType)
@given(data=st.data(), order=orders)
def test_decode_is_the_inverse_of_encode(type, data, order):
    value = data.draw(values(type))
    made = make(type, order)
    encoded = made.encode(value)
    decoded = made.decode(encoded)
    assert len(encoded) == 2 * made.registers == 2 * REGISTERS.get(type, 5 if type is T.STRING else 2)
    assert (decoded.__class__, decoded) == (value.__class__, value)
    if isinstance(value, float):
        assert math.copysign(1, decoded) == math.copysign(1, value)


@pytest.mark.parametrize("type", [t for t in RegisterType if t not in (T.BOOL, T.STRING)])
@given(data=st.data(), order=orders)
def test_encode_is_the_inverse_of_decode(type, data, order):
    made = make(type, order)
    raw = data.draw(st.binary(min_size=2 * made.registers, max_size=2 * made.registers))
    value, fault = attempt(made.decode, raw)
    if fault is None:
        assert made.encode(value) == raw
    else:
        assert fault.code is RejectCode.OUT_OF_RANGE
        assert type in (T.BCD16, T.BCD32, T.FLOAT32, T.FLOAT64)


@pytest.mark.parametrize("type", RegisterType)
@given(value=any_value, order=orders)
def test_a_value_is_written_as_it_is_or_refused(type, value, order):
    made = make(type, order)
    encoded, fault = attempt(made.encode, value)
    if fault is not None:
        assert fault.code in (RejectCode.WRONG_TYPE, RejectCode.NOT_INTEGER, RejectCode.OUT_OF_RANGE)
        assert str(type) in str(fault)
        assert len(str(fault)) < 400
        return
    decoded = made.decode(encoded)
    if type is T.FLOAT32:
        assert decoded == pytest.approx(value, rel=2**-23, abs=1e-44)
    elif type is T.FLOAT64:
        assert decoded == float(value)
    elif type is T.STRING:
        assert decoded == value.rstrip("\0")
    else:
        assert decoded == value


@pytest.mark.parametrize("kind", ["INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64", "FLOAT32", "FLOAT64"])
def test_same_registers_as_an_independent_library(kind):
    peer = ModbusClientMixin.DATATYPE[kind]
    value = 300.25 if kind.startswith("FLOAT") else 30_000
    for order, word_order in ((Order.ABCD, "big"), (Order.CDAB, "little")):
        made = codec(RegisterType(kind.lower()), order)
        words = ModbusClientMixin.convert_to_registers(value, peer, word_order=word_order)
        assert made.encode(value) == b"".join(word.to_bytes(2, "big") for word in words)


@pytest.mark.parametrize(("type", "limits"), RANGES.items())
def test_the_ends_of_the_range_and_one_beyond(type, limits):
    made = codec(type)
    low, high = limits
    assert [made.decode(made.encode(end)) for end in limits] == [low, high]
    assert refused(made.encode, low - 1) is RejectCode.OUT_OF_RANGE
    assert refused(made.encode, high + 1) is RejectCode.OUT_OF_RANGE


REFUSED = [
    (T.UINT16, 70000, RejectCode.OUT_OF_RANGE),
    (T.UINT16, -1, RejectCode.OUT_OF_RANGE),
    (T.UINT16, 3.7, RejectCode.NOT_INTEGER),
    (T.UINT16, True, RejectCode.WRONG_TYPE),
    (T.UINT16, "12", RejectCode.WRONG_TYPE),
    (T.UINT16, None, RejectCode.WRONG_TYPE),
    (T.UINT16, {"a": 1}, RejectCode.WRONG_TYPE),
    (T.INT32, 2**31, RejectCode.OUT_OF_RANGE),
    (T.INT64, 10**5000, RejectCode.OUT_OF_RANGE),
    (T.UINT64, 2**64, RejectCode.OUT_OF_RANGE),
    (T.UINT64, math.nan, RejectCode.OUT_OF_RANGE),
    (T.UINT64, math.inf, RejectCode.OUT_OF_RANGE),
    (T.BCD16, 10_000, RejectCode.OUT_OF_RANGE),
    (T.BCD16, -1, RejectCode.OUT_OF_RANGE),
    (T.BCD32, 10**5000, RejectCode.OUT_OF_RANGE),
    (T.BCD32, 0.5, RejectCode.NOT_INTEGER),
    (T.FLOAT32, math.nan, RejectCode.OUT_OF_RANGE),
    (T.FLOAT32, -math.inf, RejectCode.OUT_OF_RANGE),
    (T.FLOAT32, 3.5e38, RejectCode.OUT_OF_RANGE),
    (T.FLOAT32, 10**39, RejectCode.OUT_OF_RANGE),
    (T.FLOAT32, False, RejectCode.WRONG_TYPE),
    (T.FLOAT64, 10**5000, RejectCode.OUT_OF_RANGE),
    (T.FLOAT64, "1.5", RejectCode.WRONG_TYPE),
    (T.FLOAT64, [1.5], RejectCode.WRONG_TYPE),
    (T.BOOL, 2, RejectCode.OUT_OF_RANGE),
    (T.BOOL, 0.5, RejectCode.OUT_OF_RANGE),
    (T.BOOL, math.nan, RejectCode.OUT_OF_RANGE),
    (T.BOOL, "true", RejectCode.WRONG_TYPE),
    (T.STRING, 12, RejectCode.WRONG_TYPE),
    (T.STRING, True, RejectCode.WRONG_TYPE),
    (T.STRING, "x" * (TEXT_BYTES + 1), RejectCode.OUT_OF_RANGE),
    (T.STRING, "ä" * 5, RejectCode.OUT_OF_RANGE),
    (T.STRING, "a\0b", RejectCode.OUT_OF_RANGE),
    (T.STRING, "\ud800", RejectCode.OUT_OF_RANGE),
]


@pytest.mark.parametrize(
    ("type", "value", "code"), REFUSED, ids=lambda x: str(x)[:20] if not isinstance(x, int) else ""
)
def test_refused_with_the_reason(type, value, code):
    for order in Order:
        assert refused(make(type, order).encode, value) is code


def test_the_message_names_value_type_and_range():
    with pytest.raises(BadValue, match=r"70000.*uint16.*0\.\.65535"):
        codec(T.UINT16).encode(70000)


@pytest.mark.parametrize("value", [3, 3.0, -0.0])
def test_an_integral_float_is_an_integer(value):
    assert codec(T.UINT16).encode(value) == int(value).to_bytes(2, "big")


def test_one_and_zero_are_a_bool():
    made = codec(T.BOOL)
    assert [made.encode(value).hex() for value in (1, 1.0, 0, 0.0)] == ["0001", "0001", "0000", "0000"]


def test_a_64_bit_integer_is_exact():
    assert codec(T.UINT64).encode(2**53 + 1) == (2**53 + 1).to_bytes(8, "big")


@pytest.mark.parametrize("value", [float(-(2**63)), float(EXACT_FLOAT), -float(EXACT_FLOAT), 1e18])
def test_a_float_that_may_stand_for_another_integer_is_refused(value):
    """orjson makes the float -2**63 of the integer -2**63-1, which must not be written as -2**63."""
    assert refused(codec(T.INT64).encode, value) is RejectCode.OUT_OF_RANGE
    assert codec(T.INT64).encode(float(EXACT_FLOAT - 1)) == (EXACT_FLOAT - 1).to_bytes(8, "big")


def test_the_largest_float32_and_rounding_to_it():
    made = codec(T.FLOAT32)
    assert made.decode(made.encode(FLOAT32_MAX)) == FLOAT32_MAX
    assert made.decode(made.encode(16_777_217)) == 16_777_216.0
    assert made.encode(-0.0).hex() == "80000000"


@pytest.mark.parametrize(
    ("type", "raw"),
    [
        (T.BCD16, "123a"),
        (T.BCD16, "f000"),
        (T.BCD32, "1e345678"),
        (T.FLOAT32, "7fc00000"),
        (T.FLOAT32, "7f800000"),
        (T.FLOAT64, "fff0000000000000"),
        (T.STRING, "ff" + "00" * 9),
        (T.STRING, "610062" + "00" * 7),
    ],
)
def test_bytes_that_are_no_value_are_refused(type, raw):
    with pytest.raises(BadValue) as caught:
        make(type).decode(bytes.fromhex(raw))
    assert caught.value.code is RejectCode.OUT_OF_RANGE


@pytest.mark.parametrize("type", RegisterType)
@pytest.mark.parametrize("order", Order)
def test_another_number_of_bytes_is_our_own_fault(type, order):
    made = make(type, order)
    for size in {0, 1, 2 * made.registers - 1, 2 * made.registers + 1, 2 * made.registers + 2}:
        with pytest.raises(ProtocolError, match=r"local|bytes"):
            made.decode(bytes(size))


def test_the_pad_byte_of_an_odd_text_is_written_zero_and_not_read():
    for order, filled, alien in ((Order.ABCD, "61626300", "616263ff"), (Order.BADC, "62610063", "6261ff63")):
        made = codec(T.STRING, order, length=3)
        assert (made.registers, made.encode("abc").hex()) == (2, filled)
        assert made.decode(bytes.fromhex(alien)) == "abc"


def test_a_register_that_is_not_zero_is_true():
    assert [codec(T.BOOL).decode(bytes.fromhex(raw)) for raw in ("ff00", "0002", "0000")] == [True, True, False]


@given(bit=st.integers(0, 15), current=st.integers(0, 0xFFFF), value=st.booleans())
def test_a_bit_is_set_and_read_without_touching_the_others(bit, current, value):
    made = codec(T.BOOL, bit=bit)
    and_mask, or_mask = bit_masks(bit, value)
    result = (current & and_mask) | (or_mask & ~and_mask)
    assert result & ~(1 << bit) == current & ~(1 << bit)
    assert made.decode(result.to_bytes(2, "big")) is value
    assert int.from_bytes(made.encode(value), "big") == or_mask


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"type": T.STRING}, "length"),
        ({"type": T.STRING, "length": 0}, "length"),
        ({"type": T.STRING, "length": MAX_TEXT_BYTES + 1}, "length"),
        ({"type": T.UINT16, "length": 4}, "length"),
        ({"type": T.BOOL, "bit": 16}, "bit"),
        ({"type": T.BOOL, "bit": -1}, "bit"),
        ({"type": T.BOOL, "bit": 3, "order": Order.BADC}, "bit"),
        ({"type": T.UINT16, "bit": 3}, "bit"),
    ],
)
def test_senseless_combinations_are_refused(options, field):
    with pytest.raises(ConfigError) as caught:
        codec(**options)
    assert [fault.field for fault in caught.value.faults] == [field]


def test_every_fault_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        codec(T.INT16, length=3, bit=2)
    assert [fault.field for fault in caught.value.faults] == ["length", "bit"]


def test_masks_of_a_bit_that_is_none():
    with pytest.raises(ConfigError, match=r"0\.\.15"):
        bit_masks(16, True)


def test_compiled_once():
    assert codec(T.FLOAT32, Order.CDAB) is codec(T.FLOAT32, Order.CDAB)

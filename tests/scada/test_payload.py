import gc
import json
import math
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.modbus.registers import RegisterType, codec
from scada.payload import MAX_PAYLOAD_BYTES, decode_payload, payload_head
from scada.values import BadValue, RejectCode

MEBIBYTE = 2**20

numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
documents = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
)


def refused(data: bytes) -> BadValue:
    with pytest.raises(BadValue) as caught:
        decode_payload(data)
    return caught.value


REFUSED = {
    "nothing": (b"", RejectCode.EMPTY),
    "blank": (b" \r\n\t", RejectCode.EMPTY),
    "NaN": (b"NaN", RejectCode.NOT_JSON),
    "NaN inside": (b'{"a": NaN}', RejectCode.NOT_JSON),
    "Infinity": (b"Infinity", RejectCode.NOT_JSON),
    "-Infinity": (b"[-Infinity]", RejectCode.NOT_JSON),
    "1e400": (b"1e400", RejectCode.NOT_JSON),
    "-1e400": (b'{"a":-1e400}', RejectCode.NOT_JSON),
    "5,000 digits": (b"9" * 5000, RejectCode.NOT_JSON),
    "5,000 digits negative": (b"-" + b"9" * 5000, RejectCode.NOT_JSON),
    "leading zero": (b"012", RejectCode.NOT_JSON),
    "depth 1,025": (b"[" * 1025 + b"]" * 1025, RejectCode.NOT_JSON),
    "depth 100,000": (b"[" * 100_000, RejectCode.NOT_JSON),
    "depth 100,000 closed": (b"[" * 100_000 + b"]" * 100_000, RejectCode.NOT_JSON),
    "depth 40,000 of objects": (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, RejectCode.NOT_JSON),
    "1 MB": (b'"' + b"a" * MEBIBYTE + b'"', RejectCode.TOO_LARGE),
    "10 MB": (b"[" * 10_000_000, RejectCode.TOO_LARGE),
    "byte order mark": (b'\xef\xbb\xbf{"a":1}', RejectCode.NOT_JSON),
    "UTF-16": ('{"a":1}'.encode("utf-16"), RejectCode.NOT_UTF8),
    "UTF-16 without mark": ('{"a":1}'.encode("utf-16-le"), RejectCode.NOT_JSON),
    "NUL": (b"\0", RejectCode.NOT_JSON),
    "NUL in text": (b'{"a":"x\0y"}', RejectCode.NOT_JSON),
    "NUL after": (b'{"a":1}\0', RejectCode.NOT_JSON),
    "trailing bytes": (b'{"a":1} x', RejectCode.NOT_JSON),
    "two values": (b"1 2", RejectCode.NOT_JSON),
    "lone surrogate": (b'"\\ud800"', RejectCode.NOT_JSON),
    "lone low surrogate": (b'{"\\udc00":1}', RejectCode.NOT_JSON),
    "surrogate in UTF-8": (b'"\xed\xa0\x80"', RejectCode.NOT_UTF8),
    "no UTF-8": (b'{"a":"\xff"}', RejectCode.NOT_UTF8),
    "Latin-1": ("21 °C".encode("latin-1"), RejectCode.NOT_UTF8),
    "cut": (b'{"a":1', RejectCode.NOT_JSON),
    "single quotes": (b"{'a':1}", RejectCode.NOT_JSON),
    "comma": (b"[1,]", RejectCode.NOT_JSON),
    "plain text": (b"hello", RejectCode.NOT_JSON),
}


@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED)
def test_refused_with_the_reason(data, code):
    fault = refused(data)
    assert fault.code is code
    assert len(str(fault)) < 200


ACCEPTED = {
    "scalar": (b"12", 12),
    "text": (b'"on"', "on"),
    "null": (b"null", None),
    "white space": (b" \n1\r\n", 1),
    "empty array": (b"[]", []),
    "last of duplicate keys": (b'{"a":1,"b":2,"a":3}', {"a": 3, "b": 2}),
    "__proto__": (b'{"__proto__":{"a":1}}', {"__proto__": {"a": 1}}),
    "escaped NUL": (b'"\\u0000"', "\0"),
    "surrogate pair": (b'"\\ud83d\\ude00"', "😀"),
    "2**53+1": (b"9007199254740993", 2**53 + 1),
    "2**64-1": (b"18446744073709551615", 2**64 - 1),
    "-2**63": (b"-9223372036854775808", -(2**63)),
}


@pytest.mark.parametrize(("data", "value"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(data, value):
    result = decode_payload(data)
    assert (result, result.__class__) == (value, value.__class__)


@given(documents)
def test_whatever_json_writes_is_read(value):
    assert decode_payload(json.dumps(value, ensure_ascii=False).encode()) == value


@given(
    st.binary(max_size=60) | texts.map(str.encode) | st.text('{}[]",:0123456789.eE+-truefalsnNI \\u').map(str.encode)
)
def test_garbage_raises_only_bad_value(data):
    try:
        value = decode_payload(data)
    except BadValue:
        return
    assert value == json.loads(
        data,
        parse_constant=lambda name: pytest.fail(f"{name} was accepted"),
        # Beyond 64 bits the nearest float is what an integer becomes (docs/decisions/0002).
        parse_int=lambda text: int(text) if -(2**63) <= int(text) < 2**64 else float(text),
    )


@given(st.integers(2**64, 2**70) | st.integers(-(2**70), -(2**63) - 1) | st.integers(2**64, 10**300))
def test_an_integer_beyond_64_bits_never_becomes_another_integer(number):
    value = decode_payload(str(number).encode())
    assert isinstance(value, float)
    assert value == float(number)
    for type in (RegisterType.INT64, RegisterType.UINT64, RegisterType.UINT16):
        with pytest.raises(BadValue) as caught:
            codec(type).encode(value)
        assert caught.value.code is RejectCode.OUT_OF_RANGE


def test_minus_zero_keeps_its_sign_as_a_float():
    assert math.copysign(1, decode_payload(b"-0.0")) == -1


def test_the_cap_is_the_largest_payload_read():
    assert MAX_PAYLOAD_BYTES == 262_144
    assert len(decode_payload(b'"' + b"a" * (MAX_PAYLOAD_BYTES - 2) + b'"')) == MAX_PAYLOAD_BYTES - 2
    assert refused(b"1" + b" " * MAX_PAYLOAD_BYTES).code is RejectCode.TOO_LARGE
    assert decode_payload(b"1234", max_bytes=4) == 1234
    with pytest.raises(BadValue, match="5 bytes; at most 4"):
        decode_payload(b"12345", max_bytes=4)


HEAVY = {
    "empty arrays": b"[" + b"[]," * 87_000 + b"[]]",
    "empty objects": b"[" + b"{}," * 87_000 + b"{}]",
    "small objects": b"[" + b'{"":0},' * 37_000 + b"{}]",
    "small arrays": b"[" + b"[0]," * 65_000 + b"[]]",
    "many keys": b"{" + b",".join(b'"%d":1' % n for n in range(22_000)) + b"}",
    "floats": b"[" + b"1.5," * 65_000 + b"0]",
    "one key": b'{"' + b"k" * 65_536 + b'":1}',
    "deep": b"[" + b",".join([b"[" * 1000 + b"]" * 1000] * 130) + b"]",
    "depth 100,000": b"[" * 100_000,
    "unclosed objects": b'{"a":' * 50_000,
    "10 MB": b"[" * 10_000_000,
    "no UTF-8 at the end": b'"' + b"a" * 262_000 + b"\xff",
}


@pytest.mark.parametrize("data", HEAVY.values(), ids=HEAVY)
def test_a_heavy_payload_costs_little(data):
    """Row J2: at most 20 MB and 50 ms each. The time is the best of three, with room for a slow and busy machine."""
    tracemalloc.start()
    try:
        attempt(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * MEBIBYTE
    gc.collect()
    gc.freeze()  # as the gateway does: what a whole test run has piled up is not the payload's to walk through
    durations = []
    try:
        for _ in range(3):
            started = time.perf_counter()
            attempt(data)
            durations.append(time.perf_counter() - started)
    finally:
        gc.unfreeze()
    assert min(durations) < 0.2


def attempt(data: bytes) -> object:
    try:
        return decode_payload(data)
    except BadValue as exc:
        return exc


def test_bad_payloads_leave_nothing_behind():
    payloads = [data for data, _ in REFUSED.values()]
    for data in payloads:
        refused(data)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            for data in payloads:
                refused(data)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 100_000


@pytest.mark.parametrize("data", [b"[" + b"1," * 100_000, b"\xff" + b"1," * 100_000])
def test_the_fault_does_not_hold_the_payload(data):
    fault = refused(data)
    assert fault.__cause__ is None
    assert fault.__context__ is None


@pytest.mark.parametrize(
    ("data", "head"),
    [
        (b"", ""),
        (b'{"a": 21.5}', '{"a": 21.5}'),
        ("21 °C 😀".encode(), "21 °C 😀"),
        (b"\xff\xfe{\0", r"\xff\xfe{\x00"),
        (b"a\nb\tc\x1b[31m", r"a\nb\tc\x1b[31m"),
        ("a\u202eb\u2028c\ufeff".encode(), r"a\u202eb\u2028c\ufeff"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),
        (b'"\\u0000"', '"\\u0000"'),
    ],
)
def test_the_head_is_printable(data, head):
    assert payload_head(data) == head


def test_the_head_is_cut():
    assert payload_head(b"a" * 200) == "a" * 200
    assert payload_head(b"a" * 201) == "a" * 199 + "…"
    assert payload_head("😀".encode() * 11, limit=10) == "😀" * 9 + "…"
    assert payload_head("😀".encode() * 10, limit=10) == "😀" * 10
    assert payload_head(b"\0" * 262_144) == (r"\x00" * 50)[:199] + "…"


@given(st.binary(max_size=100), st.integers(1, 40))
def test_the_head_is_always_short_and_printable(data, limit):
    head = payload_head(data, limit)
    assert len(head) <= limit
    assert head.isprintable()

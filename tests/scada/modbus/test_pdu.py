from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.errors import DeviceRefused, ProtocolError, Side
from scada.modbus.identification import (
    Access,
    answer_identification,
    decode_identification,
    encode_identification_request,
)
from scada.modbus.pdu import (
    MaskWriteRequest,
    ReadRequest,
    ReadWriteRequest,
    Request,
    WriteRequest,
    decode_request,
    decode_response,
    encode_data_response,
    encode_exception,
    encode_request,
    write_echo,
)

# The examples of the specification (APS 6.1 to 6.17): request, its bytes, the response's bytes, what was read.
GOLDEN: list[tuple[Request, str, str, str]] = [
    (ReadRequest(1, 19, 19), "01 00 13 00 13", "01 03 CD 6B 05", "CD 6B 05"),
    (ReadRequest(2, 196, 22), "02 00 C4 00 16", "02 03 AC DB 35", "AC DB 35"),
    (ReadRequest(3, 107, 3), "03 00 6B 00 03", "03 06 02 2B 00 00 00 64", "02 2B 00 00 00 64"),
    (ReadRequest(4, 8, 1), "04 00 08 00 01", "04 02 00 0A", "00 0A"),
    (WriteRequest(5, 172, 1, b"\x01"), "05 00 AC FF 00", "05 00 AC FF 00", ""),
    (WriteRequest(6, 1, 1, b"\x00\x03"), "06 00 01 00 03", "06 00 01 00 03", ""),
    (WriteRequest(15, 19, 10, b"\xcd\x01"), "0F 00 13 00 0A 02 CD 01", "0F 00 13 00 0A", ""),
    (WriteRequest(16, 1, 2, bytes.fromhex("000A0102")), "10 00 01 00 02 04 00 0A 01 02", "10 00 01 00 02", ""),
    (MaskWriteRequest(4, 0xF2, 0x25), "16 00 04 00 F2 00 25", "16 00 04 00 F2 00 25", ""),
    (
        ReadWriteRequest(3, 6, 14, bytes.fromhex("00FF00FF00FF")),
        "17 00 03 00 06 00 0E 00 03 06 00 FF 00 FF 00 FF",
        "17 0C 00 FE 0A CD 00 01 00 03 00 0D 00 FF",
        "00 FE 0A CD 00 01 00 03 00 0D 00 FF",
    ),
]


@pytest.mark.parametrize(("request_", "wire", "response", "data"), GOLDEN)
def test_golden_bytes_both_ways(request_: Request, wire: str, response: str, data: str) -> None:
    assert encode_request(request_) == bytes.fromhex(wire)
    assert decode_request(bytes.fromhex(wire)) == request_
    assert decode_response(request_, bytes.fromhex(response)) == bytes.fromhex(data)
    if data:
        assert encode_data_response(request_.function, bytes.fromhex(data)) == bytes.fromhex(response)
    else:
        assert write_echo(bytes.fromhex(wire)) == bytes.fromhex(response)


# Quantity, byte count and value: every limit of the specification and its neighbour. Code 3, but 1 for a function nobody knows.
REFUSED = [
    ("00", 1), ("07", 1), ("08 00 00 00 00", 1), ("7F", 1), ("81 00 00 00 01", 1), ("FF", 1),
    ("01 00 00 00 00", 3), ("01 00 00 07 D1", 3), ("02 00 00 00 00", 3), ("02 00 00 07 D1", 3),
    ("03 00 00 00 00", 3), ("03 00 00 00 7E", 3), ("04 00 00 00 00", 3), ("04 00 00 00 7E", 3), ("03 00 00 FF FF", 3),
    ("05 00 00 00 01", 3), ("05 00 00 FF 01", 3), ("05 00 00 01 00", 3),
    ("0F 00 00 00 00 00", 3), ("0F 00 00 00 01 00", 3), ("0F 00 00 00 09 01 FF", 3), ("0F 00 00 00 08 02 FF FF", 3),
    ("0F 00 00 07 B1 F7" + "00" * 247, 3),
    ("10 00 00 00 00 00", 3), ("10 00 00 00 01 01 00", 3), ("10 00 00 00 02 04 00 00 00", 3), ("10 00 00 00 01 04 00 00", 3),
    ("10 00 00 00 7C F8" + "00" * 248, 3),
    ("17 00 00 00 00 00 00 00 01 02 00 00", 3), ("17 00 00 00 7E 00 00 00 01 02 00 00", 3),
    ("17 00 00 00 01 00 00 00 00 00", 3), ("17 00 00 00 01 00 00 00 7A F4" + "00" * 244, 3),
    ("17 00 00 00 01 00 00 00 01 01 00", 3), ("17 00 00 00 01 00 00 00 01 02 00", 3),
    *((function + " 00 00 00", 3) for function in ("01", "02", "03", "04", "05", "06", "0F", "10", "16", "17")),
    *((function + " 00 00 00 01 00", 3) for function in ("01", "02", "03", "04", "05", "06", "16")),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "code"), REFUSED)
def test_refuses_with_the_codes_of_the_specification(wire: str, code: int) -> None:
    with pytest.raises(DeviceRefused) as caught:
        decode_request(bytes.fromhex(wire))
    assert caught.value.code == code


ACCEPTED = [
    "01 00 00 07 D0", "02 FF FF 00 01", "03 00 00 00 7D", "04 00 00 00 7D", "0F 00 00 07 B0 F6" + "00" * 246,
    "10 00 00 00 7B F6" + "00" * 246, "17 00 00 00 7D 00 00 00 79 F2" + "00" * 242,
]  # fmt: skip


@pytest.mark.parametrize("wire", ACCEPTED)
def test_the_largest_legal_request_is_legal(wire: str) -> None:
    assert encode_request(decode_request(bytes.fromhex(wire))) == bytes.fromhex(wire)


addresses = st.integers(0, 0xFFFF)
registers = st.integers(1, 121).flatmap(lambda count: st.binary(min_size=2 * count, max_size=2 * count))
requests = st.one_of(
    st.builds(ReadRequest, st.sampled_from((1, 2)), addresses, st.integers(1, 2000)),
    st.builds(ReadRequest, st.sampled_from((3, 4)), addresses, st.integers(1, 125)),
    st.builds(WriteRequest, st.just(5), addresses, st.just(1), st.sampled_from((b"\x00", b"\x01"))),
    st.builds(WriteRequest, st.just(6), addresses, st.just(1), st.binary(min_size=2, max_size=2)),
    st.builds(lambda address, data: WriteRequest(16, address, len(data) // 2, data), addresses, registers),
    st.integers(1, 1968).flatmap(
        lambda count: st.builds(
            WriteRequest,
            st.just(15),
            addresses,
            st.just(count),
            st.binary(min_size=(count + 7) // 8, max_size=(count + 7) // 8),
        )
    ),
    st.tuples(addresses, addresses, addresses).map(lambda words: MaskWriteRequest(*words)),
    st.tuples(addresses, st.integers(1, 125), addresses, registers).map(lambda parts: ReadWriteRequest(*parts)),
)


@given(requests)
def test_requests_survive_the_round_trip(request_: Request) -> None:
    assert decode_request(encode_request(request_)) == request_


def refusal_code(pdu: bytes) -> int | None:
    try:
        decode_request(pdu)
    except DeviceRefused as refusal:
        return refusal.code
    return None


def side_at_fault(decode: Callable[[], object]) -> Side | None:
    try:
        decode()
    except ProtocolError as exc:
        return exc.side
    return None


@given(st.binary(min_size=1, max_size=260))
def test_a_garbage_request_deserves_one_of_two_codes(garbage: bytes) -> None:
    assert refusal_code(garbage) in (None, 1, 3)


@given(requests, st.binary(max_size=260).filter(lambda pdu: len(pdu) != 2))
def test_a_garbage_response_is_the_remote_sides_fault(request_: Request, garbage: bytes) -> None:
    assert side_at_fault(lambda: decode_response(request_, garbage)) in (None, Side.REMOTE)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 8, 10, 11, 0, 255])
def test_an_exception_response_is_a_clean_no(code: int) -> None:
    with pytest.raises(DeviceRefused) as caught:
        decode_response(ReadRequest(3, 0, 1), encode_exception(3, code))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (ReadRequest(3, 0, 2), "04 04 00 00 00 00"),
        (ReadRequest(3, 0, 2), "03 02 00 00"),
        (ReadRequest(3, 0, 2), "03 04 00 00"),
        (ReadRequest(3, 0, 2), "03 02 00 00 00 00"),
        (ReadRequest(3, 0, 2), "84 02"),
        (ReadRequest(3, 0, 2), "83 02 00"),
        (ReadRequest(3, 0, 2), ""),
        (WriteRequest(6, 1, 1, b"\x00\x03"), "06 00 01 00 04"),
        (WriteRequest(16, 1, 1, b"\x00\x03"), "10 00 01 00 02"),
        (MaskWriteRequest(1, 2, 3), "16 00 01 00 02 00 04"),
    ],
)
def test_what_does_not_fit_the_request_is_no_answer(request_: Request, response: str) -> None:
    with pytest.raises(ProtocolError):
        decode_response(request_, bytes.fromhex(response))


@pytest.mark.parametrize(
    "request_",
    [
        ReadRequest(3, 0, 126),
        ReadRequest(7, 0, 1),
        ReadRequest(3, 65536, 1),
        ReadRequest(3, -1, 1),
        WriteRequest(16, 0, 1, b"\x00"),
        WriteRequest(5, 0, 1, b""),
        WriteRequest(6, 0, 1, b"\x00"),
        ReadWriteRequest(0, 1, 0, bytes(300)),
    ],
)
def test_an_illegal_request_is_our_own_fault(request_: Request) -> None:
    with pytest.raises(ProtocolError) as caught:
        encode_request(request_)
    assert caught.value.side is Side.LOCAL


IDENTITY = {0: b"Tagwire", 1: b"mailbox", 2: b"1.0", 4: b"A name"}


def test_identification_golden_bytes() -> None:
    request = encode_identification_request(Access.BASIC)
    assert request == bytes.fromhex("2B 0E 01 00")
    response = answer_identification(request, {0: b"Company", 1: b"Code", 2: b"V2"})
    assert response == bytes.fromhex("2B 0E 01 82 00 00 03 00 07") + b"Company\x01\x04Code\x02\x02V2"
    assert decode_identification(response).objects == {0: b"Company", 1: b"Code", 2: b"V2"}


@pytest.mark.parametrize(
    ("request_", "ids"),
    [
        ("2B 0E 01 00", [0, 1, 2]),
        ("2B 0E 01 02", [2]),
        ("2B 0E 01 04", [0, 1, 2]),  # not of this category: from the beginning
        ("2B 0E 02 00", [0, 1, 2, 4]),
        ("2B 0E 03 00", [0, 1, 2, 4]),  # more than this device's level: answered at its own
        ("2B 0E 02 80", [0, 1, 2, 4]),
        ("2B 0E 04 04", [4]),
    ],
)
def test_identification_answers_the_objects_asked_for(request_: str, ids: list[int]) -> None:
    assert list(decode_identification(answer_identification(bytes.fromhex(request_), IDENTITY)).objects) == ids


@pytest.mark.parametrize(
    ("request_", "code"),
    [("2B 0D 01 00", 1), ("2B", 1), ("2B 0E 00 00", 3), ("2B 0E 05 00", 3), ("2B 0E 04 03", 2), ("2B 0E 01", 3)],
)
def test_identification_refuses(request_: str, code: int) -> None:
    with pytest.raises(DeviceRefused) as caught:
        answer_identification(bytes.fromhex(request_), IDENTITY)
    assert caught.value.code == code


def test_identification_goes_on_where_one_response_is_full() -> None:
    identity = {key: bytes([65 + key]) * 100 for key in range(7)}
    seen: dict[int, bytes] = {}
    at: int | None = 0
    while at is not None:
        response = answer_identification(encode_identification_request(Access.REGULAR, at), identity)
        assert len(response) <= 253
        part = decode_identification(response)
        seen |= part.objects
        at = part.next_object
    assert seen == identity


@given(st.binary(max_size=80))
def test_identification_garbage_raises_only_protocol_errors(tail: bytes) -> None:
    for garbage in (tail, b"\x2b\x0e" + tail):
        assert side_at_fault(lambda pdu=garbage: decode_identification(pdu)) in (None, Side.REMOTE)

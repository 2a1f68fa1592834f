"""The conformance table: what the server answers to one request, byte for byte (APS 6 and 7)."""

import mmap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modbus_server.answers import Answers, Right, UnknownUnit
from scada.modbus.image import IMAGE_SIZE, Image, Span, UnitMap
from scada.modbus.limits import Table
from scada.modbus.mbap import encode_frame

IDENTITY = {0: b"Tagwire", 1: b"mailbox", 2: b"1"}
SPARSE = UnitMap(
    {
        Table.COIL: (Span(0, 15),),
        Table.DISCRETE_INPUT: (Span(0, 15),),
        Table.HOLDING_REGISTER: (Span(0, 9), Span(100, 300)),
        Table.INPUT_REGISTER: (Span(0, 9),),
    }
)


def make(right: Right = Right.WRITE, unknown: UnknownUnit = UnknownUnit.EXCEPTION) -> Answers:
    image = Image(mmap.mmap(-1, IMAGE_SIZE), SPARSE)
    image.write_registers(Table.HOLDING_REGISTER, 0, bytes(range(20)))
    image.write_registers(Table.INPUT_REGISTER, 0, bytes(range(100, 120)))
    image.write_bits(Table.COIL, 0, 16, b"\xcd\x6b")
    image.write_bits(Table.DISCRETE_INPUT, 0, 16, b"\xac\xdb")
    return Answers({1: image}, IDENTITY, right, unknown)


CASES = [
    # reads
    ("01 00 00 00 0A", "01 02 CD 03"),
    ("01 00 03 00 08", "01 01 79"),
    ("02 00 00 00 10", "02 02 AC DB"),
    ("03 00 01 00 02", "03 04 02 03 04 05"),
    ("04 00 09 00 01", "04 02 76 77"),
    # writes
    ("05 00 01 FF 00", "05 00 01 FF 00"),
    ("05 00 00 00 00", "05 00 00 00 00"),
    ("06 00 02 FF FF", "06 00 02 FF FF"),
    ("0F 00 00 00 0A 02 CD 01", "0F 00 00 00 0A"),
    ("10 00 01 00 02 04 00 0A 01 02", "10 00 01 00 02"),
    ("16 00 04 00 F2 00 25", "16 00 04 00 F2 00 25"),
    # 23 writes first, then reads: the written registers come back
    ("17 00 00 00 03 00 01 00 01 02 AA BB", "17 06 00 01 AA BB 04 05"),
    ("2B 0E 04 01", "2B 0E 04 82 00 00 01 01 07 6D 61 69 6C 62 6F 78"),
    # exceptions: the function is checked before anything else
    ("07", "87 01"),
    ("08 00 00 12 34", "88 01"),
    ("14 00", "94 01"),
    ("2B 0D 00", "AB 01"),
    ("C1 00", "C1 01"),
    # quantity, byte count and value before the address
    ("01 FF FF 00 00", "81 03"),
    ("02 FF FF 07 D1", "82 03"),
    ("03 FF FF 00 7E", "83 03"),
    ("04 FF FF 00 00", "84 03"),
    ("05 FF FF 12 34", "85 03"),
    ("0F FF FF 00 09 01 FF", "8F 03"),
    ("10 FF FF 00 01 03 00 00 00", "90 03"),
    ("17 FF FF 00 7E 00 00 00 01 02 00 00", "97 03"),
    ("17 00 00 00 01 FF FF 00 7A F4" + "00" * 244, "97 03"),
    ("03 00 00 00", "83 03"),
    ("03 00 00 00 01 00", "83 03"),
    # then the address
    ("01 00 10 00 01", "81 02"),
    ("01 00 0F 00 02", "81 02"),
    ("02 FF FF 00 01", "82 02"),
    ("03 00 09 00 02", "83 02"),
    ("03 00 0A 00 01", "83 02"),
    ("03 FF FF 00 02", "83 02"),
    ("04 00 64 00 01", "84 02"),
    ("05 00 10 FF 00", "85 02"),
    ("06 00 0A 00 00", "86 02"),
    ("0F 00 0F 00 02 01 03", "8F 02"),
    ("10 00 09 00 02 04 00 00 00 00", "90 02"),
    ("16 00 0A 00 00 00 00", "96 02"),
    ("17 00 0A 00 01 00 00 00 01 02 FF FF", "97 02"),
    ("17 00 00 00 01 00 0A 00 01 02 FF FF", "97 02"),
]


@pytest.mark.parametrize(("request_", "response"), CASES)
def test_conformance(request_: str, response: str) -> None:
    assert make()(1, bytes.fromhex(request_)) == bytes.fromhex(response)


@pytest.mark.parametrize("request_", [request for request, response in CASES if len(response) == 5])
def test_what_is_refused_changes_nothing(request_: str) -> None:
    answers = make()
    image = answers._images[1]
    assert image is not None
    before = image.memory[:IMAGE_SIZE]
    answers(1, bytes.fromhex(request_))
    assert image.memory[:IMAGE_SIZE] == before


def test_the_mask_of_the_specifications_example() -> None:
    answers = make()
    answers(1, bytes.fromhex("06 00 04 00 12"))
    answers(1, bytes.fromhex("16 00 04 00 F2 00 25"))
    assert answers(1, bytes.fromhex("03 00 04 00 01")) == bytes.fromhex("03 02 00 17")


READS = ["01 00 00 00 01", "02 00 00 00 01", "03 00 00 00 01", "04 00 00 00 01", "2B 0E 01 00"]
WRITES = [
    "05 00 00 FF 00", "06 00 00 00 00", "0F 00 00 00 01 01 01", "10 00 00 00 01 02 00 00",
    "16 00 00 00 00 00 00", "17 00 00 00 01 00 00 00 01 02 FF FF",
]  # fmt: skip


@pytest.mark.parametrize("right", list(Right))
@pytest.mark.parametrize("request_", READS + WRITES)
def test_a_function_outside_the_right_is_illegal(right: Right, request_: str) -> None:
    allowed = right is Right.WRITE or (right is Right.READ and request_ in READS)
    pdu = bytes.fromhex(request_)
    response = make(right)(1, pdu)
    assert response is not None
    assert (response == bytes((pdu[0] | 0x80, 1))) is not allowed


def test_an_unknown_unit_is_refused_as_a_gateway_does_or_ignored() -> None:
    request = bytes.fromhex("03 00 00 00 01")
    assert make()(2, request) == bytes.fromhex("83 0B")
    assert make(unknown=UnknownUnit.SILENCE)(2, request) is None


@given(st.binary(min_size=1, max_size=253))
@settings(max_examples=300)
def test_any_pdu_gets_a_response_that_fits_a_frame(pdu: bytes) -> None:
    response = make()(1, pdu)
    assert response is not None
    assert response[0] & 0x7F == pdu[0] & 0x7F
    assert len(response) <= 253


REPEATED = [
    "03 00 01 00 02",
    "03 00 64 00 7D",
    "04 00 00 00 0A",
    "10 00 01 00 02 04 00 0A 01 02",
    "10 00 64 00 7B F6" + "5A" * 246,
]


@pytest.mark.parametrize("request_", REPEATED)
def test_a_repeated_request_is_answered_as_the_first_time(request_: str) -> None:
    answers = make()
    pdu = bytes.fromhex(request_)
    assert answers.repeat(encode_frame(7, 1, pdu)) is None
    response = answers(1, pdu)
    assert response is not None
    assert answers.repeat(encode_frame(0xABCD, 1, pdu)) == encode_frame(0xABCD, 1, response)


def test_a_repeated_write_writes_and_a_repeated_read_reads_what_stands_there_now() -> None:
    answers = make()
    read = bytes.fromhex("03 00 01 00 02")
    answers(1, read)
    answers(1, bytes.fromhex("10 00 01 00 02 04 00 00 00 00"))
    again = answers.repeat(encode_frame(1, 1, bytes.fromhex("10 00 01 00 02 04 12 34 56 78")))
    assert again == encode_frame(1, 1, bytes.fromhex("10 00 01 00 02"))
    assert answers.repeat(encode_frame(2, 1, read)) == encode_frame(2, 1, bytes.fromhex("03 04 12 34 56 78"))


@pytest.mark.parametrize("request_", REPEATED)
def test_anything_but_the_same_request_takes_the_long_way(request_: str) -> None:
    answers = make()
    pdu = bytes.fromhex(request_)
    answers(1, pdu)
    frame = encode_frame(1, 1, pdu)
    for at in range(2, min(len(frame), 13)):
        other = bytearray(frame)
        other[at] ^= 1
        assert answers.repeat(bytes(other)) is None, f"byte {at} was not looked at"
    for cut in (frame[:-1], frame + b"\x00", frame + frame, b""):
        assert answers.repeat(cut) is None


def test_refused_requests_leave_no_plan() -> None:
    answers = make(Right.READ)
    pdu = bytes.fromhex("10 00 01 00 01 02 FF FF")
    answers(1, pdu)
    assert answers.repeat(encode_frame(1, 1, pdu)) is None
    outside = bytes.fromhex("03 00 0A 00 01")
    answers(1, outside)
    assert answers.repeat(encode_frame(1, 1, outside)) is None


def test_plans_are_bounded() -> None:
    whole = Image(mmap.mmap(-1, IMAGE_SIZE))
    answers = Answers({1: whole}, IDENTITY)
    for address in range(5000):
        answers(1, b"\x03" + address.to_bytes(2, "big") + b"\x00\x01")
    assert len(answers._plans) <= 4096

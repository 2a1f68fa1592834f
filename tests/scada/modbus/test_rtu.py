import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scada.modbus.pdu import (
    MaskWriteRequest,
    ReadRequest,
    ReadWriteRequest,
    Request,
    WriteRequest,
    encode_request,
    write_echo,
)
from scada.modbus.rtu import crc16, find_reply

# Requests to unit 17 with the replies that other implementations and the specification's examples give them.
CASES: list[tuple[Request, str]] = [
    (ReadRequest(1, 0x13, 0x25), "11 01 05 CD 6B B2 0E 1B 45 E6"),
    (ReadRequest(3, 0x6B, 3), "11 03 06 AE 41 56 52 43 40 49 AD"),
    (ReadRequest(4, 8, 1), "11 04 02 00 0A F8 F4"),
    (WriteRequest(5, 0xAC, 1, b"\x01"), "11 05 00 AC FF 00 4E 8B"),
    (WriteRequest(6, 1, 1, b"\x00\x03"), "11 06 00 01 00 03 9A 9B"),
    (WriteRequest(15, 0x13, 10, b"\xcd\x01"), "11 0F 00 13 00 0A 26 99"),
    (WriteRequest(16, 1, 2, b"\x00\x0a\x01\x02"), "11 10 00 01 00 02 12 98"),
    (MaskWriteRequest(4, 0xF2, 0x25), "11 16 00 04 00 F2 00 25 66 E2"),
    (ReadRequest(3, 0x6B, 3), "11 83 02 C1 34"),
]


@pytest.mark.parametrize(("request_", "reply"), CASES)
def test_finds_a_reply_whole_and_byte_by_byte(request_: Request, reply: str) -> None:
    frame = bytes.fromhex(reply)
    for end in range(len(frame)):
        assert find_reply(frame[:end], 17, request_) is None
    assert find_reply(frame, 17, request_) == frame[1:-2]


@pytest.mark.parametrize(("request_", "reply"), CASES)
def test_passes_over_noise_before_and_after(request_: Request, reply: str) -> None:
    frame = bytes.fromhex(reply)
    assert find_reply(b"\x00\xff" + frame + b"\x00", 17, request_) == frame[1:-2]


@pytest.mark.parametrize(("request_", "reply"), CASES)
def test_a_flipped_bit_is_no_reply(request_: Request, reply: str) -> None:
    frame = bytes.fromhex(reply)
    for position in range(len(frame) * 8):
        broken = bytearray(frame)
        broken[position // 8] ^= 1 << position % 8
        assert find_reply(bytes(broken), 17, request_) is None


def test_a_read_write_reply_has_the_size_of_what_was_read() -> None:
    body = bytes.fromhex("11 17 04 00 01 00 02")
    frame = body + crc16(body).to_bytes(2, "little")
    assert find_reply(frame, 17, ReadWriteRequest(0, 2, 0, b"\x00\x01")) == frame[1:-2]


def test_registers_that_look_like_an_exception_are_no_frame_while_the_reply_is_incomplete() -> None:
    """01 83 02 C0 F1 is exception 2 of unit 1: a reply that came in two pieces was taken for it."""
    body = bytes.fromhex("01 03 06 0183 02C0 F100")
    frame = body + crc16(body).to_bytes(2, "little")
    for end in range(len(frame)):
        assert find_reply(frame[:end], 1, ReadRequest(3, 0, 3)) is None
    assert find_reply(frame, 1, ReadRequest(3, 0, 3)) == frame[1:-2]
    refusal = bytes.fromhex("01 83 02 C0 F1")
    assert find_reply(b"\x01\x03\x07" + refusal, 1, ReadRequest(3, 0, 3)) == refusal[1:-2], "noise is no beginning"


def test_a_sound_echo_that_is_too_short_is_handed_on() -> None:
    """It was waited for in vain, and a device that breaks the protocol was taken for one that is late."""
    body = bytes.fromhex("11 10 00 01 00")
    assert find_reply(body + crc16(body).to_bytes(2, "little"), 17, WriteRequest(16, 1, 2, b"\0" * 4)) == body[1:]


def test_an_echo_that_looks_like_an_exception_is_no_refusal_while_it_is_incomplete() -> None:
    """Function 6 of unit 6: from its second byte on, this echo is exception 2 of that unit."""
    refusal = bytes.fromhex("06 86 02")
    refusal += crc16(refusal).to_bytes(2, "little")
    body = b"\x06" + refusal
    frame = body + crc16(body).to_bytes(2, "little")
    request = WriteRequest(6, int.from_bytes(body[2:4], "big"), 1, body[4:6])
    for end in range(len(frame)):
        assert find_reply(frame[:end], 6, request) is None
    assert find_reply(frame, 6, request) == frame[1:-2]


@given(st.integers(1, 247), st.sampled_from([5, 6, 15, 16, 22]), st.integers(0, 0xFFF0), st.integers(0, 0xFFFF))
@example(1, 6, 100, 51)
def test_an_echo_is_waited_for_to_its_last_byte(unit_id: int, function: int, address: int, value: int) -> None:
    """With a CRC that ends in 0 what comes before is sound as well: one write in 256 was taken for broken when it came in two."""
    data = value.to_bytes(2, "big")
    request: Request = {
        5: WriteRequest(5, address, 1, bytes((value & 1,))),
        6: WriteRequest(6, address, 1, data),
        15: WriteRequest(15, address, value % 8 + 9, data),
        16: WriteRequest(16, address, 1, data),
        22: MaskWriteRequest(address, value, 0xFFFF ^ value),
    }[function]
    body = bytes((unit_id,)) + write_echo(encode_request(request))
    frame = body + crc16(body).to_bytes(2, "little")
    for end in range(len(frame)):
        assert find_reply(frame[:end], unit_id, request) is None
    assert find_reply(frame, unit_id, request) == body[1:]


def test_no_four_bytes_of_an_echo_or_a_reply_are_a_frame_of_their_own() -> None:
    """Their last two may be the CRC of the first two."""
    for unit_id in range(1, 248):
        for function in (3, 6):
            sound = bytes((unit_id, function))
            sound += crc16(sound).to_bytes(2, "little")
            if function == 6:
                assert find_reply(sound, unit_id, WriteRequest(6, int.from_bytes(sound[2:], "big"), 1, b"ab")) is None
            elif sound[2] % 2 == 0 and 2 <= sound[2] <= 250:
                assert find_reply(sound, unit_id, ReadRequest(3, 0, sound[2] // 2)) is None


def test_another_units_reply_is_passed_over() -> None:
    frame = bytes.fromhex(CASES[2][1])
    assert find_reply(frame, 18, ReadRequest(4, 8, 1)) is None
    ours = bytes((18,)) + frame[1:-2]
    ours += crc16(ours).to_bytes(2, "little")
    assert find_reply(frame + ours, 18, ReadRequest(4, 8, 1)) == frame[1:-2]


def test_a_sound_frame_of_another_function_is_handed_on() -> None:
    frame = bytes.fromhex(CASES[2][1])
    assert find_reply(frame, 17, ReadRequest(3, 8, 1)) == frame[1:-2]


@given(st.binary(max_size=300), st.integers(0, 255))
def test_garbage_never_raises_and_is_no_reply(data: bytes, unit_id: int) -> None:
    pdu = find_reply(data, unit_id, ReadRequest(3, 0, 10))
    assert pdu is None or bytes((unit_id,)) + pdu in data


def test_the_checksum_of_the_specifications_example() -> None:
    assert crc16(b"\x02\x07") == 0x1241

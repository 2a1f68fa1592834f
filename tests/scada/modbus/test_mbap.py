import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.errors import ProtocolError, Side
from scada.modbus.mbap import Frame, FrameReader, encode_frame

# The example of Guide 4.4.1.2, two frames in one piece, the longest, a foreign protocol between two of ours.
CASES = [
    ("15 01 00 00 00 06 FF 03 00 04 00 01", [Frame(0x1501, 0xFF, bytes.fromhex("0300040001"))]),
    ("00 01 00 00 00 02 01 07" * 2, [Frame(1, 1, b"\x07")] * 2),
    ("00 02 00 00 00 FE 05" + "55" * 253, [Frame(2, 5, b"\x55" * 253)]),
    (
        "00 01 00 00 00 02 01 07 00 02 00 01 00 04 01 05 00 00 00 03 00 00 00 02 01 08",
        [Frame(1, 1, b"\x07"), Frame(3, 1, b"\x08")],
    ),
]  # fmt: skip


def drain(reader: FrameReader) -> list[Frame]:
    return list(iter(reader.next_frame, None))


@pytest.mark.parametrize(("wire", "frames"), CASES)
def test_golden_frames_whole_and_byte_by_byte(wire: str, frames: list[Frame]) -> None:
    data = bytes.fromhex(wire)
    whole = FrameReader()
    whole.feed(data)
    assert drain(whole) == frames
    assert whole.waiting == 0
    slow = FrameReader()
    seen = []
    for at in range(len(data)):
        slow.feed(data[at : at + 1])
        seen += drain(slow)
    assert seen == frames


@pytest.mark.parametrize(("wire", "frames"), CASES[:3])
def test_golden_frames_are_what_we_send(wire: str, frames: list[Frame]) -> None:
    assert b"".join(encode_frame(*frame) for frame in frames) == bytes.fromhex(wire)


def test_a_foreign_protocol_is_counted() -> None:
    reader = FrameReader()
    reader.feed(bytes.fromhex(CASES[3][0]))
    drain(reader)
    assert reader.discarded == 1


@pytest.mark.parametrize("length", [0, 1, 255, 256, 0xFFFF])
@pytest.mark.parametrize("protocol", [0, 1])
def test_an_impossible_length_breaks_the_stream_after_what_came_before(length: int, protocol: int) -> None:
    reader = FrameReader()
    header = b"\x00\x02" + protocol.to_bytes(2, "big") + length.to_bytes(2, "big") + b"\x01"
    reader.feed(encode_frame(1, 1, b"\x07") + header)
    assert reader.next_frame() == Frame(1, 1, b"\x07")
    with pytest.raises(ProtocolError) as caught:
        reader.next_frame()
    assert caught.value.side is Side.REMOTE


@pytest.mark.parametrize("size", [0, 254])
def test_a_pdu_that_fits_no_frame_is_our_own_fault(size: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        encode_frame(1, 1, bytes(size))
    assert caught.value.side is Side.LOCAL


frames = st.builds(Frame, st.integers(0, 0xFFFF), st.integers(0, 255), st.binary(min_size=1, max_size=253))


@given(st.lists(frames, max_size=6), st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_any_cutting_of_the_stream_gives_the_same_frames(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(encode_frame(*frame) for frame in sent)
    reader = FrameReader()
    seen = []
    step = 0
    while data:
        cut = cuts[step % len(cuts)]
        reader.feed(data[:cut])
        seen += drain(reader)
        data = data[cut:]
        step += 1
    assert seen == sent
    assert reader.waiting == 0


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_garbage_raises_only_protocol_errors_and_never_piles_up(pieces: list[bytes]) -> None:
    reader = FrameReader()
    for piece in pieces:
        reader.feed(piece)
        try:
            drain(reader)
        except ProtocolError:
            return
        assert reader.waiting < 260

"""PUBLISH packets, beside the library's own reading of the same bytes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt._packet import decode_publish  # the peer: what would read the packet otherwise
from paho.mqtt.client import MalformedPacket, MQTTv5, MQTTv311

from links.publish_packets import Publication, read_publish
from tests.support.scripted_broker import packet

HEADERS = st.integers(0x30, 0x3F)


CASES = [
    (b"\x30\x05\x00\x03a/b", Publication(7, "a/b", b"", 0, 0, False, False)),
    (b"\x30\x04\x00\x01a1", Publication(6, "a", b"1", 0, 0, False, False)),
    (b"\x31\x03\x00\x01a", Publication(5, "a", b"", 0, 0, True, False)),
    (b"\x32\x07\x00\x01a\x00\x0712", Publication(9, "a", b"12", 7, 1, False, False)),
    (b"\x3a\x05\x00\x01a\xff\xfe", Publication(7, "a", b"", 0xFFFE, 1, False, True)),
    (b"\x32\x81\x01\x00\x01a\x00\x01" + b"x" * 124, Publication(132, "a", b"x" * 124, 1, 1, False, False)),
]


@pytest.mark.parametrize(("data", "found"), CASES)
def test_golden_packets(data: bytes, found: Publication) -> None:
    assert read_publish(data, 0, five=False) == found
    assert read_publish(b"junk" + data + b"\x30", 4, five=False) == found._replace(end=found.end + 4)
    for end in range(len(data)):
        assert read_publish(data[:end], 0, five=False) is None, "not complete"


@pytest.mark.parametrize(
    "data",
    [
        b"\x20\x05\x00\x03a/b",  # CONNACK's type
        b"\x34\x05\x00\x01a\x00\x01",  # QoS 2
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\x30\x02\x00\x00",  # no topic
        b"\x30\x03\x00\x00x",
        b"\x30\x01\x00\x00\x00",  # shorter than its topic's length
        b"\x30\x05\x00\x04a/bx",  # the topic goes beyond the packet
        b"\x32\x04\x00\x01a\x00\x00\x00",  # and so does the packet's number
        b"\x32\x03\x00\x01a\x00\x00\x00",
        b"\x32\x05\x00\x01a\x00\x00",  # packet identifier 0
        b"\x30\x04\x00\x02\xff\xfe",  # no UTF-8
        b"\x30\x04\x00\x02\xc0\x80",
        b"\x30\x81\x81\x00" + bytes(128),  # a length of three bytes
        b"\x30\xff\xff\xff\xff\x7f",
    ],
)
def test_what_is_left_to_the_library(data: bytes) -> None:
    assert read_publish(data, 0, five=False) is None


def test_properties_are_left_to_the_library() -> None:
    assert read_publish(b"\x32\x07\x00\x01a\x00\x07\x00x", 0, five=True) == Publication(
        9, "a", b"x", 7, 1, False, False
    )
    assert read_publish(b"\x30\x05\x00\x01a\x00x", 0, five=True) == Publication(7, "a", b"x", 0, 0, False, False)
    assert read_publish(b"\x30\x06\x00\x01a\x02\x01\x01", 0, five=True) is None
    assert read_publish(b"\x30\x03\x00\x01a", 0, five=True) is None, "5 has always a length of properties"


@given(HEADERS, st.text(min_size=1, max_size=100), st.integers(0, 65_535), st.binary(max_size=20_000), st.booleans())
def test_it_reads_what_the_library_reads(header: int, topic: str, mid: int, payload: bytes, five: bool) -> None:
    name = topic.encode("utf-8", "replace")
    number = struct.pack(">H", mid) if header & 6 else b""
    body = struct.pack(">H", len(name)) + name + number + (b"\0" if five else b"") + payload
    data = packet(header, body)
    found = read_publish(data, 0, five)
    if header & 4 or len(body) >= 16_384 or (header & 2 and not mid):
        assert found is None
        return
    theirs = decode_publish(header, body, MQTTv5 if five else MQTTv311)
    assert found is not None
    assert (found.topic.encode(), found.payload, found.mid) == (theirs.topic, theirs.payload, theirs.mid)
    assert (found.qos, found.retained, found.is_repeat) == (theirs.qos, theirs.retain, theirs.dup)
    assert found.end == len(data)


@given(HEADERS, st.binary(max_size=300), st.booleans())
def test_garbage_is_read_as_the_library_reads_it_or_not_at_all(header: int, body: bytes, five: bool) -> None:
    found = read_publish(packet(header, body), 0, five)
    if found is not None:
        theirs = decode_publish(header, body, MQTTv5 if five else MQTTv311)  # raises nothing where we found something
        assert (found.topic.encode(), found.payload, found.mid) == (theirs.topic, theirs.payload, theirs.mid)


@given(st.binary(max_size=64), st.integers(0, 70), st.booleans())
def test_any_bytes_raise_nothing(data: bytes, at: int, five: bool) -> None:
    found = read_publish(data, at, five)
    assert found is None or at < found.end <= len(data)


def test_the_peer_complains_of_what_we_refuse() -> None:
    with pytest.raises((MalformedPacket, struct.error)):
        decode_publish(0x32, b"\x00\x04a/b", MQTTv311)

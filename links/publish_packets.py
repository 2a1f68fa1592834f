"""PUBLISH packets read straight from received bytes: MQTT 3.1.1 and 5, section 3.3. Pure.

The packets that come by the thousand are read here, in a tenth of the library's time; all others are the library's.
"""

from typing import NamedTuple

PUBLISH = 0x30
_TYPE = 0xF0
_DUP = 0x08
_QOS_2 = 0x04
"""Of a header: the packet asks for the exchange of four packets, or its QoS is 3, which is none."""
_RETAIN = 0x01


class Publication(NamedTuple):
    """One packet. `end` is where the next one begins; `mid` is 0 for QoS 0."""

    end: int
    topic: str
    payload: bytes
    mid: int
    qos: int
    retained: bool
    is_repeat: bool


def read_publish(data: bytes, at: int, five: bool) -> Publication | None:
    """The PUBLISH of QoS 0 or 1 that begins at `at`.

    None for everything else: another packet, one that is not complete or longer than 16 KB, QoS 2, properties (MQTT 5),
    a topic that is empty or not UTF-8, and whatever breaks the protocol: the library reads it, and says what it is.
    """
    end = len(data)
    if at + 4 > end:
        return None
    header = data[at]
    if header & _TYPE != PUBLISH or header & _QOS_2:
        return None
    length = data[at + 1]
    begin = at + 2
    if length > 127:
        high = data[begin]
        if high > 127:
            return None
        length += (high << 7) - 128
        begin += 1
    stop = begin + length
    if stop > end or length < 3:
        return None
    mark = begin + 2 + (data[begin] << 8 | data[begin + 1])
    topic = data[begin + 2 : mark]
    qos = header >> 1 & 1
    mid = 0
    if qos:
        if mark + 2 > stop:
            return None
        mid = data[mark] << 8 | data[mark + 1]
        if not mid:
            return None
        mark += 2
    if five:
        if mark >= stop or data[mark]:
            return None
        mark += 1
    if mark > stop or not topic:
        return None
    try:
        name = topic.decode()
    except UnicodeDecodeError:
        return None
    return Publication(stop, name, data[mark:stop], mid, qos, bool(header & _RETAIN), bool(header & _DUP))

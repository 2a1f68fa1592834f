"""The MBAP header of Modbus TCP: frames out of a stream of bytes and back, without I/O."""

import struct
from typing import NamedTuple

from scada.errors import ProtocolError, Side
from scada.modbus.limits import MAX_ADU, MAX_MBAP_LENGTH, MAX_PDU, MBAP_HEADER, MIN_MBAP_LENGTH, MODBUS_PROTOCOL_ID

_HEADER = struct.Struct(">HHHB")  # Guide 3.1.3: transaction, protocol, length, unit; big-endian
_BEFORE_LENGTH_ENDS = 6  # the length field counts what follows it, and the unit identifier is the first of that

DEFAULT_CAPACITY = 4 * MAX_ADU


class Frame(NamedTuple):
    """One Modbus message: the transaction it belongs to, the unit it is for, and the PDU."""

    transaction: int
    unit_id: int
    pdu: bytes


def encode_frame(transaction: int, unit_id: int, pdu: bytes) -> bytes:
    """The bytes of one frame. The PDU has 1 to 253 bytes; ProtocolError (local) otherwise."""
    length = len(pdu)
    if not 0 < length <= MAX_PDU:
        raise ProtocolError(f"a PDU of {length} bytes does not fit a frame", Side.LOCAL)
    return _HEADER.pack(transaction, MODBUS_PROTOCOL_ID, length + 1, unit_id) + pdu


class FrameReader:
    """Cuts a stream into frames, however the network cut it before.

    It owns a buffer of `capacity` bytes (at least one whole frame): receive into `room()`, say how much came with
    `received()`, then take `next_frame()` until it answers None. What one pass can yield is bounded by the capacity.
    """

    __slots__ = ("_buffer", "_end", "_start", "_view", "discarded")

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        if capacity < MAX_ADU:
            raise ValueError(f"capacity {capacity} is less than one frame of {MAX_ADU} bytes")
        self._buffer = bytearray(capacity)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self.discarded = 0
        """Frames of another protocol that were dropped."""

    def room(self) -> memoryview:
        """Where the next bytes go. Never empty once next_frame() has answered None."""
        return self._view[self._end :] if self._end else self._view

    def received(self, count: int) -> None:
        """`count` bytes were put into room()."""
        self._end += count

    def feed(self, data: bytes) -> None:
        """Take bytes that stand elsewhere; ValueError when they are more than room() holds."""
        self.room()[: len(data)] = data
        self._end += len(data)

    @property
    def is_between_frames(self) -> bool:
        """Nothing of a next frame has arrived."""
        return self._start == self._end

    def next_frame(self) -> Frame | None:
        """The next whole frame, or None when more bytes are needed.

        A frame whose protocol identifier is not 0 is discarded, as Guide 4.4.2.2 asks. ProtocolError (remote) when the
        length field is impossible: nobody can tell where the next frame begins, so the connection is of no more use.
        """
        while True:
            start, end = self._start, self._end
            if end - start < MBAP_HEADER:
                self._move_to_front()
                return None
            transaction, protocol, length, unit_id = _HEADER.unpack_from(self._buffer, start)
            if not MIN_MBAP_LENGTH <= length <= MAX_MBAP_LENGTH:
                raise ProtocolError(f"MBAP length {length} is not within {MIN_MBAP_LENGTH}-{MAX_MBAP_LENGTH}")
            stop = start + _BEFORE_LENGTH_ENDS + length
            if stop > end:
                self._move_to_front()
                return None
            if stop == end:
                self._start = self._end = 0
            else:
                self._start = stop
            if protocol == MODBUS_PROTOCOL_ID:
                return Frame(transaction, unit_id, bytes(self._view[start + MBAP_HEADER : stop]))
            self.discarded += 1

    def _move_to_front(self) -> None:
        """Make room for the rest of the frame that has begun to arrive."""
        if self._start:
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest

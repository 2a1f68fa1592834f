"""The MBAP header of Modbus TCP: frames out of a stream of bytes and back, without I/O."""

import struct
from typing import NamedTuple

from scada.errors import ProtocolError, Side
from scada.modbus.limits import MAX_MBAP_LENGTH, MAX_PDU, MBAP_HEADER, MIN_MBAP_LENGTH, MODBUS_PROTOCOL_ID

_HEADER = struct.Struct(">HHHB")  # Guide 3.1.3: transaction, protocol, length, unit; big-endian
_BEFORE_LENGTH_ENDS = 6  # the length field counts what follows it, and the unit identifier is the first of that

_new = tuple.__new__  # half the cost of calling the class, and this is done for every message


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
    """Cuts a stream into frames, however the network cut it before: `feed()` bytes, take `next_frame()` until it answers None."""

    __slots__ = ("_at", "_data", "discarded", "waiting")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self.waiting = 0
        """Bytes fed and not yet taken. Less than one frame once next_frame() has answered None."""
        self.discarded = 0
        """Frames of another protocol that were dropped."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self._data = self._data[self._at :] + data if self.waiting else data
        self._at = 0
        self.waiting = len(self._data)

    def next_frame(self) -> Frame | None:
        """The next whole frame, or None when more bytes are needed.

        A frame whose protocol identifier is not 0 is discarded, as Guide 4.4.2.2 asks. ProtocolError (remote) when the
        length field is impossible: nobody can tell where the next frame begins, so the connection is of no more use.
        """
        while self.waiting >= MBAP_HEADER:
            at = self._at
            transaction, protocol, length, unit_id = _HEADER.unpack_from(self._data, at)
            if not MIN_MBAP_LENGTH <= length <= MAX_MBAP_LENGTH:
                raise ProtocolError(f"MBAP length {length} is not within {MIN_MBAP_LENGTH}-{MAX_MBAP_LENGTH}")
            size = _BEFORE_LENGTH_ENDS + length
            if size > self.waiting:
                return None
            self._at = at + size
            self.waiting -= size
            if protocol == MODBUS_PROTOCOL_ID:
                return _new(Frame, (transaction, unit_id, self._data[at + MBAP_HEADER : at + size]))
            self.discarded += 1
        return None

"""One client of a Modbus TCP server: frames in, answers out, and never more of either than is fair.

A wake-up reads once, at most `_READ_BYTES`, and a client that leaves answers unread is not read from, so what one
connection costs in time and memory is bounded. Plain connections use their socket themselves, which is faster than
asyncio's transports (docs/decisions/0101-modbus-server-sockets.md). TLS goes through a transport.
"""

import asyncio
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from scada.errors import ProtocolError
from scada.modbus.mbap import FrameReader, encode_frame

# At most 39 of the usual 12-byte requests for each wake-up; and Python allocates so small a buffer twice as fast as a large one.
_READ_BYTES = 472
_HIGH_WATER_BYTES = (
    16 * 1024
)  # answers that TLS holds for a client which does not read, before we stop reading its requests
_HANDSHAKE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Who a connection belongs to: its address, and the client's certificate (DER) where TLS has checked one."""

    host: str
    certificate: bytes | None = None


class Answer(Protocol):
    """What a client is answered. Called on the loop, must not block."""

    def __call__(self, unit_id: int, pdu: bytes) -> bytes | None:
        """The response PDU to a request PDU, None for silence."""

    def repeat(self, frame: bytes) -> bytes | None:
        """The whole answering frame, if these bytes are one whole frame as it was answered before. None: take the long way."""


class Pool(Protocol):
    """What a connection needs of the listener that it belongs to."""

    def answer_for(self, peer: Peer) -> Answer:
        """What this client is answered."""

    def speaks(self, connection: "Connection") -> Callable[["Connection"], None]:
        """It completed its first request. Returns what to call after each one."""

    def broke(self, host: str, reason: str) -> None:
        """A connection ends because of what the client sent, or did not send."""

    def closed(self, connection: "Connection") -> None:
        """It is no more. May be said twice."""


class Connection(ABC):
    """What plain and TLS connections have in common: requests out of the buffer, answers into one piece of bytes."""

    def __init__(self, pool: Pool, host: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._pool = pool
        self._host = host
        self._reader = FrameReader()
        self._answer: Answer | None = None
        self._touch: Callable[[Connection], None] = self._speak_first
        self._ending = False  # nothing is executed any more
        self._broken = False  # nothing can be understood any more
        self.last_s = self._time()
        """When the last request was completed, or the connection begun, on the loop's clock."""

    def _speak_first(self, _: "Connection") -> None:
        self._touch = self._pool.speaks(self)

    def _respond(self, data: bytes) -> bytes:
        """The answers to all that is whole now that `data` came. Sets `_broken` where they end in nonsense."""
        answer = self._answer
        if self._ending or answer is None:
            return b""  # no answer could leave any more, so nothing may be executed
        if not self._reader.waiting:
            again = answer.repeat(data)
            if again is not None:
                self.last_s = self._time()
                self._touch(self)
                return again
        return self._respond_to_all(data, answer)

    def _respond_to_all(self, data: bytes, answer: Answer) -> bytes:
        answers: list[bytes] = []
        heard = False
        self._reader.feed(data)
        try:
            while (frame := self._reader.next_frame()) is not None:
                heard = True
                response = answer(frame.unit_id, frame.pdu)
                if response is not None:
                    answers.append(encode_frame(frame.transaction, frame.unit_id, response))
        except ProtocolError as exc:
            self._ending = self._broken = True
            self._pool.broke(self._host, str(exc))
        if heard:
            self.last_s = self._time()
            self._touch(self)
        return b"".join(answers)

    @abstractmethod
    def shed(self) -> None:
        """Close at once and free the slot; what the client has not read is lost to it."""

    @abstractmethod
    def finish(self) -> None:
        """Send what is answered, then FIN; what still comes is thrown away, so that no reset overtakes the answers."""


class PlainConnection(Connection):
    """A connection without TLS."""

    def __init__(self, pool: Pool, host: str, sock: socket.socket) -> None:
        super().__init__(pool, host)
        self._answer = pool.answer_for(Peer(host))
        self._sock = sock
        self._recv = sock.recv
        self._send = sock.send
        self._unsent = b""
        self._loop.add_reader(sock, self._on_readable)

    def _on_readable(self) -> None:
        try:
            data = self._recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.shed()
            return
        answers = self._respond(data)
        if answers:
            try:
                sent = self._send(answers)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.shed()
                return
            if sent < len(answers):
                self._unsent = answers[sent:]
                self._loop.remove_reader(self._sock)
                self._loop.add_writer(self._sock, self._on_writable)
                return
        if self._broken:
            self.shed()

    def _on_writable(self) -> None:
        try:
            self._unsent = self._unsent[self._send(self._unsent) :]
            if not self._unsent:
                self._loop.remove_writer(self._sock)
                self._loop.add_reader(self._sock, self._on_readable)
                if self._ending and not self._broken:
                    self._sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:
            self.shed()
            return
        if self._broken and not self._unsent:
            self.shed()

    def shed(self) -> None:
        if self._sock.fileno() == -1:
            return
        self._ending = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._pool.closed(self)

    def finish(self) -> None:
        self._ending = True
        if not self._unsent:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                self.shed()


class TlsConnection(Connection, asyncio.BufferedProtocol):
    """A connection of Modbus/TCP Security: it has no rights before the client's certificate is checked."""

    def __init__(self, pool: Pool, host: str, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(pool, host)
        self._sock: socket.socket | None = sock
        self._transport: asyncio.Transport | None = None
        self._unread = False
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._handshake = self._loop.create_task(self._shake_hands(sock, context), name=f"TLS handshake with {host}")

    async def _shake_hands(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = None  # the transport's from here on
        try:
            await self._loop.connect_accepted_socket(
                lambda: self, sock, ssl=context, ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S
            )
        except OSError as exc:  # ssl.SSLError is one
            self._pool.broke(self._host, f"no TLS session: {exc}")
        finally:
            if self._transport is None:
                sock.close()
                self._pool.closed(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport has the methods of asyncio.Transport without being one.
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self._answer = self._pool.answer_for(Peer(self._host, certificate))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        answers = self._respond(bytes(self._buffer[:nbytes]))
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if answers:
            transport.write(answers)
        if self._broken:
            transport.close()
        elif nbytes == _READ_BYTES and not self._unread:
            # More is waiting: the others have their turn first. The loop would otherwise read this one many times over.
            transport.pause_reading()
            self._loop.call_soon(self._resume_reading)

    def pause_writing(self) -> None:
        self._unread = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._unread = False
        self._resume_reading()

    def _resume_reading(self) -> None:
        if self._transport is not None and not self._unread and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.closed(self)

    def shed(self) -> None:
        self._ending = True
        self._pool.closed(self)
        if self._transport is not None:
            self._transport.abort()
        else:
            self._handshake.cancel()
            if self._sock is not None:  # the handshake has not even begun
                self._sock.close()

    def finish(self) -> None:
        self._ending = True
        if self._transport is None:
            self.shed()
        else:
            self._transport.close()

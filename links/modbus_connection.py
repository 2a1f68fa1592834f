"""One client of a Modbus TCP server: frames in, answers out, and never more of either than is fair.

A wake-up reads once, at most `_READ_BYTES`, and a client that leaves answers unread is not read from, so what one
connection costs in time and memory is bounded. Connections use their socket themselves, which is faster than asyncio's
transports, and with TLS lets the alerts out (docs/decisions/0101-modbus-server-sockets.md).
"""

import asyncio
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from scada.errors import ProtocolError
from scada.modbus.mbap import FrameReader, encode_frame

# At most 39 of the usual 12-byte requests for each wake-up; and Python allocates so small a buffer twice as fast as a large one.
_READ_BYTES = 472
_HANDSHAKE_TIMEOUT_S = 10.0
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


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
        self._sock = sock
        self._unsent = b""
        self._begin()

    def _begin(self) -> None:
        self._serve(None)

    def _serve(self, certificate: bytes | None) -> None:
        self._answer = self._pool.answer_for(Peer(self._host, certificate))
        self._recv = self._sock.recv
        self._send = self._sock.send
        self._loop.add_reader(self._sock, self._on_readable)

    def _on_readable(self) -> None:
        try:
            data = self._recv(_READ_BYTES)
        except _NOT_NOW:
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
            except _NOT_NOW:
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
                    self._say_fin()
        except _NOT_NOW:
            return
        except OSError:
            self.shed()
            return
        if self._broken and not self._unsent:
            self.shed()

    def _say_fin(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

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
                self._say_fin()
            except OSError:
                self.shed()


class TlsConnection(PlainConnection):
    """A connection of Modbus/TCP Security: it has no rights before the client's certificate is checked."""

    def __init__(self, pool: Pool, host: str, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._context = context
        self._tls: ssl.SSLSocket | None = None
        super().__init__(pool, host, sock)

    def _begin(self) -> None:
        self._deadline = self._loop.call_later(_HANDSHAKE_TIMEOUT_S, self._refuse, "the handshake took too long")
        self._loop.add_reader(self._sock, self._shake_hands)

    def _shake_hands(self) -> None:
        try:
            if self._tls is None:
                self._loop.remove_reader(self._sock)
                self._sock = self._tls = self._context.wrap_socket(
                    self._sock, server_side=True, do_handshake_on_connect=False
                )
            self._loop.remove_writer(self._sock)
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.add_reader(self._sock, self._shake_hands)
        except ssl.SSLWantWriteError:
            self._loop.remove_reader(self._sock)
            self._loop.add_writer(self._sock, self._shake_hands)
        except OSError as exc:
            # The TLS library has told the client why by an alert (Modbus/TCP Security R-10).
            self._refuse(str(exc))
        else:
            self._deadline.cancel()
            self._serve(self._tls.getpeercert(binary_form=True))

    def _refuse(self, reason: str) -> None:
        self._pool.broke(self._host, f"no TLS session: {reason}")
        self.shed()

    def _on_readable(self) -> None:
        if not self._unsent:
            super()._on_readable()
            self._read_on()

    def _on_writable(self) -> None:
        super()._on_writable()
        self._read_on()

    def _read_on(self) -> None:
        # What is decrypted already makes no socket readable. The others have their turn first.
        if self._tls is not None and self._tls.pending():
            self._loop.call_soon(self._on_readable)

    def _say_fin(self) -> None:
        self._notify_close()
        super()._say_fin()

    def _notify_close(self) -> None:
        if self._answer is not None and self._tls is not None:
            with suppress(OSError, ValueError):  # the client's own notice is not waited for, or it was said before
                self._tls.unwrap()

    def shed(self) -> None:
        self._deadline.cancel()
        if self._sock.fileno() == -1:
            self._pool.closed(self)  # closed by the TLS library, which takes no socket whose client is gone
        else:
            self._notify_close()
            super().shed()

    def finish(self) -> None:
        if self._answer is None:
            self.shed()
        else:
            super().finish()

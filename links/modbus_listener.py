"""The network side of a Modbus TCP server: accepts, frames, answers, and sheds what it cannot carry.

Nobody can delay the others: one wake-up of a connection does a bounded amount of work, a client that does not read is not read
from either, and neither silence nor half a frame counts as activity. All limits are in `ListenerLimits`.
"""

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import cast

from links.keepalive import set_keepalive
from scada.errors import ConfigError, Fault, ProtocolError
from scada.modbus.limits import MAX_ADU
from scada.modbus.mbap import FrameReader, encode_frame

logger = logging.getLogger(__name__)

Answer = Callable[[int, bytes], bytes | None]
"""Unit id and request PDU to response PDU, None for silence. Called on the loop, must not block."""

Network = IPv4Network | IPv6Network

_BACKLOG = 512
_ACCEPTS_PER_TURN = 64  # one burst of newcomers must not hold up those who are served
_READ_BYTES = 4 * MAX_ADU  # per connection and wake-up; at most 86 of the usual 12-byte requests
_READ_MUCH = _READ_BYTES - MAX_ADU  # what fills the buffer, whatever part of a frame stood in it before
_HIGH_WATER_BYTES = 16 * 1024  # answers waiting for a client that does not read; beyond it we stop reading its requests
_HANDSHAKE_TIMEOUT_S = 10.0
_SWEEP_PERIOD_S = 1.0
_OUT_OF_FDS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RETRY_ACCEPT_S = 0.5


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """How many connections are carried, how long one may be idle, and from where they may come (empty: anywhere)."""

    max_connections: int = 1024
    idle_timeout_s: float = 75.0
    allow: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """Who a connection belongs to: its address, and the client's certificate (DER) where TLS has checked one."""

    host: str
    certificate: bytes | None = None


@dataclass(slots=True)
class Counters:
    """What happened since the start, for the operator."""

    accepted: int = 0
    refused: int = 0
    shed_idle: int = 0
    shed_excess: int = 0
    broken: int = 0


class ModbusListener:
    """Serves Modbus TCP on any number of addresses, plain or TLS, out of one pool of connections."""

    def __init__(self, answer_for: Callable[[Peer], Answer], limits: ListenerLimits) -> None:
        self.counters = Counters()
        self._answer_for = answer_for
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._listening: list[socket.socket] = []
        # Oldest activity first. Those that never completed a request are the first to go.
        self._silent: OrderedDict[_Connection, None] = OrderedDict()
        self._active: OrderedDict[_Connection, None] = OrderedDict()
        self._spare_fd: int | None = os.open(os.devnull, os.O_RDONLY)
        self._states: set[str] = set()
        self._sweeper: asyncio.TimerHandle | None = self._loop.call_later(_SWEEP_PERIOD_S, self._sweep)
        self._all_closed: asyncio.Event | None = None

    def open(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> Sequence[tuple[str, int]]:
        """Listen on every address of `host`; port 0 takes a free one. Returns where. Raises ConfigError naming host and port."""
        where = []
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, address in dict.fromkeys((info[0], (str(info[4][0]), int(info[4][1]))) for info in found):
                listening = socket.create_server(address, family=family, backlog=_BACKLOG)
                self._listening.append(listening)
                listening.setblocking(False)
                self._loop.add_reader(listening, self._accept, listening, tls)
                where.append(listening.getsockname()[:2])
        except OSError as exc:
            reason = "the address is in use" if exc.errno == errno.EADDRINUSE else exc.strerror or str(exc)
            raise ConfigError([Fault("", f"cannot listen on {host}:{port}: {reason}")]) from exc
        return where

    async def close(self, grace_s: float) -> None:
        """Stop accepting, answer the requests that are here, say FIN, and wait up to `grace_s` for the clients to leave."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for listening in self._listening:
            self._loop.remove_reader(listening)
            listening.close()
        # What had arrived before we stopped is read and answered within two turns of the loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for connection in self._connections():
            connection.finish()
        if len(self):
            self._all_closed = asyncio.Event()
            try:
                async with asyncio.timeout(grace_s):
                    await self._all_closed.wait()
            except TimeoutError:
                for connection in self._connections():
                    connection.shed()
        if self._spare_fd is not None:
            os.close(self._spare_fd)
            self._spare_fd = None

    def __len__(self) -> int:
        return len(self._silent) + len(self._active)

    def _connections(self) -> list["_Connection"]:
        return [*self._silent, *self._active]

    # --- accepting ---

    def _accept(self, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in _OUT_OF_FDS:
                    self._refuse_one(listening, tls, exc)
                    return
                continue  # that one client was gone before we took it (accept(2), "Error handling")
            if not self._is_allowed(address[0]):
                self.counters.refused += 1
                self._enter(
                    "allow", f"refused a connection from {address[0]}: not in the allow list; more are only counted"
                )
                sock.close()
                continue
            self._leave("fds", "file descriptors are available again")
            self._take(sock, address[0], tls)

    def _refuse_one(self, listening: socket.socket, tls: ssl.SSLContext | None, exc: OSError) -> None:
        # Level-triggered: an unaccepted newcomer would wake us for ever. The spare descriptor lets us take it and close it.
        self._enter("fds", f"out of file descriptors ({exc.strerror}) with {len(self)} connections: refusing new ones")
        self.counters.refused += 1
        try:
            if self._spare_fd is not None:
                os.close(self._spare_fd)
                self._spare_fd = None
            listening.accept()[0].close()
            self._spare_fd = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            # Somebody else took the spare one: look away for a while instead of spinning.
            self._loop.remove_reader(listening)
            self._loop.call_later(_RETRY_ACCEPT_S, self._resume_accepting, listening, tls)

    def _resume_accepting(self, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
        if listening.fileno() == -1:
            return
        if self._spare_fd is None:
            try:
                self._spare_fd = os.open(os.devnull, os.O_RDONLY)
            except OSError:
                self._loop.call_later(_RETRY_ACCEPT_S, self._resume_accepting, listening, tls)
                return
        self._loop.add_reader(listening, self._accept, listening, tls)

    def _take(self, sock: socket.socket, host: str, tls: ssl.SSLContext | None) -> None:
        self.counters.accepted += 1
        if len(self) >= self._limits.max_connections:
            self.counters.shed_excess += 1
            self._enter("full", f"{len(self)} connections: closing the one idle longest for each newcomer")
            next(iter(self._silent or self._active)).shed()
        sock.setblocking(False)
        try:
            set_keepalive(sock)
        except OSError:
            sock.close()  # the client is gone already
            return
        connection = _Connection(self, self._loop, host)
        self._silent[connection] = None
        connection.start(sock, tls)

    def _is_allowed(self, host: str) -> bool:
        if not self._limits.allow:
            return True
        address = ip_address(host.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)  # an IPv4 client of a socket that listens on [::]
        return any((mapped or address) in network for network in self._limits.allow)

    # --- what connections tell ---

    def answer_for(self, peer: Peer) -> Answer:
        """The rights of a new connection, as the program decides."""
        return self._answer_for(peer)

    def no_session(self, host: str, exc: OSError) -> None:
        """A client did not get through the handshake."""
        self.counters.refused += 1
        self._enter("tls", f"no TLS session with {host}: {exc}; more are only counted")

    def touch(self, connection: "_Connection") -> None:
        """A request was completed on this connection."""
        if connection in self._active:
            self._active.move_to_end(connection)
        elif connection in self._silent:
            del self._silent[connection]
            self._active[connection] = None

    def closed(self, connection: "_Connection") -> None:
        """This connection is no more."""
        self._silent.pop(connection, None)
        self._active.pop(connection, None)
        if self._all_closed is not None and not len(self):
            self._all_closed.set()

    def _sweep(self) -> None:
        """Shed what has been idle too long. Oldest first, so that this ends at the first that has not."""
        self._sweeper = self._loop.call_later(_SWEEP_PERIOD_S, self._sweep)
        deadline = self._loop.time() - self._limits.idle_timeout_s
        for group in (self._silent, self._active):
            for connection in list(group):
                if connection.last_s > deadline:
                    break
                self.counters.shed_idle += 1
                connection.shed()
        if len(self) < self._limits.max_connections:
            self._leave("full", f"{len(self)} connections: room for more again")

    def _enter(self, state: str, message: str) -> None:
        if state not in self._states:
            self._states.add(state)
            logger.warning("%s", message)

    def _leave(self, state: str, message: str) -> None:
        if state in self._states:
            self._states.discard(state)
            logger.info("%s", message)


class _Connection(asyncio.BufferedProtocol):
    """One client. Reads into a buffer of its own, answers whole frames, and stops reading while its answers pile up."""

    def __init__(self, listener: ModbusListener, loop: asyncio.AbstractEventLoop, host: str) -> None:
        self.last_s = loop.time()
        self._listener = listener
        self._loop = loop
        self._host = host
        self._reader = FrameReader(_READ_BYTES)
        self._sock: socket.socket | None = None
        self._transport: asyncio.Transport | None = None
        self._set_up_task: asyncio.Task[None] | None = None
        self._answer: Answer | None = None
        self._write_blocked = False
        self._finishing = False

    def start(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._sock = sock
        self._set_up_task = self._loop.create_task(self._set_up(sock, tls), name=f"modbus connection from {self._host}")

    async def _set_up(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._sock = None  # the transport's from here on
        timeout = _HANDSHAKE_TIMEOUT_S if tls else None
        try:
            await self._loop.connect_accepted_socket(lambda: self, sock, ssl=tls, ssl_handshake_timeout=timeout)
        except OSError as exc:  # ssl.SSLError is one
            self._listener.no_session(self._host, exc)
        finally:
            if self._transport is None:
                sock.close()
                self._listener.closed(self)

    # --- asyncio's callbacks ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport has the methods of asyncio.Transport without being one.
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        tls = transport.get_extra_info("ssl_object")
        self._answer = self._listener.answer_for(Peer(self._host, tls.getpeercert(binary_form=True) if tls else None))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.room()

    def buffer_updated(self, nbytes: int) -> None:
        reader, answer, transport = self._reader, self._answer, self._transport
        assert answer is not None
        assert transport is not None
        reader.received(nbytes)
        answers: list[bytes] = []
        heard = False
        broken: ProtocolError | None = None
        try:
            while (frame := reader.next_frame()) is not None:
                if self._finishing:
                    continue  # it could not be answered any more, so it must not be executed either
                heard = True
                response = answer(frame[1], frame[2])
                if response is not None:
                    answers.append(encode_frame(frame[0], frame[1], response))
        except ProtocolError as exc:
            broken = exc
        if answers:
            transport.write(answers[0] if len(answers) == 1 else b"".join(answers))
        if heard:
            self.last_s = self._loop.time()
            self._listener.touch(self)
        if broken is not None:
            self._listener.counters.broken += 1
            logger.debug("closing the connection from %s: %s", self._host, broken)
            transport.close()
        elif nbytes >= _READ_MUCH and not self._write_blocked:
            # More is waiting: let the others have their turn first. The loop would otherwise read this one many times over.
            transport.pause_reading()
            self._loop.call_soon(self._resume_reading)

    def _resume_reading(self) -> None:
        if self._transport is not None and not self._write_blocked and not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._write_blocked = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._write_blocked = False
        self._resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._listener.closed(self)

    # --- the listener's orders ---

    def shed(self) -> None:
        """Close at once and free the slot; what it did not read is lost to it."""
        self._listener.closed(self)
        if self._transport is None:
            if self._set_up_task is not None:
                self._set_up_task.cancel()
            if self._sock is not None:
                self._sock.close()
        elif self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    def finish(self) -> None:
        """Send what is answered, then FIN; go on reading, but only to throw it away, so that no reset overtakes the answers."""
        self._finishing = True
        if self._transport is None:
            self.shed()
        elif self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

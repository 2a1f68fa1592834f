"""The network side of a Modbus TCP server: accepts clients, and sheds what it cannot carry.

Out of descriptors it refuses newcomers and keeps those it has. With every place taken it closes the connection idle longest,
those that never completed a request first: neither silence nor half a frame counts as activity.
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

from links.keepalive import set_keepalive
from links.modbus_connection import Answer, Connection, Peer, PlainConnection, TlsConnection
from scada.errors import ConfigError, Fault

logger = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network

_BACKLOG = 512
_ACCEPTS_PER_TURN = 16  # one burst of newcomers must not hold up those who are served
_SWEEP_PERIOD_S = 1.0
_NOTICE_PERIOD_S = 60.0
_STATE_LASTS_S = 10.0
_NO_FDS = "out of file descriptors"
_FULL = "full"
_OUT_OF_FDS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RETRY_ACCEPT_S = 0.5


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """How many connections are carried, how long one may be idle, and from where they may come (empty: anywhere)."""

    max_connections: int = 1024
    idle_timeout_s: float = 75.0
    allow: tuple[Network, ...] = ()


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
        self._silent: OrderedDict[Connection, None] = OrderedDict()
        self._active: OrderedDict[Connection, None] = OrderedDict()
        self._spare_fd: int | None = os.open(os.devnull, os.O_RDONLY)
        self._states: dict[str, float] = {}
        self._noticed: dict[str, int] = {}
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

    def _connections(self) -> list[Connection]:
        return [*self._silent, *self._active]

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
                self._notice(f"refused a connection from {address[0]}: not in the allow list", "refused connections")
                sock.close()
                continue
            self._take(sock, address[0], tls)

    def _refuse_one(self, listening: socket.socket, tls: ssl.SSLContext | None, exc: OSError) -> None:
        # Level-triggered: an unaccepted newcomer would wake us for ever. The spare descriptor lets us take it and close it.
        self._enter(
            _NO_FDS, f"out of file descriptors ({exc.strerror}) with {len(self)} connections: refusing new ones"
        )
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
            self._enter(_FULL, f"{len(self)} connections: closing the one idle longest for each newcomer")
            next(iter(self._silent or self._active)).shed()
        sock.setblocking(False)
        try:
            set_keepalive(sock)
        except OSError:
            sock.close()  # the client is gone already
            return
        connection = TlsConnection(self, host, sock, tls) if tls else PlainConnection(self, host, sock)
        self._silent[connection] = None

    def _is_allowed(self, host: str) -> bool:
        if not self._limits.allow:
            return True
        address = ip_address(host.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)  # an IPv4 client of a socket that listens on [::]
        return any((mapped or address) in network for network in self._limits.allow)

    def answer_for(self, peer: Peer) -> Answer:
        """The rights of a new connection, as the program decides."""
        return self._answer_for(peer)

    def broke(self, host: str, reason: str) -> None:
        """A connection ends because of what the client sent, or did not send."""
        self.counters.broken += 1
        self._notice(f"closed a connection from {host}: {reason}", "broken connections")

    def speaks(self, connection: Connection) -> Callable[[Connection], None]:
        """This connection completed its first request. The answer is what it shall call after each one."""
        del self._silent[connection]
        self._active[connection] = None
        return self._active.move_to_end

    def closed(self, connection: Connection) -> None:
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
        self._leave_what_is_over()

    def _notice(self, message: str, kind: str) -> None:
        """Log the first of a kind, and once a minute how many there were since."""
        if kind not in self._noticed:
            self._noticed[kind] = 0
            logger.warning("%s", message)
            self._loop.call_later(_NOTICE_PERIOD_S, self._forget, kind)
        else:
            self._noticed[kind] += 1

    def _forget(self, kind: str) -> None:
        more = self._noticed.pop(kind)
        if more:
            logger.warning("%d more %s within %d s", more, kind, _NOTICE_PERIOD_S)

    def _enter(self, state: str, message: str) -> None:
        if state not in self._states:
            logger.warning("%s", message)
        self._states[state] = self._loop.time()

    def _leave_what_is_over(self) -> None:
        """A state is over when nothing renewed it for a while; so it does not flap in the log."""
        over = self._loop.time() - _STATE_LASTS_S
        for state in [state for state, since in self._states.items() if since < over]:
            del self._states[state]
            logger.info("no longer %s, %d connections", state, len(self))

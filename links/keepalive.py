"""TCP settings of a long-lived connection: small frames at once, a vanished peer noticed, nothing repeated after the end."""

import socket
import struct
import sys
from typing import Final

if sys.platform == "linux":
    import fcntl
    import termios

# A peer that went without a word is found after IDLE_S + COUNT * INTERVAL_S seconds.
IDLE_S: Final = 30
INTERVAL_S: Final = 10
COUNT: Final = 3


def set_keepalive(sock: socket.socket) -> None:
    """Switch on keepalive probes and switch off Nagle's delay; data nobody acknowledges ends the connection too."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", IDLE_S),
        ("TCP_KEEPINTVL", INTERVAL_S),
        ("TCP_KEEPCNT", COUNT),
        ("TCP_USER_TIMEOUT", 1000 * (IDLE_S + COUNT * INTERVAL_S)),
    ):
        if hasattr(socket, name):  # each system has its own choice of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def discard_unsent(sock: socket.socket, discard: bool) -> None:
    """Whether the end of a connection, or of the process, throws away what the peer has not acknowledged, and says RST for FIN.

    Otherwise the system goes on repeating it for minutes after the close: over what a newer connection brought meanwhile.
    """
    layout = "hh" if sys.platform == "win32" else "ii"
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(layout, discard, 0))


def unacknowledged(sock: socket.socket) -> int | None:
    """Bytes sent that the peer's system has not acknowledged; None where this system does not tell (tcp(7), SIOCOUTQ)."""
    if sys.platform != "linux":
        return None
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)

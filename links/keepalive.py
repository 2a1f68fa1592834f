"""TCP settings of a long-lived connection: small frames at once, a vanished peer noticed."""

import socket
from typing import Final

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

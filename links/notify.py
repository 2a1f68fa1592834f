"""Telling whoever started us that we are ready: the sd_notify protocol, as systemd and `tagwire up` speak it.

One datagram per message to the unix socket named by NOTIFY_SOCKET; a name that begins with `@` is in the abstract
namespace of Linux (systemd, sd_notify(3)). Started by hand there is no such socket and nothing is sent.
"""

import os
import socket

_TIMEOUT_S = 1.0


def notify_ready(status: str = "") -> None:
    """Say that the program serves from now on, with a line on what it does for the operator."""
    _send("READY=1", status)


def notify_stopping() -> None:
    """Say that the program is on its way out, on purpose."""
    _send("STOPPING=1", "")


def _send(state: str, status: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    lines = [state, *([f"STATUS={' '.join(status.split())}"] if status else [])]
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            # A supervisor that reads nothing must not hang the program that tells it something.
            sender.settimeout(_TIMEOUT_S)
            sender.sendto("\n".join(lines).encode(), target)
    except OSError:
        # Whoever listened is gone. Serving the field matters more than saying so.
        return

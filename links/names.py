"""The addresses of a host's name, looked up so that a resolver that never answers delays nobody else.

The loop's own lookups share few threads (four under uvloop, of which two are for names), and the end of the program waits for
them: with two names whose resolver is silent, no other name is found for 10 s and more, and stopping takes as long.
"""

import asyncio
import errno
import ipaddress
import os
import socket

from links.threads import start_in_thread


class HostName:
    """One host, by name or address; one lookup at a time, in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lookup: asyncio.Future[list[str]] | None = None

    async def addresses(self, kind: socket.SocketKind) -> list[str]:
        """Every address, best first; an address is its own. Raises OSError, or ValueError for what cannot be a name.

        Cancelling gives up waiting, not the lookup, which nobody can end: the next call waits for the same one, so a
        resolver that takes longer than its caller has time serves the caller's next attempt.
        """
        if _is_address(self.name):
            return [self.name]
        if self._lookup is None or _has_failed(self._lookup):
            self._lookup = self._start(kind)
        lookup = self._lookup
        found = await asyncio.shield(lookup)
        if self._lookup is lookup:
            self._lookup = None  # the next connection asks anew: names move
        return found

    def _start(self, kind: socket.SocketKind) -> asyncio.Future[list[str]]:
        name = self.name

        def look_up() -> list[str]:
            return list(dict.fromkeys(_text(found[4]) for found in socket.getaddrinfo(name, 0, type=kind)))

        try:
            lookup = start_in_thread(look_up, f"lookup of {name}")
        except RuntimeError as exc:
            raise OSError(errno.EAGAIN, f"no thread to look up {name}: {os.strerror(errno.EAGAIN)}") from exc
        lookup.add_done_callback(_has_failed)  # a failure that nobody waits for any more is nobody's concern
        return lookup


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _has_failed(lookup: asyncio.Future[list[str]]) -> bool:
    return lookup.done() and (lookup.cancelled() or lookup.exception() is not None)


def _text(address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> str:
    """Of a socket address; a link-local one of IPv6 is nothing without its interface."""
    scope = address[3] if len(address) == 4 else 0
    return f"{address[0]}%{scope}" if scope else str(address[0])

"""Changes queue here, bounded in number and in time: first for a thread, then in that thread for the database's lock."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Literal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

# Where a request's Claim stands in its WSGI environment.
CLAIM = "tagwire.claim"
# A backup, a VACUUM or somebody's shell may hold SQLite's lock for half a minute, and no change need fail for that.
# Less than the 60 s that proxies (nginx: proxy_read_timeout) and many clients wait for an answer.
PATIENCE_S = 40.0


class Refused(Exception):
    """A change that got no turn; says why."""


class Gone(Exception):
    """Nobody waits for the answer any more."""


class Claim:
    """One change that waits. Its thread asks `wait_on`; whoever calls it off does so from another."""

    def __init__(self, until: float) -> None:
        self._until = until

    def wait_on(self) -> bool:
        """Whether there is time left, and somebody to answer."""
        return time.monotonic() < self._until

    def shorten(self, until: float) -> None:
        """Wait no longer than this moment of the monotonic clock."""
        self._until = min(self._until, until)


class Turns:
    """At most `at_once` changes are made at a time and `most` wait or are made; used in one event loop."""

    def __init__(self, at_once: int, most: int, patience_s: float) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._most = most
        self._patience_s = patience_s
        self._claims: set[Claim] = set()
        self._end = float("inf")

    @asynccontextmanager
    async def take(self, gone: asyncio.Future[None]) -> AsyncIterator[Claim]:
        """Hold a turn. `gone` is done when the client is: then Gone, or, once it has begun, the claim is called off.

        Raises Refused when too many others wait, or when no turn came in time.
        """
        if len(self._claims) >= self._most:
            raise Refused(f"{len(self._claims)} changes are waiting")
        claim = Claim(min(time.monotonic() + self._patience_s, self._end))
        self._claims.add(claim)
        gone.add_done_callback(lambda _: claim.shorten(0.0))
        try:
            await self._wait(gone)
            try:
                if gone.done():
                    raise Gone
                if not claim.wait_on():
                    raise Refused("the changes before this one wait for the database")
                yield claim
            finally:
                self._free.release()
        finally:
            self._claims.discard(claim)

    def hurry(self, within_s: float) -> None:
        """The program ends: what still waits then is refused."""
        self._end = time.monotonic() + within_s
        for claim in self._claims:
            claim.shorten(self._end)

    async def _wait(self, gone: asyncio.Future[None]) -> None:
        """Until there is a free turn; those before this one are bounded in time, so it is too."""
        turn = asyncio.ensure_future(self._free.acquire())
        try:
            await asyncio.wait((turn, gone), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            _give_up(turn, self._free)
            raise
        if not turn.done():
            turn.cancel()
            raise Gone


async def disconnected(receive: Receive) -> None:
    """Returns when the client is gone: after the body ASGI has nothing else to tell."""
    while (await receive())["type"] != "http.disconnect":
        continue


def _give_up(turn: asyncio.Future[Literal[True]], free: asyncio.Semaphore) -> None:
    if turn.done():
        free.release()
    else:
        turn.cancel()

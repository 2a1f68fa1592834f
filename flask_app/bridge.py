"""Flask behind an ASGI server: the whole body is collected on the event loop, then one thread answers the request.

A client that sends slowly therefore costs a socket and some buffer, never a thread. WSGI is PEP 3333, ASGI is the HTTP scope 2.3.
"""

import asyncio
import contextlib
import logging
import re
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from urllib.parse import unquote_to_bytes

from flask_app.parking import BEGUN, PARKS, RESUMES, Parked
from flask_app.problems import problem_bytes
from flask_app.turns import CLAIM, PATIENCE_S, Gone, Message, Receive, Refused, Turns, disconnected

Send = Callable[[Message], Awaitable[None]]
# Status, header fields and the pieces of the body.
Reply = tuple[int, list[tuple[bytes, bytes]], list[bytes]]
# Told the status of every request that was refused before the application saw it.
OnRefused = Callable[[int], None]
WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_log = logging.getLogger(__name__)
# A body up to this size stays in memory, a longer one goes to a temporary file.
_SPOOL_BYTES = 1024 * 1024
_CHUNK = 256 * 1024
_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
# The slowest client whose body is waited for: 30 s, and longer for a long body at this rate.
_BODY_GRACE_S = 30.0
_BODY_RATE = 16 * 1024
# A client that sends on while it is refused would lose the answer to a reset: what it sends is read, this much and so long,
# and thrown away (RFC 9112, 9.6). It is twice the longest import, unless the settings allow more.
_LINGER_BYTES = 64 * 1024 * 1024
_LINGER_S = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What requests may take. `body` is the longest body in bytes for a path; the other sizes are bytes too.

    `changes` of the `waiting` requests may be ones that change something: while the database is locked they all wait, for
    up to `patience_s`, and others must still be let in. Requests to the paths `asking` wait for a device in their thread; those
    to `commanding` and to paths that end with /commands wait for a verdict without one, and do not count as `waiting` then.
    """

    body: Callable[[str], int]
    head: int = 32 * 1024
    headers: int = 100
    threads: int = 8
    writers: int = 4
    askers: int = 4
    commanders: int = 16
    asking: frozenset[str] = frozenset({"/api/v1/registers"})
    commanding: frozenset[str] = frozenset({"/api/v1/device_ctrl", "/api/v1/device_call"})
    changes: int = 256
    patience_s: float = PATIENCE_S
    waiting: int = 512
    buffered: int = 256 * 1024 * 1024


class _Refused(Exception):
    """A request that never reaches the application."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail
        super().__init__(detail)


class WsgiBridge:
    """An ASGI application that answers HTTP with a WSGI application in a bounded pool of threads."""

    def __init__(self, app: WsgiApp, limits: Limits, on_refused: OnRefused) -> None:
        self._app = app
        self._on_refused = on_refused
        self._limits = limits
        self._readers = ThreadPoolExecutor(limits.threads, thread_name_prefix="reader")
        # Writers may wait for the database's lock; in threads of their own they never keep readers from being answered.
        self._writers = ThreadPoolExecutor(limits.writers, thread_name_prefix="writer")
        # And whoever waits for a device keeps neither of them.
        self._askers = ThreadPoolExecutor(limits.askers, thread_name_prefix="asker")
        self._commanders = ThreadPoolExecutor(limits.commanders, thread_name_prefix="commander")
        self._turns = Turns(limits.writers, limits.changes, limits.patience_s)
        self._running = 0
        self._buffered = 0
        self._ended = threading.Condition()
        self._answering = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"no application for {scope['type']}")
        scope = _origin_form(scope)
        body = SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - closed below, in the pool's thread
        taken = 0
        more = True
        try:
            self._check(scope)
            limit = self._limits.body(scope["path"])
            async with asyncio.timeout(_BODY_GRACE_S + (_length(scope) or limit) / _BODY_RATE):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    chunk = message.get("body", b"")
                    more = message.get("more_body", False)
                    taken += len(chunk)
                    self._buffered += len(chunk)
                    if taken > limit:
                        raise _Refused(413, f"the body is longer than {limit} bytes")
                    if self._buffered > self._limits.buffered:
                        raise _Refused(503, "too many bodies are being received")
                    body.write(chunk)
            body.seek(0)
            request = environ(scope, body)
            begun = time.perf_counter()
            reply = await self._run(scope, request, receive)
            if isinstance(reply, Parked):
                # The view has read its body, and does not come to it again.
                self._buffered -= taken
                taken = 0
                body.close()
                await _wait(reply, receive)
                request |= {RESUMES: reply.finish, BEGUN: begun}
                reply = await self._run(scope, request, receive)
                assert not isinstance(reply, Parked)
            status, headers, chunks = reply
        except Gone:
            return
        except TimeoutError:
            more = False
            status, headers, chunks = self._refusal(408, "the body did not arrive in time")
        except _Refused as refused:
            status, headers, chunks = self._refusal(refused.status, refused.detail)
        finally:
            self._buffered -= taken
            body.close()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for chunk in chunks:
            for start in range(0, len(chunk), _CHUNK):
                await send({"type": "http.response.body", "body": chunk[start : start + _CHUNK], "more_body": True})
        if more and not _is_asking(scope):
            await _throw_away(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def hurry(self, within_s: float) -> None:
        """Changes that wait do so no longer than this."""
        self._turns.hurry(within_s)

    def close(self, timeout_s: float) -> bool:
        """End the threads; whether all have finished what they were answering within the time."""
        for pool in (self._readers, self._writers, self._askers, self._commanders):
            pool.shutdown(wait=False, cancel_futures=True)
        with self._ended:
            return self._ended.wait_for(lambda: self._answering == 0, timeout_s)

    def _check(self, scope: Message) -> None:
        if len(scope["headers"]) > self._limits.headers:
            raise _Refused(431, f"more than {self._limits.headers} header fields")
        # h11 limits a head that comes in pieces; one that came in a single read gets here.
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self._limits.head:
            raise _Refused(431, f"the head is longer than {self._limits.head} bytes")
        if scope["http_version"] not in ("1.0", "1.1"):
            raise _Refused(400, "HTTP/1.1 is spoken here")
        if _length(scope) > self._limits.body(scope["path"]):
            raise _Refused(413, f"the body is longer than {self._limits.body(scope['path'])} bytes")
        if self._running >= self._limits.waiting:
            raise _Refused(503, f"{self._running} requests are waiting")

    async def _run(self, scope: Message, request: dict[str, Any], receive: Receive) -> Reply | Parked:
        loop = asyncio.get_running_loop()
        self._running += 1
        try:
            if (pool := self._pool(scope)) is not None:
                request[PARKS] = pool is self._commanders
                return await loop.run_in_executor(pool, self._counted, request)
            gone = asyncio.ensure_future(disconnected(receive))
            try:
                async with self._turns.take(gone) as claim:
                    request[CLAIM] = claim
                    return await loop.run_in_executor(self._writers, self._counted, request)
            except Refused as refused:
                raise _Refused(503, str(refused)) from refused
            finally:
                gone.cancel()
        finally:
            self._running -= 1

    def _pool(self, scope: Message) -> ThreadPoolExecutor | None:
        """The threads that answer a request; None for a change of the configuration, which has to wait for its turn."""
        path: str = scope["path"]
        if path in self._limits.asking:
            return self._askers
        if scope["method"] in _READING:
            return self._readers
        if path in self._limits.commanding or path.endswith("/commands"):
            return self._commanders
        return None

    def _counted(self, request: dict[str, Any]) -> Reply | Parked:
        with self._ended:
            self._answering += 1
        try:
            return self._answer(request)
        except Parked as parked:
            return parked
        finally:
            with self._ended:
                self._answering -= 1
                self._ended.notify_all()

    def _answer(self, request: dict[str, Any]) -> Reply:
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            started[:] = [int(status[:3]), [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers]]

        result = self._app(request, start_response)
        try:
            chunks = [chunk for chunk in result if chunk]
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        return started[0], started[1], chunks

    def _refusal(self, status: int, detail: str) -> Reply:
        self._on_refused(status)
        body = problem_bytes(status, detail)
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        return status, headers, [body]


async def _wait(parked: Parked, receive: Receive) -> None:
    """Until there is what a parked request waits for, or its time is up; raises Gone when the client is."""
    gone = asyncio.ensure_future(disconnected(receive))
    try:
        left_s = max(0.0, parked.until_s - time.monotonic())
        waiting = {asyncio.wrap_future(parked.waiter.woken), gone}
        await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise Gone
    finally:
        gone.cancel()
        parked.leave()


async def _throw_away(receive: Receive) -> None:
    """Read the rest of a body that nobody wants, within bounds."""
    taken = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while taken < _LINGER_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                taken += len(message.get("body", b""))


def _is_asking(scope: Message) -> bool:
    """Whether the client waits to be told before it sends the body (RFC 9110, 10.1.1)."""
    return any(name == b"expect" for name, _ in scope["headers"])


def _origin_form(scope: Message) -> Message:
    """The scope of a request whose target is a path; a client behind a proxy sends a whole URL (RFC 9112, 3.2.2)."""
    found = _ABSOLUTE.match(scope["raw_path"])
    if found is None:
        return scope
    raw = scope["raw_path"][found.end() :] or b"/"
    return {**scope, "raw_path": raw, "path": unquote_to_bytes(raw).decode("utf-8", "replace")}


def environ(scope: Message, body: IO[bytes]) -> dict[str, Any]:
    """The WSGI environment of an ASGI HTTP scope. The path is decoded byte by byte: the application sees what was sent."""
    client, server = scope.get("client") or ("", 0), scope.get("server") or ("", 0)
    result: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        # A name with an underscore could pose as one with a dash.
        if b"_" in name:
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        result[key] = f"{result[key]},{text}" if key in result else text
    return result


def _length(scope: Message) -> int:
    """The body's length as the head says it; 0 when it says nothing. h11 has checked that these are digits."""
    return max((int(value[:15]) for name, value in scope["headers"] if name == b"content-length"), default=0)

"""Which threads answer what, without sockets."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from flask_app.bridge import Limits, WsgiBridge
from flask_app.parking import PARKS, RESUMES, Parked
from flask_app.waiters import Waiter, Waiters
from tests.support.processes import CHECKOUT

REQUESTS = 12


class Held:
    """A WSGI application that counts who is in it, and lets nobody out before `release`."""

    def __init__(self) -> None:
        self.inside: Counter[str] = Counter()
        self.release = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            self.inside[environ["REQUEST_METHOD"]] += 1
        self.release.wait(20)
        start_response("204 No Content", [])
        return []


async def ask(bridge: WsgiBridge, method: str, target: str = "/") -> int:
    statuses: list[int] = []
    received: list[str] = []

    async def receive() -> dict[str, Any]:
        if received:
            await asyncio.Event().wait()  # the client stays
        received.append(method)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "http_version": "1.1", "scheme": "http", "method": method, "headers": []}
    await bridge({**scope, "path": target, "raw_path": target.encode(), "query_string": b""}, receive, send)
    return statuses[0]


async def test_the_threads_setting_is_for_reading_and_changes_have_four_of_their_own() -> None:
    app = Held()
    bridge = WsgiBridge(app, Limits(body=lambda path: 100, threads=3), lambda status: None)
    reading = [asyncio.create_task(ask(bridge, method)) for method in ("GET", "HEAD", "OPTIONS") * REQUESTS]
    await asyncio.sleep(0.1)
    changing = [asyncio.create_task(ask(bridge, method)) for method in ("POST", "PUT", "PATCH", "DELETE") * REQUESTS]
    async with asyncio.timeout(10):
        while app.inside.total() < 7:  # noqa: ASYNC110 - threads tell nobody
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    inside = app.inside.copy()
    app.release.set()
    assert set(await asyncio.gather(*reading, *changing)) == {204}
    assert bridge.close(5)
    assert sum(inside[method] for method in ("GET", "HEAD", "OPTIONS")) == 3
    assert inside.total() == 3 + 4


def test_the_settings_table_says_what_the_threads_are_for() -> None:
    (row,) = [
        line for line in (CHECKOUT / "docs/settings.md").read_text().splitlines() if "`FLASK_APP_THREADS`" in line
    ]
    assert "reading requests (GET, HEAD, OPTIONS)" in row
    assert "four threads of their own" in row
    assert Limits(body=len).writers == 4


async def test_too_many_waiting_requests_are_refused_and_counted() -> None:
    refused: list[int] = []
    app = Held()
    bridge = WsgiBridge(app, Limits(body=lambda path: 100, threads=1, waiting=2), refused.append)
    waiting = [asyncio.create_task(ask(bridge, "GET")) for _ in range(2)]
    await asyncio.sleep(0.1)
    assert await ask(bridge, "GET") == 503
    app.release.set()
    assert set(await asyncio.gather(*waiting)) == {204}
    assert bridge.close(5)
    assert refused == [503]


class Parking:
    """A WSGI application whose changes wait for `waiters`, and are answered when they come back."""

    def __init__(self) -> None:
        self.waiters = Waiters()
        self.left = 0
        self.inside = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            start_response("204 No Content", [])
            return []
        finish = environ.get(RESUMES)
        if finish is None:
            assert environ[PARKS]
            waiter = self.waiters.place("boiler")
            assert isinstance(waiter, Waiter)
            self.inside += 1
            raise Parked(waiter, time.monotonic() + 20, lambda: b"done", lambda: self._leave(waiter))
        start_response("200 OK", [])
        return [finish()]

    def _leave(self, waiter: Waiter) -> None:
        self.left += 1
        self.waiters.leave(waiter)


async def test_requests_that_wait_for_a_device_hold_no_thread_and_do_not_count() -> None:
    app = Parking()
    bridge = WsgiBridge(app, Limits(body=lambda path: 100, commanders=2, waiting=4), lambda status: None)
    waiting: list[asyncio.Task[int]] = []
    async with asyncio.timeout(10):
        for count in range(3, 100, 3):
            waiting += [asyncio.create_task(ask(bridge, "POST", "/api/v1/device_ctrl")) for _ in range(3)]
            while app.inside < count:  # noqa: ASYNC110 - threads tell nobody
                await asyncio.sleep(0.001)
    assert await ask(bridge, "GET") == 204
    gone = waiting.pop(0)
    gone.cancel()
    await asyncio.wait([gone])
    assert app.left == 1
    for each in [each for found in app.waiters._waiting.values() for each in found]:
        app.waiters.until(each, lambda: True)
    async with asyncio.timeout(10):
        assert set(await asyncio.gather(*waiting)) == {200}
    assert app.left == len(waiting) + 1
    assert bridge.close(5)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://plc:5000/api/v1/devices", "/api/v1/devices"),
        ("HTTPS://plc/a%2Fb", "/a/b"),
        ("http://plc", "/"),
        ("/http://plc/x", "/http://plc/x"),
    ],
)
async def test_a_whole_url_as_target_was_404(target: str, path: str) -> None:
    """RFC 9112, 3.2.2: a server must accept it; proxies' clients send it."""
    seen: list[str] = []
    asked: list[str] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        seen.append(environ["PATH_INFO"])
        start_response("204 No Content", [])
        return []

    def limit(path: str) -> int:
        asked.append(path)
        return 100

    bridge = WsgiBridge(app, Limits(body=limit), lambda status: None)
    assert await ask(bridge, "GET", target) == 204
    assert seen == [path]
    assert set(asked) == {path}
    assert bridge.close(5)

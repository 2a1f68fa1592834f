"""Row H1: slow, large and many clients of the REST server, with no proxy in front of it.

Asked all the while: a normal client, whose 99th percentile stays below one second.
"""

import contextlib
import http.client
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rest import BOILER, Server, ask, rest_server

pytestmark = pytest.mark.alone

P99_LIMIT_S = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("h1")
    with rest_server(folder) as running:
        assert running.ask("POST", "/api/v1/devices", BOILER).status == 201
        yield running


class Bystander:
    """A normal client in a thread of its own; its slowest answers tell how others are served."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.durations_s: list[float] = []
        self.statuses: set[int] = set()

    def _run(self) -> None:
        connection = self._server.connection()
        while not self._stop.is_set():
            begun = time.monotonic()
            self.statuses.add(ask(connection, "GET", "/api/v1/devices").status)
            self.durations_s.append(time.monotonic() - begun)
            time.sleep(0.005)
        connection.close()

    def __enter__(self) -> "Bystander":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def check(self, least: int = 50) -> None:
        assert self.statuses == {200}
        assert len(self.durations_s) >= least
        p99 = sorted(self.durations_s)[int(len(self.durations_s) * 0.99)]
        assert p99 < P99_LIMIT_S, f"p99 {p99:.3f} s of {len(self.durations_s)} requests"


@contextlib.contextmanager
def connections(port: int, number: int) -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    try:
        for _ in range(number):
            opened.append(socket.create_connection(("127.0.0.1", port), 10))
        yield opened
    finally:
        for each in opened:
            each.close()


def status_of(connection: socket.socket) -> int:
    """The status of an answer, 0 when the connection was just closed."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        response.read()
    except (ConnectionError, http.client.BadStatusLine):
        return 0
    return response.status


def refused(server: Server) -> Counter[int]:
    """How many requests /metrics says were refused before the application saw them, by status."""
    metrics = server.ask("GET", "/metrics").body.decode()
    rows = re.findall(r'^tagwire_http_refused_total{status="(\d+)"} (\S+)', metrics, re.MULTILINE)
    return Counter({int(status): int(float(number)) for status, number in rows})


def test_200_slow_heads_delay_nobody_and_end_with_408(server: Server) -> None:
    before = refused(server)
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "
    with Bystander(server) as bystander, connections(server.port, 200) as slow:
        for each in slow:
            each.sendall(head)
        begun = time.monotonic()
        # One byte a second each, as slowloris does: data keeps coming, the head is never complete.
        while time.monotonic() - begun < 9:
            for each in slow:
                each.sendall(b"a")
            time.sleep(1)
        assert {status_of(each) for each in slow} == {408}
        assert time.monotonic() - begun < 20
    bystander.check()
    assert refused(server)[408] - before[408] == 200


def test_200_slow_bodies_delay_nobody(server: Server) -> None:
    head = (
        b"POST /api/v1/devices HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{"
    )
    with Bystander(server) as bystander, connections(server.port, 200) as slow:
        for each in slow:
            each.sendall(head)
        for _ in range(2):
            time.sleep(1)
            for each in slow:
                each.sendall(b" ")
    bystander.check()


def test_1000_idle_keep_alive_connections_are_served(server: Server) -> None:
    with Bystander(server) as bystander, connections(server.port, 1000) as idle:
        for start in (*range(0, 1000, 50), *range(0, 1000, 50)):
            for each in idle[start : start + 50]:
                each.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert {status_of(each) for each in idle[start : start + 50]} == {200}
    bystander.check(least=10)


def test_1000_requests_at_once_are_answered_or_refused_with_503(server: Server) -> None:
    before = refused(server)
    with connections(server.port, 1000) as burst:
        for each in burst:
            each.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        statuses = [status_of(each) for each in burst]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 400
    assert refused(server)[503] - before[503] == statuses.count(503)
    assert server.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize("length", [10_000_000, 10**14])
def test_body_too_long_is_413_before_it_is_read(server: Server, length: int) -> None:
    before = refused(server)
    with Bystander(server) as bystander, connections(server.port, 1) as (client,):
        client.sendall(
            b"POST /api/v1/devices HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % length
        )
        assert status_of(client) == 413
        time.sleep(0.1)
    bystander.check(least=5)
    assert refused(server)[413] - before[413] == 1


@pytest.mark.parametrize("length", [9_000_000, 10_000_000, 40_000_000])
def test_body_too_long_sent_whole_is_413(server: Server, length: int) -> None:
    """This client reads nothing before it has sent everything: a reset would take the answer from it."""
    connection = server.connection()
    assert ask(connection, "POST", "/api/v1/devices", b" " * length).status == 413
    connection.close()
    assert server.ask("GET", "/healthz").status == 200


def test_chunked_body_too_long_is_413(server: Server) -> None:
    before = refused(server)
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with connections(server.port, 1) as (client,):
        client.sendall(
            b"POST /api/v1/devices HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(10):
            client.sendall(chunk)
        assert status_of(client) == 413
    assert refused(server)[413] - before[413] == 1
    assert server.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize(("piece", "pause_s"), [(1024 * 1024, 0.0), (1, 0.1)])
def test_a_client_that_is_refused_and_never_stops_is_cut_off(server: Server, piece: int, pause_s: float) -> None:
    sent, begun = 0, time.monotonic()
    with Bystander(server) as bystander, connections(server.port, 1) as (client,):
        client.sendall(
            b"POST /api/v1/devices HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100000000000000\r\n\r\n"
        )
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begun < 15:
                sent += client.send(b" " * piece)
                time.sleep(pause_s)
    assert time.monotonic() - begun < 10
    assert sent < 200_000_000
    bystander.check(least=1)


@pytest.mark.parametrize(("number", "size"), [(10_000, 1), (200, 10), (1, 100_000)])
def test_too_many_or_too_long_header_fields_are_431(server: Server, number: int, size: int) -> None:
    before = refused(server)
    fields = b"".join(b"X-%d: %s\r\n" % (index, b"a" * size) for index in range(number))
    with Bystander(server) as bystander, connections(server.port, 1) as (client,):
        with contextlib.suppress(ConnectionError):
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")
        assert status_of(client) == 431
        time.sleep(0.1)
    bystander.check(least=5)
    assert refused(server)[431] - before[431] == 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"* * *\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_as_a_problem(server: Server, request_bytes: bytes) -> None:
    before = refused(server)
    with connections(server.port, 1) as (client,):
        client.sendall(request_bytes + b"\r\n\r\n")
        received = b""
        while chunk := client.recv(4096):
            received += chunk
    status = int(received.split(b" ", 2)[1])
    assert 400 <= status < 500 or status == 501
    assert refused(server) - before == Counter({status: 1})
    assert b"application/problem+json" in received
    assert server.ask("GET", "/healthz").status == 200


def test_clients_that_leave_in_the_middle_cost_nothing(server: Server) -> None:
    for cut in range(1, 120, 7):
        with connections(server.port, 1) as (client,):
            head = b"POST /api/v1/devices HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
            client.sendall(head[:cut])
    assert server.ask("GET", "/readyz").status == 200
    assert "Traceback" not in server.process.output

"""The REST server, through HTTP: bulk creation, one page of a long list, start; beside the same done the usual way."""

import http.client
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bench.configuration import tag_documents
from bench.table import Row, at_most
from tests.support.processes import clean_environment, free_port, start
from tests.support.rest import Server, ask, rest_server

MIB = 2**20
PAGES = (
    "?page_size=100",
    "?page_size=100&page={last}",
    "?page_size=100&sort=-name",
    "?page_size=100&device=d1&sort=name",
)
SLOW_CLIENTS = 200


def run(quick: bool) -> list[Row]:
    """Rows {"figure", "ours", "peers", "unit", "target", "met"}; `quick` takes a tenth of the tags."""
    bulk, devices, rounds = (1_000, 9, 20) if quick else (10_000, 9, 50)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.perf_counter()
        with rest_server(folder) as server, closing(server.connection(60)) as client:
            started = time.perf_counter() - begun
            body = json.dumps(tag_documents(bulk)).encode()
            creations = [_bulk(client, f"d{number}", body) for number in range(devices + 1)]
            single = _one_by_one(client, 100) * bulk
            total = ask(client, "GET", "/api/v1/tags?page_size=1").json["total"]
            pages = _p95(client, "/api/v1/tags", total, rounds)
            slow = _beside_slow_clients(server)
        with _usual(folder) as port, closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
            usual = _p95(client, "/tags", total, rounds)
        again = time.perf_counter()
        with rest_server(folder):
            restarted = time.perf_counter() - again
    target = 3.0 * bulk / 10_000
    return [
        at_most(
            f"{bulk} tags created in one request", statistics.median(creations), "s", target, {"one POST a tag": single}
        ),
        at_most(f"page of 100 out of {total} tags, p95", pages * 1e3, "ms", 20.0, {"ORM and marshmallow": usual * 1e3}),
        at_most(f"p99 of others beside {SLOW_CLIENTS} slow heads", slow * 1e3, "ms", 1_000.0, {}),
        at_most("start until ready, new database", started, "s", 3.0, {}),
        at_most("start until ready", restarted, "s", 3.0, {}),
    ]


def _device(client: http.client.HTTPConnection, name: str) -> None:
    document = {"name": name, "network": {"mqtt": {}, "modbus": {"host": "127.0.0.1"}}}
    assert ask(client, "POST", "/api/v1/devices", document).status == 201


def _bulk(client: http.client.HTTPConnection, name: str, body: bytes) -> float:
    _device(client, name)
    headers = {"Content-Type": "application/json"}
    return _timed(lambda: ask(client, "POST", f"/api/v1/devices/{name}/tags", body, headers), 201)


def _one_by_one(client: http.client.HTTPConnection, count: int) -> float:
    """Seconds for one tag."""
    _device(client, "single")
    tags = tag_documents(count)
    return (
        sum(_timed(lambda tag=tag: ask(client, "POST", "/api/v1/devices/single/tags", tag), 201) for tag in tags)
        / count
    )


def _p95(client: http.client.HTTPConnection, path: str, total: int, rounds: int) -> float:
    urls = [path + page.format(last=total // 100) for page in PAGES]
    times = [_timed(lambda url=url: ask(client, "GET", url), 200) for _ in range(rounds) for url in urls]
    return sorted(times)[int(len(times) * 0.95)]


def _timed(work: Callable[[], Any], status: int) -> float:
    begun = time.perf_counter()
    answer = work()
    seconds = time.perf_counter() - begun
    assert answer.status == status, answer
    return seconds


def _beside_slow_clients(server: Server) -> float:
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(SLOW_CLIENTS)]
    try:
        for each in slow:
            each.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        with closing(server.connection()) as client:
            times = [_timed(lambda: ask(client, "GET", "/api/v1/devices"), 200) for _ in range(300)]
    finally:
        for each in slow:
            each.close()
    return sorted(times)[int(len(times) * 0.99)]


@contextmanager
def _usual(folder: Path) -> Iterator[int]:
    """The peer in bench/peers/orm_rest.py on the same database, served by the same server; its port."""
    port = free_port()
    command = [sys.executable, "-m", "bench.peers.orm_rest", f"sqlite:///{folder}/db.sqlite", str(port)]
    with start(command, clean_environment()) as process:
        process.wait_ready()
        yield port

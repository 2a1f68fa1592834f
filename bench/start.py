"""How long `tagwire up` takes until everything answers: REST, Modbus and MQTT, each asked by its own protocol."""

import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from bench.table import Row
from tests.support.processes import clean_environment, free_port, start

LIMIT_S = 3.0
_READ_ONE_REGISTER = bytes.fromhex("000100000006010300000001")
_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05bench"


def run(quick: bool) -> list[Row]:
    """Starts on a database that is there already; the best of three, since it shares the machine with whatever else runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _start(folder)  # the first one makes the tables
        ours_s = min(_start(folder) for _ in range(1 if quick else 3))
    return [
        {
            "figure": "start: everything answers",
            "ours": ours_s,
            "peers": {"python that only imports flask, sqlalchemy, paho and pymodbus": _imports_s()},
            "unit": "s",
            "target": f"<= {LIMIT_S:g} s",
            "met": ours_s <= LIMIT_S,
        }
    ]


def _start(folder: Path) -> float:
    rest, modbus, mqtt = free_port(), free_port(), free_port()
    env = clean_environment(
        TAGWIRE_DATA_DIR=folder / "data",
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{folder}/db.sqlite",
        FLASK_APP_PORT=rest,
        MODBUS_SERVER_PORT=modbus,
        MQTT_PORT=mqtt,
    )
    since = time.perf_counter()
    with start([sys.executable, "-m", "tagwire", "up"], env):
        for answers in (
            lambda: _asks(mqtt, _CONNECT, b"\x20\x02"),
            lambda: _asks(modbus, _READ_ONE_REGISTER, b"\x00\x01\x00\x00\x00\x05\x01\x03"),
            lambda: _is_ready(rest),
        ):
            _wait(answers)
        return time.perf_counter() - since


def _wait(answers: Callable[[], bool]) -> None:
    deadline = time.perf_counter() + 30
    while not answers():
        if time.perf_counter() > deadline:
            raise TimeoutError("not started within 30 s")
        time.sleep(0.01)


def _asks(port: int, question: bytes, wanted: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(question)
            return connection.recv(64).startswith(wanted)
    except OSError:
        return False


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _imports_s() -> float:
    since = time.perf_counter()
    script = "import flask, sqlalchemy.orm, paho.mqtt.client, pymodbus.client"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    return time.perf_counter() - since

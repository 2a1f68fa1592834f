"""The REST application for tests: in this process, or as a program of its own asked with the standard library's HTTP client."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask

from flask_app.app import create_app
from flask_app.settings import Settings
from tests.support.processes import Process, free_port, start_program

MIB = 1024 * 1024
# The contract that README, demo and tests share.
BOILER: dict[str, Any] = {
    "name": "boiler",
    "network": {"mqtt": {"topic": "plant/boiler"}, "modbus": {"host": "127.0.0.1", "port": 8502}},
    "tags": [
        {
            "name": "temperature",
            "data_type": "float",
            "unit": "°C",
            "bindings": [
                {"protocol": "mqtt", "direction": "in", "address": {"path": "temperature"}},
                {
                    "protocol": "modbus",
                    "direction": "out",
                    "address": {
                        "unit_id": 1,
                        "table": "holding_register",
                        "register": 10,
                        "type": "float32",
                        "order": "ABCD",
                    },
                },
            ],
        }
    ],
}

INOUT: dict[str, Any] = {"protocol": "modbus", "direction": "inout"}
LEVEL: dict[str, Any] = {"register": 20, "type": "float32"}
# Tags to set and to read, of every kind.
TANK: dict[str, Any] = {
    "name": "tank",
    "network": {"mqtt": {}, "modbus": {"host": "127.0.0.1", "port": 9}},
    "tags": [
        {"name": "level", "limits": {"low": 0, "high": 100}, "bindings": [{**INOUT, "address": LEVEL}]},
        {"name": "pump", "data_type": "bool", "bindings": [{**INOUT, "address": {"register": 3, "table": "coil"}}]},
        {"name": "sensor", "bindings": [{"protocol": "mqtt", "direction": "in", "address": {"path": "a"}}]},
        {"name": "lamp", "bindings": [{"protocol": "mqtt", "direction": "out", "address": {"path": "lamp"}}]},
        {"name": "loose"},
        {
            "name": "speed",
            "data_type": "int",
            "bindings": [
                {
                    **INOUT,
                    "address": {"register": 1, "type": "int16"},
                    "limits": {"low": -500, "high": 500, "action": "clamp"},
                }
            ],
        },
    ],
}


def settings(folder: Path, **changes: Any) -> Settings:
    """Settings with a new database in `folder`."""
    values = {
        "host": "127.0.0.1",
        "port": 5000,
        "database_uri": f"sqlite:///{folder}/db.sqlite",
        "max_body": 8 * MIB,
        "max_import": 32 * MIB,
        "threads": 8,
    }
    return Settings(**values | changes)


def application(folder: Path, **changes: Any) -> Flask:
    """The application on a new database in `folder`."""
    return create_app(settings(folder, **changes))


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, read to its end. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Server:
    """A running `python -m flask_app`."""

    process: Process
    port: int

    def connection(self, timeout_s: float = 10.0) -> http.client.HTTPConnection:
        """A new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request over a connection of its own; a body that is no bytes goes as JSON."""
        connection = self.connection()
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request over an open connection."""
    sent = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    connection.request(method, path, body, sent)
    response = connection.getresponse()
    found = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, found, response.read())


@contextmanager
def rest_server(folder: Path, **more: Any) -> Iterator[Server]:
    """`python -m flask_app` with a database in `folder`, ready."""
    port = free_port()
    uri = f"sqlite:///{folder}/db.sqlite"
    environment: dict[str, Any] = {"SQLALCHEMY_DATABASE_URI": uri, "FLASK_APP_PORT": port, **more}
    with start_program("flask_app", **environment) as process:
        process.wait_ready()
        yield Server(process, port)

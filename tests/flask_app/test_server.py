"""The programs as a user starts them: `python -m flask_app` and `cd flask_app && flask run`."""

import signal
import socket
import sqlite3
import sys
import threading
import time
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from flask_app.settings import Settings
from tests.support.processes import (
    CHECKOUT,
    Process,
    accepts,
    clean_environment,
    free_port,
    start,
    start_program,
    wait_until,
)
from tests.support.rest import BOILER, ask, rest_server

EXIT_S = 5.0
REFUSAL_S = 3.0


def test_it_serves_says_ready_and_ends_with_0_on_sigterm(tmp_path: Path) -> None:
    with rest_server(tmp_path) as server:
        assert any("REST on http://127.0.0.1" in line for line in server.process.notified)
        idle = server.connection()
        assert ask(idle, "GET", "/healthz").status == 200
        begun = time.monotonic()
        assert server.process.terminate() == 0
        assert time.monotonic() - begun < EXIT_S
        # Closed with FIN: an end of file, no reset.
        assert idle.sock.recv(1) == b""
        assert "Traceback" not in server.process.output


def is_locked(database: Path) -> bool:
    """Whether somebody is writing there."""
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.execute("ROLLBACK")
        return False


def test_what_was_asked_before_sigterm_is_answered(tmp_path: Path) -> None:
    with rest_server(tmp_path) as server:
        assert server.ask("POST", "/api/v1/devices", {**BOILER, "tags": []}).status == 201
        tags = [{"name": f"t{index}"} for index in range(4_000)]
        statuses: list[int] = []
        thread = threading.Thread(
            target=lambda: statuses.append(server.ask("POST", "/api/v1/devices/boiler/tags", tags).status)
        )
        thread.start()
        wait_until(lambda: is_locked(tmp_path / "db.sqlite"), what="they are being stored")
        assert server.process.terminate() == 0
        thread.join()
    # Either it was answered, and is stored, or it never began; here it had begun.
    with rest_server(tmp_path) as server:
        total = server.ask("GET", "/api/v1/tags").json["total"]
        assert (statuses, total) == ([201], 4_000)


def test_a_device_that_is_asked_and_silent_does_not_delay_the_end(tmp_path: Path) -> None:
    with rest_server(tmp_path) as server, socket.create_server(("127.0.0.1", 0)) as silent:
        network = {"modbus": {"host": "127.0.0.1", "port": silent.getsockname()[1], "timeout_s": 60}}
        assert server.ask("POST", "/api/v1/devices", {"name": "silent", "network": network}).status == 201
        asking = server.connection()
        asking.request("GET", "/api/v1/registers?device=silent&register=0")
        silent.accept()
        begun = time.monotonic()
        assert server.process.terminate() == 0
        assert time.monotonic() - begun < EXIT_S


def test_sigint_ends_it_as_well(tmp_path: Path) -> None:
    with rest_server(tmp_path) as server:
        server.process.signal(signal.SIGINT)
        assert server.process.wait(EXIT_S) == 0


@pytest.mark.alone
def test_a_taken_port_is_exit_2_and_the_first_goes_on(tmp_path: Path) -> None:
    with rest_server(tmp_path) as server:
        begun = time.monotonic()
        with start_program("flask_app", FLASK_APP_PORT=server.port) as second:
            assert second.wait(10) == 2
            assert time.monotonic() - begun < REFUSAL_S
            assert f"127.0.0.1:{server.port}" in second.output
        assert server.ask("GET", "/healthz").status == 200


@pytest.mark.alone
def test_wrong_settings_are_exit_2_with_every_fault() -> None:
    begun = time.monotonic()
    wrong = {
        "FLASK_APP_PORT": "70000",
        "FLASK_APP_THREADS": "0",
        "FLASK_APP_MAX_BODY_MB": "x",
        "SQLALCHEMY_DATABASE_URI": "db",
    }
    with start_program("flask_app", **wrong) as process:
        assert process.wait(10) == 2
        assert time.monotonic() - begun < REFUSAL_S
        assert all(name in process.output for name in wrong)
        assert "Traceback" not in process.output


def test_settings_are_what_env_example_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("FLASK_APP_HOST", "FLASK_APP_PORT", "SQLALCHEMY_DATABASE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    default = Settings.from_env()
    (tmp_path / ".env").write_text((CHECKOUT / "flask_app" / ".env.example").read_text())
    assert Settings.from_env() == default
    assert (default.host, default.port) == ("127.0.0.1", 5000)


def test_flask_run_serves_from_its_folder(tmp_path: Path) -> None:
    port = free_port()
    environment = clean_environment(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/db.sqlite", FLASK_SKIP_DOTENV=1)
    environment.pop("PYTHONPATH")
    command = [sys.executable, "-m", "flask", "run", "--port", str(port)]
    with start(command, environment, CHECKOUT / "flask_app") as process:
        wait_until(lambda: accepts(port) or process.popen.poll() is not None, 20, process.output)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            assert b" 200 OK" in connection.recv(100), process.output


def flask_run(*options: str, **settings: str | int | Path) -> AbstractContextManager[Process]:
    environment = clean_environment(FLASK_SKIP_DOTENV=1, **settings)
    environment.pop("PYTHONPATH")
    return start([sys.executable, "-m", "flask", "run", *options], environment, CHECKOUT / "flask_app")


def test_flask_run_with_wrong_settings_on_a_taken_port_is_exit_2_with_every_fault(tmp_path: Path) -> None:
    wrong = {"FLASK_APP_THREADS": "0", "MQTT_KEEPALIVE_S": "0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        begun = time.monotonic()
        with flask_run(**wrong, FLASK_RUN_PORT=port) as process:
            assert process.wait(10) == 2, process.output
            # flask imports the whole application first: 1.2 s on a machine that does nothing else.
            assert time.monotonic() - begun < 2 * REFUSAL_S
    assert process.output.startswith("Cannot start:\n")
    for fault in (*wrong, f"127.0.0.1:{port}: Address already in use"):
        assert process.output.count(fault) == 1
    assert "Traceback" not in process.output


def test_flask_run_on_a_taken_port_is_exit_2(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/db.sqlite"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with flask_run("-p", str(port), SQLALCHEMY_DATABASE_URI=uri) as process:
            assert process.wait(10) == 2
    assert process.output == f"Cannot start:\n  FLASK_RUN_PORT: 127.0.0.1:{port}: Address already in use\n"


def test_flask_run_with_a_reloader_serves_on_the_port_that_its_parent_holds(tmp_path: Path) -> None:
    port = free_port()
    with flask_run("-p", str(port), "--reload", SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/db.sqlite") as process:
        wait_until(lambda: "200 OK" in first_line(port) or process.popen.poll() is not None, 20, process.output)
        assert process.popen.poll() is None, process.output


def first_line(port: int) -> str:
    """What /readyz answers, nothing while nobody does."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            return connection.recv(100).decode()
    except OSError:
        return ""


def test_few_file_descriptors_shed_the_oldest_idle_and_recover(tmp_path: Path) -> None:
    """Row P6: 200 clients and 64 descriptors."""
    port = free_port()
    environment = clean_environment(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/db.sqlite", FLASK_APP_PORT=port)
    command = ["prlimit", "--nofile=64", sys.executable, "-m", "flask_app"]
    with start(command, environment) as process:
        process.wait_ready()
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        time.sleep(0.5)
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.settimeout(2)
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 OK" in connection.recv(100), "not served while the others are connected"
        clients[0].settimeout(2)
        assert clients[0].recv(1) == b""
        for client in clients:
            client.close()
        time.sleep(1)
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.settimeout(2)
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 OK" in connection.recv(100)
        assert process.terminate() == 0
        assert "Traceback" not in process.output


def test_other_names_of_one_header_do_not_mix(tmp_path: Path) -> None:
    with rest_server(tmp_path) as server:
        answer = server.ask(
            "POST", "/api/v1/devices", b"{}", {"Content_Type": "application/json", "Content-Type": "text/plain"}
        )
        assert answer.status == 415

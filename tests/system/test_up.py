"""`tagwire up` with the real programs: everything answers, nothing is left behind, refusals name every fault."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.bus_watch import watch_bus
from tests.support.certificates import Authority
from tests.support.processes import CHECKOUT, Process, accepts, clean_environment, free_port, start, wait_until
from tests.support.programs import need

pytestmark = pytest.mark.system

REFUSAL_S = 3.0


def settings(folder: Path, **more: str | int) -> dict[str, str]:
    return clean_environment(
        TAGWIRE_DATA_DIR=folder / "data",
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{folder}/db.sqlite",
        FLASK_APP_PORT=free_port(),
        MODBUS_SERVER_PORT=free_port(),
        MQTT_PORT=free_port(),
        **more,
    )


@contextmanager
def up(env: dict[str, str], *options: str) -> Iterator[Process]:
    with start([sys.executable, "-m", "tagwire", "up", *options], env) as process:
        yield process


def children(pid: int) -> dict[int, str]:
    """The processes that a process started and that still run: pid to command line."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found[int(child)] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def with_tls(folder: Path) -> dict[str, str | int]:
    """The settings of a Modbus server that also speaks TLS."""
    authority = Authority(folder)
    certificate, key = authority.issue("server")
    return {
        "MODBUS_SERVER_TLS": "true",
        "MODBUS_SERVER_TLS_PORT": free_port(),
        "MODBUS_SERVER_TLS_CERT": str(certificate),
        "MODBUS_SERVER_TLS_KEY": str(key),
        "MODBUS_SERVER_TLS_CA": str(authority.path),
    }


def ready_rows(output: str) -> dict[str, str]:
    """The rows of the table that says where everything listens."""
    _, _, table = output.partition("Tagwire is ready")
    rows = (line.strip().strip("│|").split("│") for line in table.splitlines() if line.count("│") == 3)
    return {row[0].strip(): row[1].strip() for row in rows}


def test_everything_answers_and_ctrl_c_ends_everything(tmp_path: Path) -> None:
    env = settings(tmp_path, **with_tls(tmp_path))
    rest = f"http://127.0.0.1:{env['FLASK_APP_PORT']}"
    with up(env) as process:
        process.wait_ready()
        process.wait_output("Stop")
        assert "\033" not in process.output
        for name in ("FLASK_APP_PORT", "MODBUS_SERVER_PORT", "MODBUS_SERVER_TLS_PORT", "MQTT_PORT"):
            assert accepts(int(env[name])), name
        assert ready_rows(process.output) == {
            "REST API": f"{rest}/api/v1",
            "API reference, try it out": f"{rest}/docs/",
            "Modbus TCP": f"127.0.0.1:{env['MODBUS_SERVER_PORT']}",
            "Modbus TCP with TLS": f"127.0.0.1:{env['MODBUS_SERVER_TLS_PORT']}",
            "MQTT broker (embedded)": f"127.0.0.1:{env['MQTT_PORT']}",
            "Database": f"sqlite:///{tmp_path}/db.sqlite",
            "Data": f"{tmp_path}/data",
            "Stop": "Ctrl-C",
        }
        with urllib.request.urlopen(f"http://127.0.0.1:{env['FLASK_APP_PORT']}/readyz", timeout=5) as answer:
            assert answer.status == 200
        started = children(process.pid)
        assert len(started) == 5
        # As a terminal does it: the signal reaches the foreground group, which is `tagwire up` alone.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(15) == 0
        assert all(map(gone, started))
        assert "killed" not in process.output


def test_sigterm_ends_everything(tmp_path: Path) -> None:
    with up(settings(tmp_path), "--only", "modbus_server,broker") as process:
        process.wait_ready()
        started = children(process.pid)
        assert len(started) == 2
        assert process.terminate(15) == 0
        assert all(map(gone, started))


def test_kill_leaves_no_child_and_the_stale_lock_blocks_nobody(tmp_path: Path) -> None:
    env = settings(tmp_path)
    with up(env) as process:
        process.wait_ready()
        started = children(process.pid)
        assert len(started) == 5
        process.kill()
        wait_until(lambda: all(map(gone, started)), 5, f"the end of {started}")
    with up(env) as process:
        process.wait_ready()


def test_a_killed_program_comes_back(tmp_path: Path) -> None:
    env = settings(tmp_path)
    with up(env) as process:
        process.wait_ready()
        for name in ("modbus_server", "mqtt_server", "field_server", "flask_app", "nats-server"):
            victim = next(pid for pid, command in children(process.pid).items() if name in command)
            os.kill(victim, signal.SIGKILL)
            process.wait_output(f"{'broker' if name == 'nats-server' else name} serves again", 20)
        assert len(children(process.pid)) == 5


def test_started_twice_names_the_holder_and_leaves_it_alone(tmp_path: Path) -> None:
    env = settings(tmp_path)
    with up(env, "--only", "modbus_server") as first:
        first.wait_ready()
        since = time.monotonic()
        with up(env) as second:
            assert second.wait(10) == 2
            assert str(first.pid) in second.output
            assert "running already" in second.output
        assert time.monotonic() - since < 10
        assert first.popen.poll() is None
        assert accepts(int(env["MODBUS_SERVER_PORT"]))


def test_every_port_that_is_taken_is_in_one_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        taken = [one.getsockname()[1], two.getsockname()[1]]
        env = settings(tmp_path) | {"MODBUS_SERVER_PORT": str(taken[0]), "MQTT_PORT": str(taken[1])}
        with up(env) as process:
            assert process.wait(10) == 2
            assert f"127.0.0.1:{taken[0]} (for modbus_server) is in use" in process.output
            assert f"127.0.0.1:{taken[1]} (for broker) is in use" in process.output


def test_faults_of_shared_settings_are_listed_before_anything_starts(tmp_path: Path) -> None:
    env = settings(tmp_path, MQTT_KEEPALIVE_S=0, MQTT_PASSWORD="s3cret", TAGWIRE_BROKER_SYNC_S="x")
    with up(env) as process:
        assert process.wait(10) == 2
        for name in ("MQTT_KEEPALIVE_S", "MQTT_PASSWORD", "TAGWIRE_BROKER_SYNC_S"):
            assert name in process.output
        assert "s3cret" not in process.output
        assert "serve" not in process.output


@pytest.mark.alone
def test_every_fault_of_every_program_and_every_port_is_in_one_message(tmp_path: Path) -> None:
    wrong: dict[str, str | int] = {
        "FLASK_APP_THREADS": 0,
        "FLASK_APP_HOST": "",
        "MODBUS_SERVER_MAX_CONNECTIONS": 0,
        "FIELD_SERVER_FAST_MS": 1,
        "TAGWIRE_SHARD": "9/8",
        "TAGWIRE_BUS_BUFFER_ROWS": 1,
        "TAGWIRE_BROKER_SYNC_S": 0,
        "MQTT_KEEPALIVE_S": 0,
    }
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = {
            "MODBUS_SERVER_TLS_PORT": one.getsockname()[1],
            "MQTT_PORT": two.getsockname()[1],
        }
        env = settings(tmp_path, **wrong, **with_tls(tmp_path)) | {name: str(port) for name, port in ports.items()}
        since = time.monotonic()
        with up(env) as process:
            assert process.wait(15) == 2
        assert time.monotonic() - since < REFUSAL_S
    first, *lines = process.output.splitlines()
    assert first == "Cannot start:"
    # Each once, however many programs read it, and nothing beside them: no program has been started.
    assert sorted(line.strip().partition(":")[0] for line in lines) == sorted([*wrong, *ports])
    for port in ports.values():
        assert f"127.0.0.1:{port} (for " in process.output
    assert not (tmp_path / "db.sqlite").exists()


def test_only_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with up(settings(tmp_path), "--only", "mqtt_server,modbus") as process:
        assert process.wait(10) == 2
        assert "'modbus'" in process.output
        assert "modbus_server" in process.output


def test_a_broker_of_the_operators_own_is_used(tmp_path: Path) -> None:
    # Nobody listens there: the gateway serves all the same.
    env = settings(tmp_path, MQTT_HOST="127.0.0.1")
    with up(env, "--only", "mqtt_server") as process:
        process.wait_ready()
        assert len(children(process.pid)) == 1
        assert not accepts(int(env["MQTT_PORT"]))


def messages_per_s(port: int, topics: str, duration_s: float) -> dict[str, float]:
    """How often something is published under each topic."""
    with watch_bus(port, topics) as watch:
        since = time.monotonic()
        time.sleep(duration_s)
        heard, took_s = list(watch.others), time.monotonic() - since
    return {topic: number / took_s for topic, number in Counter(topic for topic, *_ in heard).items()}


@pytest.mark.parametrize(
    ("setting", "command"), [("", "tagwire up"), ("DEMO=1", "tagwire up --demo"), ("DEMO=0", "tagwire up")]
)
def test_make_run_takes_the_demo_along_when_asked(setting: str, command: str) -> None:
    done = subprocess.run(
        [need("make"), "--no-print-directory", "-n", "run", *setting.split()],
        cwd=CHECKOUT,
        env={name: value for name, value in clean_environment().items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.rstrip().endswith(f"-m {command}")


def test_demo_moves_registers_and_starts_again_on_its_own_configuration(tmp_path: Path) -> None:
    env = settings(tmp_path)
    read = [sys.executable, "-m", "tagwire", "registers", "read", "1000", "--type", "float32", "--json"]

    def level() -> float:
        with start(read, env) as process:
            process.wait(20)
            return float(json.loads(process.output)[0].get("value", 0))

    for _ in range(2):
        with up(env, "--demo") as process:
            process.wait_ready()
            wait_until(lambda: 20 < level() < 100, 15, "the tank's level in its register")
            rates = messages_per_s(int(env["MQTT_PORT"]), "demo/#", 3.0)
            assert len(rates) == 20
            assert all(1.3 < rate < 2.7 for rate in rates.values()), rates
            with urllib.request.urlopen(
                f"http://127.0.0.1:{env['FLASK_APP_PORT']}/api/v1/devices", timeout=5
            ) as answer:
                assert json.load(answer)["total"] == 20
            with urllib.request.urlopen(
                f"http://127.0.0.1:{env['FLASK_APP_PORT']}/api/v1/rejects", timeout=5
            ) as answer:
                assert json.load(answer)["total"] == 0
            assert process.terminate(15) == 0

"""The README's own commands, run as they stand there against the real programs; only the ports differ."""

import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.processes import (
    CHECKOUT,
    READY_TIMEOUT_S,
    accepts,
    clean_environment,
    free_port,
    start,
    wait_until,
)
from tests.support.programs import need

pytestmark = pytest.mark.system

_BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README = (CHECKOUT / "README.md").read_text()
PORTS = {"FLASK_APP_PORT": "5000", "MODBUS_SERVER_PORT": "8502", "MQTT_PORT": "1883"}
# A reader needs longer than this between two commands; the gateway takes a changed configuration within a second.
READING_S = 2.0


def section(title: str) -> str:
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def blocks(text: str) -> list[tuple[str, str]]:
    """Commands with what they must print ("" for nothing), in order."""
    found: list[tuple[str, str]] = []
    for kind, content in _BLOCK.findall(text):
        if kind == "sh":
            found.append((content, ""))
        else:
            found[-1] = (found[-1][0], content)
    return found


def matches(printed: str, wanted: str) -> bool:
    """Whether it is what the README shows; `...` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in wanted.strip().split("..."))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


class Reader:
    """Somebody who types the README's commands into one shell."""

    def __init__(self, folder: Path) -> None:
        self.ports = {name: free_port() for name in PORTS}
        self.env = clean_environment(
            TAGWIRE_DATA_DIR=folder / "data", SQLALCHEMY_DATABASE_URI=f"sqlite:///{folder}/db.sqlite", **self.ports
        )
        self.folder = folder

    def type(self, command: str) -> str:
        for name, default in PORTS.items():
            command = re.sub(rf"\b{default}\b", str(self.ports[name]), command)
        # A checkout that `make` has not set up has no `tagwire` in its bin folder.
        shell = f'export PATH="{self.folder}/bin:$PATH"; set -e\n{command}'
        done = subprocess.run(
            ["bash", "-c", shell], env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    need("curl")
    (tmp_path / "bin").mkdir()
    for name, module in (("tagwire", "tagwire"), ("flask", "flask")):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        program.chmod(0o755)
    (tmp_path / "bin" / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin" / "python3").chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    return Reader(tmp_path)


def test_the_walk_through(reader: Reader) -> None:
    steps = blocks(section("Try it")) + blocks(section("Devices that are asked"))
    assert len(steps) >= 9
    with start([sys.executable, "-m", "tagwire", "up"], reader.env) as process:
        process.wait_ready()
        for command, wanted in steps:
            # What a command causes is there when the next one is typed, which a machine would do too fast.
            printed = "".join(reader.type(f"{each}\nsleep {pause_s(each)}") for each in split(command))
            assert matches(printed, wanted), f"{command}\nprinted\n{printed}\ninstead of\n{wanted}\n{process.output}"


def pause_s(command: str) -> float:
    return READING_S if command.startswith("curl") else 0.3


def split(commands: str) -> list[str]:
    """The commands of a block, one for each line that does not stand inside quotes."""
    found: list[str] = []
    for line in commands.splitlines():
        if found and found[-1].count("'") % 2:
            found[-1] += f"\n{line}"
        else:
            found.append(line)
    return found


def test_what_counts_as_the_same_output() -> None:
    assert matches('{"id":7,"name":"boiler","x":1}\n', '{"id":...,"name":"boiler",...}')
    assert not matches('{"id":7,"name":"pump"}', '{"id":...,"name":"boiler",...}')
    assert not matches("10 71.5 ", "10 71")


def test_the_three_shells_in_any_order(reader: Reader, mosquitto: Broker) -> None:
    commands = [command for command, _ in blocks(section("Three shells"))]
    assert len(commands) == 3
    for name in (
        "flask_app", "modbus_server", "mqtt_server", "field_server", "links", "scada", "storage", "drivers", "tagwire",
    ):  # fmt: skip
        shutil.copytree(
            CHECKOUT / name,
            reader.folder / name,
            ignore=shutil.ignore_patterns("__pycache__", "instance", ".env"),
        )
    reader.ports["MQTT_PORT"] = mosquitto.port
    reader.env["MQTT_PORT"] = str(mosquitto.port)
    env = {name: value for name, value in reader.env.items() if name not in PORTS and name != "PYTHONPATH"}
    # The last mile of PORTS: `.env` is copied from the example, so the ports come from the environment, which wins.
    env |= {name: str(port) for name, port in reader.ports.items()} | {
        "FLASK_RUN_PORT": str(reader.ports["FLASK_APP_PORT"])
    }
    env["PATH"] = f"{reader.folder}/bin:{env['PATH']}"
    with ExitStack() as shells:
        running = {}
        for command in reversed(commands):
            name = re.search(r"cd (\w+)", command)
            assert name is not None
            running[name[1]] = shells.enter_context(start(["bash", "-c", command], env, reader.folder))
        running["mqtt_server"].wait_ready()
        running["modbus_server"].wait_ready()
        wait_until(lambda: accepts(reader.ports["FLASK_APP_PORT"]), READY_TIMEOUT_S, running["flask_app"].output)
        for command, wanted in blocks(section("Try it"))[1:4]:
            printed = reader.type(f"{command}\nsleep {pause_s(command)}")
            assert matches(printed, wanted), "\n".join([printed, *(each.output for each in running.values())])
        for process in running.values():
            process.signal(2)

"""A small plant that runs, for `tagwire doctor` to look at: programs, broker, and a device of each kind."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyModbusTCP.server import ModbusServer

from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate
from tests.support.brokers import Broker, start_mosquitto
from tests.support.processes import Process, clean_environment, free_port, start_program, wait_until

TAGWIRE = [sys.executable, "-m", "tagwire"]
PROGRAMS = ("flask_app", "modbus_server", "mqtt_server", "field_server")


@dataclass(frozen=True, slots=True)
class Plant:
    """A small plant that runs. `settings` are those of all its programs."""

    folder: Path
    settings: dict[str, Any]
    broker: Broker
    store: ConfigStore
    programs: dict[str, Process]

    def run(self, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*TAGWIRE, *arguments],
            env=clean_environment(**(self.settings | settings)),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def doctor(self, listen_s: float = 0, **settings: Any) -> list[dict[str, str]]:
        """What is not ok."""
        done = self.run("doctor", "--json", "--listen", str(listen_s), **settings)
        assert done.returncode in (0, 1), done.stderr
        found: list[dict[str, str]] = json.loads(done.stdout)
        assert done.returncode == any(each["level"] == "fault" for each in found)
        assert done.stderr == ""
        return [each for each in found if each["level"] != "ok"]

    @contextmanager
    def device(self, name: str, document: dict[str, Any]) -> Iterator[None]:
        """A device more, until the block ends."""
        made = self.store.create_device({"name": name, **document})
        try:
            yield
        finally:
            self.store.delete_device(made["id"])
            wait_until(lambda: name not in self.run("console", "links").stdout, 10, "its link is withdrawn")


def modbus(port: int, register: int = 0, direction: str = "in", unit_id: int = 1, **network: Any) -> dict[str, Any]:
    address = {"register": register, "unit_id": unit_id}
    binding = {"protocol": "modbus", "direction": direction, "address": address, "period_ms": 200}
    where = {"host": "127.0.0.1", "port": port, "timeout_s": 0.3, "connect_timeout_s": 0.5, "retries": 0}
    return {"network": {"modbus": where | network}, "tags": [{"name": "x", "data_type": "int", "bindings": [binding]}]}


@contextmanager
def doctor_plant(folder: Path) -> Iterator[Plant]:
    """A plant in which everything is as it should be, until the block ends."""
    uri = f"sqlite:///{folder}/plant.sqlite"
    engine = open_engine(uri)
    migrate(engine)
    store = ConfigStore(engine)
    plc = ModbusServer("127.0.0.1", free_port(), no_block=True)
    plc.start()
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        stack.callback(plc.stop)
        broker = stack.enter_context(start_mosquitto(folder / "mosquitto"))
        settings = {
            "MQTT_HOST": "127.0.0.1",
            "MQTT_PORT": broker.port,
            "FLASK_APP_PORT": free_port(),
            "MODBUS_SERVER_PORT": free_port(),
            "SQLALCHEMY_DATABASE_URI": uri,
            "TAGWIRE_DATA_DIR": folder / "data",
        }
        source = {"protocol": "mqtt", "direction": "in", "address": {"path": "t"}}
        sink = {"protocol": "modbus", "direction": "out", "address": {"register": 10}}
        store.create_device(
            {
                "name": "sensor",
                "network": {
                    "mqtt": {"topic": "plant/sensor"},
                    "modbus": {"host": "127.0.0.1", "port": settings["MODBUS_SERVER_PORT"]},
                },
                "tags": [{"name": "t", "data_type": "int", "bindings": [source, sink]}],
            }
        )
        store.create_device({"name": "plc", **modbus(plc.port, timeout_s=2.0)})
        point = {"protocol": "simulated", "direction": "in", "address": {"point": "level"}}
        store.create_device(
            {
                "name": "tank",
                "network": {"simulated": {"model": "tank"}},
                "tags": [{"name": "level", "bindings": [point]}],
            }
        )
        programs = {name: stack.enter_context(start_program(name, **settings)) for name in PROGRAMS}
        for program in programs.values():
            program.wait_ready()
        found = Plant(folder, settings, broker, store, programs)
        wait_until(lambda: "mqtt_server\tonline" in found.run("console", "servers").stdout, 20)
        time.sleep(0.5)
        found.run("publish", "plant/sensor", '{"t": 7}')
        names = ["sensor@t", "plc@x", "tank@level"]
        wait_until(lambda: found.run("console", "get", *names).returncode == 0, 20, "every tag has a value")
        wait_until(lambda: found.run("console", "links", "plc").stdout.count("online"), 20)
        yield found


def only(found: list[dict[str, str]], check: str, where: str, message: str, level: str = "fault") -> dict[str, str]:
    """The one finding, which says this."""
    assert len(found) == 1, found
    assert (found[0]["check"], found[0]["level"]) == (check, level), found
    assert where in found[0]["where"], found
    assert message in found[0]["message"], found
    return found[0]


@contextmanager
def fault_device(mode: str, argument: float = 0) -> Iterator[int]:
    """A Modbus device that misbehaves, in a process of its own; its port."""
    command = [sys.executable, "-m", "tests.support.fault_device", "--mode", mode, "--argument", str(argument)]
    with subprocess.Popen(
        command, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().split()[1])
        finally:
            process.kill()


@contextmanager
def forgotten(plant: Plant, table: str, topic: str, payload: str) -> Iterator[None]:
    """What a test leaves in a table and at the broker is taken away, however it ends."""
    try:
        yield
    finally:
        plant.run("publish", "--retain", topic, payload)
        with plant.store.engine.begin() as connection:
            connection.exec_driver_sql(f"DELETE FROM {table}")

"""`tagwire doctor` beside a running plant, with faults planted one at a time: each is named, and nothing else is."""

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from pyModbusTCP.server import ModbusServer

from scada.bus_batches import Batch
from storage.bus_buffer import BusBuffer
from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate
from storage.outbox import Outbox
from tagwire.doctor_database import open_checked
from tagwire.doctor_settings import check_data_dir
from tests.support.brokers import Broker, start_mosquitto
from tests.support.processes import Process, clean_environment, free_port, start, start_program, wait_until

pytestmark = pytest.mark.system
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


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("plant")
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
        store.create_device({"name": "plc", **modbus(plc.port)})
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
    command = [sys.executable, "-m", "tests.support.fault_device", "--mode", mode, "--argument", str(argument)]
    with subprocess.Popen(
        command, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().split()[1])
        finally:
            process.kill()


def test_a_healthy_plant(plant: Plant) -> None:
    assert plant.doctor(listen_s=3.5) == []
    done = plant.run("doctor", "--listen", "0")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("0 faults, 0 warnings")
    assert all(line.startswith("ok  ") for line in lines[:-1])


def test_it_changes_nothing(plant: Plant) -> None:
    def seen() -> tuple[str, ...]:
        kinds = ("servers", "links")
        return (
            *sorted(path.name for path in plant.folder.iterdir()),
            *(plant.run("console", kind).stdout for kind in kinds),
        )

    before, revision = seen(), plant.store.revision()
    plant.doctor()
    assert seen() == before
    assert plant.store.revision() == revision


def test_wrong_usage_is_exit_code_2(plant: Plant) -> None:
    assert plant.run("doctor", "--frob").returncode == 2


def test_nothing_runs(tmp_path: Path) -> None:
    settings = {name: free_port() for name in ("MQTT_PORT", "FLASK_APP_PORT", "MODBUS_SERVER_PORT")}
    env = clean_environment(
        TAGWIRE_DATA_DIR=tmp_path / "data", SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/db.sqlite", **settings
    )
    done = subprocess.run(
        [*TAGWIRE, "doctor"], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "FAULT    broker     127.0.0.1:" in done.stdout
    assert "1 faults, 3 warnings" in done.stdout
    assert list(tmp_path.iterdir()) == [], "it made something"


def test_settings_of_every_program(plant: Plant) -> None:
    wrong = {"MQTT_KEEPALIVE_S": "0", "FIELD_SERVER_FAST_MS": "1", "FLASK_APP_THREADS": "many", "TAGWIRE_SHARD": "3/2"}
    found = plant.doctor(**wrong)
    assert sorted(each["where"] for each in found) == sorted(wrong)
    assert {each["check"] for each in found} == {"settings"}
    by_name = {each["where"]: each["message"] for each in found}
    assert "(for field_server)" in by_name["FIELD_SERVER_FAST_MS"]
    assert "(for flask_app)" in by_name["FLASK_APP_THREADS"]


def test_the_data_folder_is_a_file(plant: Plant) -> None:
    (plant.folder / "occupied").write_text("")
    only(plant.doctor(TAGWIRE_DATA_DIR=plant.folder / "occupied"), "data", "occupied", "is no folder")
    (plant.folder / "occupied").unlink()


def test_nobody_is_where_the_broker_should_be(plant: Plant) -> None:
    port = free_port()
    found = plant.doctor(MQTT_PORT=port)
    only(found, "broker", f"127.0.0.1:{port}", "nobody listens there")


def test_what_listens_is_no_broker(plant: Plant) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = plant.doctor(MQTT_PORT=silent.getsockname()[1])
    only(found, "broker", "127.0.0.1", "no answer (CONNACK)")


def test_a_wrong_password(plant: Plant, tmp_path: Path) -> None:
    conf = "listener {port} 127.0.0.1\nallow_anonymous false\n"
    with start_mosquitto(tmp_path, conf) as broker:
        found = plant.doctor(MQTT_PORT=broker.port, MQTT_USERNAME="tagwire", MQTT_PASSWORD="guess")
    finding = only(found, "broker", f"127.0.0.1:{broker.port}", "Not authorized")
    assert "user 'tagwire'" in finding["advice"]
    assert "guess" not in json.dumps(found)


def test_a_broker_that_may_not_be_used(plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic readwrite plant/#\n")
    (tmp_path / "acl").chmod(0o600)
    conf = "listener {port} 127.0.0.1\nallow_anonymous true\nacl_file {folder}/acl\n"
    with start_mosquitto(tmp_path, conf) as broker:
        found = plant.doctor(MQTT_PORT=broker.port)
    assert "tagwire/#" in only(found, "broker", "127.0.0.1", "does not come back")["advice"]


def test_a_broker_with_a_narrow_window(plant: Plant, tmp_path: Path) -> None:
    conf = "listener {port} 127.0.0.1\nallow_anonymous true\n"
    with start_mosquitto(tmp_path, conf) as broker:
        found = plant.doctor(MQTT_PORT=broker.port)
    narrow = [each for each in found if each["check"] == "broker"]
    only(narrow, "broker", "max_inflight", "only 20 messages", "warning")
    # No program has ever been on this one.
    assert {each["where"] for each in found if each["level"] == "fault"} == {"field_server", "mqtt_server"}


@contextmanager
def forgotten(plant: Plant, table: str, topic: str, payload: str) -> Iterator[None]:
    """What a test leaves in a table and at the broker is taken away, however it ends."""
    try:
        yield
    finally:
        plant.run("publish", "--retain", topic, payload)
        with plant.store.engine.begin() as connection:
            connection.exec_driver_sql(f"DELETE FROM {table}")


def test_a_retained_command_and_how_to_clear_it(plant: Plant) -> None:
    with forgotten(plant, "command_step", "tagwire/set/plc", ""):
        plant.run("publish", "--retain", "tagwire/set/plc", '{"tag": "x", "value": 1}')
        wait_until(lambda: len(plant.doctor()) == 2, 30, "it was also a command that failed")
        found = plant.doctor()
        faults = [each for each in found if each["level"] == "fault"]
        finding = only(faults, "commands", "tagwire/set/plc", "retained command")
        failed = [each for each in found if each["level"] == "warning"]
        only(failed, "commands", "plc@x", "1 failed in the last 10 minutes", "warning")
        assert "is read only" in failed[0]["message"]
        advised = finding["advice"].removeprefix("Clear it: tagwire ").replace("''", "").split()
        assert plant.run(*advised[:2], "", *advised[2:]).returncode == 0
        assert [each["check"] for each in plant.doctor()] == ["commands"]
    assert plant.doctor() == []


def test_values_that_were_rejected(plant: Plant) -> None:
    with forgotten(plant, "reject", "plant/sensor", '{"t": 8}'):
        plant.run("publish", "plant/sensor", '{"t": "hot"}')
        wait_until(lambda: len(plant.doctor()) == 2, 30, "the tag is bad, and the value was rejected")
        bad, rejected = plant.doctor()
        only([bad], "tags", "sensor@t", "is bad (config_error)")
        message = "1 values were rejected in the last 10 minutes (1 wrong_type)"
        only([rejected], "rejects", "plant/sensor", message, "warning")
    wait_until(lambda: plant.doctor() == [], 30, "all is well again")


def test_a_stranger_on_the_port_of_rest(plant: Plant) -> None:
    port = free_port()
    with start([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]) as stranger:
        wait_until(lambda: "Serving" in stranger.output)
        finding = only(plant.doctor(FLASK_APP_PORT=port), "ports", "FLASK_APP_PORT", "404")
        assert f"process {stranger.pid}: " in finding["message"]


def test_a_stranger_on_the_port_of_the_modbus_server(plant: Plant) -> None:
    with fault_device("good") as port:
        only(plant.doctor(MODBUS_SERVER_PORT=port), "ports", "MODBUS_SERVER_PORT", "is not our modbus_server")


def test_devices_that_cannot_be_reached_each_for_its_own_reason(plant: Plant) -> None:
    closed = free_port()
    with ExitStack() as stack:
        # A full backlog: the kernel drops every further connection request, as a firewall does.
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        ports = {
            name: stack.enter_context(fault_device(mode, argument))
            for name, mode, argument in (
                ("silent", "never", 0), ("other", "wrong_unit", 0), ("babbler", "garbage", 0), ("gateway", "exc", 11),
            )
        }  # fmt: skip
        line = modbus(1)
        line["network"] = {"modbus": {"transport": "serial", "serial_port": "/dev/no-such-line", "timeout_s": 0.3}}
        planted = {
            "dead": (modbus(closed), f"tcp 127.0.0.1:{closed}: nobody listens there (connection refused)"),
            "walled": (modbus(full.getsockname()[1]), "no answer within 0.5 s (TCP connect"),
            "lost": (modbus(502, host="no-such-plc.invalid"), "'no-such-plc.invalid' is not known (DNS"),
            "silent": (modbus(ports["silent"]), "unit 1 is connected, but does not answer"),
            "other": (modbus(ports["other"]), "answers for another unit"),
            "babbler": (modbus(ports["babbler"]), "does not speak Modbus properly"),
            "gateway": (modbus(ports["gateway"]), "exception 11: it is a gateway whose unit does not answer"),
            "rs485": (line, "/dev/no-such-line: No such file"),
        }
        made = [plant.store.create_device({"name": name, **document}) for name, (document, _) in planted.items()]
        try:
            found = plant.doctor()
        finally:
            for each in made:
                plant.store.delete_device(each["id"])
            wait_until(lambda: plant.run("console", "links").stdout.count("\n") == 3, 20, "their links are withdrawn")
    assert sorted(each["where"] for each in found) == sorted(planted)
    for each in found:
        only([each], "devices", each["where"], planted[each["where"]][1])
        assert each["advice"]


def test_a_tag_that_its_device_does_not_have(plant: Plant) -> None:
    with fault_device("exc", 2) as port, plant.device("strict", modbus(port, register=77)):
        wait_until(lambda: "config_error" in plant.run("console", "list", "strict").stdout, 10)
        only(plant.doctor(), "tags", "strict@x", "config_error")


def test_a_device_that_never_published(plant: Plant) -> None:
    source = {"protocol": "mqtt", "direction": "in", "address": {"path": "v"}}
    tags = [{"name": "v", "bindings": [source]}]
    with plant.device("mute", {"network": {"mqtt": {"topic": "plant/mute"}}, "tags": tags}):
        only(plant.doctor(), "devices", "mute", "nothing was ever heard of it on topic plant/mute", "warning")


def test_two_tags_on_the_same_registers(plant: Plant) -> None:
    document = modbus(plant.settings["MODBUS_SERVER_PORT"], register=50, direction="inout")
    other = {"protocol": "modbus", "direction": "inout", "address": {"register": 49, "unit_id": 1, "type": "float32"}}
    document["tags"].append({"name": "y", "bindings": [other]})
    with plant.device("twins", document):
        wait_until(lambda: "twins\tfield_server\tonline" in plant.run("console", "links").stdout, 10)
        only(plant.doctor(), "config", "holding_register 50", "is written by twins@y and by twins@x")


def test_rows_that_nobody_understands(plant: Plant) -> None:
    with plant.device("broken", modbus(plant.settings["MODBUS_SERVER_PORT"])):
        wait_until(lambda: "broken\tfield_server\tonline" in plant.run("console", "links").stdout, 10)
        query = "UPDATE binding SET address = '{\"register\": -5}' WHERE tag_id = (SELECT max(id) FROM tag)"
        with plant.store.engine.begin() as connection:
            connection.exec_driver_sql(query)
        only(plant.doctor(), "config", "broken tags.x.bindings.modbus.address.register", "not -5")


def test_a_program_that_died(plant: Plant) -> None:
    with start_program(
        "field_server", **plant.settings | {"TAGWIRE_SHARD": "1/2", "TAGWIRE_DATA_DIR": plant.folder / "d2"}
    ) as second:
        second.wait_ready()
        wait_until(lambda: "field_server-1of2\tonline" in plant.run("console", "servers").stdout, 10)
        found = plant.doctor()
        only(
            [each for each in found if each["check"] == "programs"], "programs", "field_server", "belong to two of them"
        )
        second.kill()
    plant.run("publish", "--retain", "tagwire/server/field_server-1of2", "")
    for device in ("plc", "tank"):
        for kind in ("state", "link", "plan"):
            plant.run("publish", "--retain", f"tagwire/{kind}/field_server-1of2/{device}", "")
    assert plant.doctor() == []


def test_a_program_that_runs_twice(plant: Plant) -> None:
    settings = plant.settings | {"TAGWIRE_DATA_DIR": plant.folder / "d3", "MQTT_CLIENT_ID_PREFIX": "twin"}
    with start_program("field_server", **settings) as second:
        second.wait_ready()
        second.wait_output(": online")
        only(plant.doctor(listen_s=4), "programs", "field_server", "2 programs call themselves so")
        second.kill()
    # Its will said that field_server is gone, which is what the other one would say too when it connects again.
    plant.run("publish", "--retain", "tagwire/server/field_server", '{"online": true}')


def test_a_program_that_lost_samples_or_has_many_waiting(plant: Plant) -> None:
    client = Client(CallbackAPIVersion.VERSION2, client_id="planted")
    client.connect("127.0.0.1", plant.broker.port)
    client.loop_start()
    ended = threading.Event()
    counters: dict[str, int] = {}

    def beat() -> None:
        while not ended.wait(0.2):
            client.publish("tagwire/heartbeat/planted", b"4fe1b2c3d4e5 1 " + json.dumps(counters).encode())

    beating = threading.Thread(target=beat)
    try:
        counters |= {"published": 9, "late": 5, "dropped": 1_234, "poisoned": 0, "buffered": 0}
        beating.start()
        found = only(plant.doctor(listen_s=1), "programs", "planted", "1,234 samples are lost", "warning")
        assert "TAGWIRE_BUS_BUFFER_ROWS" in found["advice"]
        counters |= {"dropped": 0, "buffered": 45_000}
        only(plant.doctor(listen_s=1), "programs", "planted", "45,000 samples wait to be sent", "warning")
        counters |= {"poisoned": 2, "buffered": 0}
        only(plant.doctor(listen_s=1), "programs", "planted", "2 messages could not be dealt with", "warning")
        counters |= {"poisoned": 0, "buffered": 12}
        text = plant.run("doctor", "--listen", "1").stdout
        assert "ok       programs   planted: 12 samples wait to be sent to the broker" in text, text
        assert "programs   online: " in text
    finally:
        ended.set()
        beating.join(5)
        client.disconnect()
        client.loop_stop()


def test_samples_from_the_future_and_bad_ones(plant: Plant) -> None:
    now_ms = time.time_ns() // 1_000_000
    late = json.dumps({"x": [1, "good", now_ms + 3_600_000]})
    plant.run("publish", "--retain", "tagwire/state/mqtt_server/fast", late)
    try:
        found = [each for each in plant.doctor() if each["check"] == "clock"]
        only(found, "clock", "fast@x", "ahead of this computer's clock")
    finally:
        plant.run("publish", "--retain", "tagwire/state/mqtt_server/fast", "")
    old = json.dumps({"x": [1, "bad", now_ms - 7_200_000, {"reason": "stale"}]})
    plant.run("publish", "--retain", "tagwire/state/mqtt_server/slow", old)
    try:
        found = [each for each in plant.doctor() if each["check"] == "tags"]
        only(found, "tags", "slow@x", "is bad (stale) since 2 h")
    finally:
        plant.run("publish", "--retain", "tagwire/state/mqtt_server/slow", "")


def database(folder: Path) -> Path:
    """A database of its own, with nothing in it."""
    path = folder / "own.sqlite"
    engine = open_engine(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:12288] = b"\xa5" * 8192
    path.write_bytes(data)


def outdate(path: Path) -> None:
    engine = open_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()


@pytest.mark.parametrize(
    ("plant_fault", "where", "message"),
    [
        (spoil, "own.sqlite", "is damaged"),
        (outdate, "own.sqlite", "is of a newer program"),
        (lambda path: path.with_name(f"{path.name}.damaged-1").write_text("x"), "own.sqlite.damaged-1", "moved aside"),
        (
            lambda path: path.write_text("not a database, but long enough to look like one" * 20),
            "own.sqlite",
            "damaged",
        ),
    ],
    ids=["damaged", "newer", "set aside", "no database"],
)
def test_a_database_that_cannot_be_used(
    plant: Plant, tmp_path: Path, plant_fault: Callable[[Path], object], where: str, message: str
) -> None:
    path = database(tmp_path)
    plant_fault(path)
    before = path.read_bytes()
    only(plant.doctor(SQLALCHEMY_DATABASE_URI=f"sqlite:///{path}"), "database", where, message)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.damaged-2*")), "the doctor moved it"


def test_a_locked_database(plant: Plant, tmp_path: Path) -> None:
    path = database(tmp_path)
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); "
        "print('locked', flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        found = plant.doctor(SQLALCHEMY_DATABASE_URI=f"sqlite:///{path}")
        holder.kill()
    only(found, "database", "own.sqlite", f"locked: process {holder.pid} (")


def test_a_server_that_is_no_database(plant: Plant) -> None:
    uri = f"postgresql+psycopg://user:secret@127.0.0.1:{free_port()}/plant"
    found = plant.doctor(SQLALCHEMY_DATABASE_URI=uri)
    only(found, "database", "SQLALCHEMY_DATABASE_URI", "efused")
    assert "secret" not in json.dumps(found)


def test_a_database_that_may_not_be_written() -> None:
    # Below /tmp itself: others may not look into the folders of tests.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        path = database(Path(name))
        # What is imported only when it is needed may be out of that user's reach.
        assert asyncio.run(open_checked(f"sqlite:///{path}"))[1][0].level == "ok"
        path.chmod(0o444)
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_look_as_nobody, args=(f"sqlite:///{path}", sender))
        child.start()
        found = receiver.recv() if receiver.poll(30) else "nothing was said"
        child.join(30)
    assert found == [
        f"FAULT    database   {path}: {path} is read-only for this user. Change its owner, or run as its owner."
    ]


def _look_as_nobody(uri: str, sender: Connection) -> None:
    if os.geteuid() == 0:
        os.setgid(65_534)
        os.setuid(65_534)
    _, findings = asyncio.run(open_checked(uri))
    sender.send([str(finding) for finding in findings])


def test_samples_that_wait_for_the_broker(plant: Plant, tmp_path: Path) -> None:
    buffer = BusBuffer(tmp_path / "bus-field_server.sqlite")
    buffer.open()
    buffer.apply([Batch(1, "plc", 7, b"[]"), Batch(2, "plc", 5, b"[]")], [])
    buffer.close()
    found = plant.doctor(TAGWIRE_DATA_DIR=tmp_path)
    only(found, "buffer", "bus-field_server.sqlite", "12 samples wait for the broker", "warning")


def test_values_that_wait_for_their_device(plant: Plant) -> None:
    source = {"protocol": "mqtt", "direction": "in", "address": {"path": "t"}}
    document = modbus(port := free_port(), direction="out")
    del document["tags"][0]["bindings"][0]["period_ms"]
    document["network"]["mqtt"] = {"topic": "plant/far"}
    document["tags"][0]["bindings"].append(source)
    with plant.device("far", document):
        time.sleep(1)
        plant.run("publish", "plant/far", '{"t": 1}')
        wait_until(lambda: "far\tmqtt_server\tonline" in plant.run("console", "links").stdout, 10)
        outbox = Outbox(plant.store.engine)
        wait_until(outbox.count, 15, "the value is in the outbox")
        found = plant.doctor()
        only(
            [each for each in found if each["level"] == "fault"], "devices", "far", f"127.0.0.1:{port}: nobody listens"
        )
        waiting = [each for each in found if each["level"] == "warning"]
        only(waiting, "outbox", "", "1 values wait for their devices: 1 for far", "warning")


def test_a_full_disk(tmp_path: Path) -> None:
    plenty, vast = 0, 2**80
    assert [str(each.level) for each in check_data_dir(tmp_path, plenty, plenty)] == ["ok"]
    assert [str(each.level) for each in check_data_dir(tmp_path, plenty, vast)] == ["warning"]
    (found,) = check_data_dir(tmp_path, vast, vast)
    assert found.level == "FAULT"
    assert "MiB free" in found.message


def test_the_embedded_broker_is_as_it_should_be(plant: Plant, nats: Broker) -> None:
    assert [each for each in plant.doctor(MQTT_PORT=nats.port) if each["check"] == "broker"] == []


def test_an_owner_that_is_gone(plant: Plant) -> None:
    program = plant.programs["field_server"]
    program.signal(signal.SIGKILL)
    program.wait()
    wait_until(lambda: "field_server\toffline" in plant.run("console", "servers").stdout, 10)
    finding = only(plant.doctor(), "programs", "field_server", "is offline")
    assert "1 bindings of protocol modbus and 1 bindings of protocol simulated" in finding["message"]
    with start_program("field_server", **plant.settings) as again:
        again.wait_ready()
        wait_until(lambda: "field_server\tonline" in plant.run("console", "servers").stdout, 10)
        assert plant.doctor() == []

"""`tagwire doctor` beside a running plant, with faults planted one at a time: each is named, and nothing else is."""

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.brokers import Broker, start_mosquitto
from tests.support.doctor_plant import TAGWIRE, Plant, fault_device, forgotten, only
from tests.support.processes import clean_environment, free_port, start, start_program, wait_until

pytestmark = pytest.mark.system


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


def test_a_stranger_on_the_port_of_rest(plant: Plant) -> None:
    port = free_port()
    with start([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]) as stranger:
        wait_until(lambda: "Serving" in stranger.output)
        finding = only(plant.doctor(FLASK_APP_PORT=port), "ports", "FLASK_APP_PORT", "404")
        assert f"process {stranger.pid}: " in finding["message"]


def test_a_stranger_on_the_port_of_the_modbus_server(plant: Plant) -> None:
    with fault_device("good") as port:
        only(plant.doctor(MODBUS_SERVER_PORT=port), "ports", "MODBUS_SERVER_PORT", "is not our modbus_server")


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

"""The real program between real brokers and clients that we did not write."""

import json
import re
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyModbusTCP.client import ModbusClient

from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate
from tests.support.brokers import Broker, start_mosquitto, start_nats
from tests.support.mailbox import BusEar, MailboxPlant, bus_ear, mailbox_plant, register_tag, told
from tests.support.processes import CHECKOUT, free_port, start_program, wait_until

pytestmark = pytest.mark.system


BOTH = pytest.mark.parametrize("broker", ["mosquitto", "nats"], indirect=True)


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    start = start_nats if getattr(request, "param", "") == "nats" else start_mosquitto
    with start(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def plant(broker: Broker, tmp_path: Path) -> Iterator[MailboxPlant]:
    with mailbox_plant(tmp_path, broker) as plant:
        yield plant


@pytest.fixture
def ear(broker: Broker) -> Iterator[BusEar]:
    with bus_ear(broker) as ear:
        yield ear


def words(value: float) -> list[int]:
    return list(struct.unpack(">HH", struct.pack(">f", value)))


@BOTH
def test_what_a_client_writes_is_told_on_the_bus(plant: MailboxPlant, ear: BusEar) -> None:
    plant.device(
        "press",
        [
            register_tag("force", 100, type="float32"),
            register_tag("scaled", 102, type="int16", scaling={"gain": 0.1, "offset": -10}),
            register_tag("running", 7, table="coil", data_type="bool"),
            register_tag("fault", 103, type="bool", bit=3, data_type="bool"),
            register_tag("near", 104, deadband=5.0),
            register_tag("limited", 105, limits={"low": 0, "high": 100}),
        ],
    )
    with plant.server():
        told(ear, "press", "force", 0.0, "uncertain")
        client = ModbusClient("127.0.0.1", plant.port, unit_id=9)
        assert client.write_multiple_registers(100, [*words(2.5), 305])
        told(ear, "press", "force", 2.5)
        told(ear, "press", "scaled", 20.5)
        assert client.write_single_coil(7, True)
        told(ear, "press", "running", True)
        assert client.write_single_register(103, 0b1000)
        told(ear, "press", "fault", True)
        for value in (10, 12, 14, 16):
            assert client.write_single_register(104, value)
        told(ear, "press", "near", 16)
        assert [row[0] for row in ear.samples("press", "near")] == [0, 10, 16]
        assert client.write_single_register(105, 101)
        told(ear, "press", "limited", 0, "bad")
        assert client.write_single_register(105, 100)
        told(ear, "press", "limited", 100)
        # One register of two: nobody has sent what stands there now.
        assert client.write_single_register(100, words(-3.0)[0])
        halfway = struct.unpack(">f", struct.pack(">HH", words(-3.0)[0], words(2.5)[1]))[0]
        told(ear, "press", "force", halfway, "uncertain")
        state = "tagwire/state/modbus_server/press"
        wait_until(lambda: (ear.retained(state) or {"force": [None]})["force"][0] == halfway, 10, "the state")
        assert ear.retained("tagwire/link/modbus_server/press")["online"] is True
        client.close()


@BOTH
def test_a_tag_of_another_program_is_shown(plant: MailboxPlant, ear: BusEar) -> None:
    tags = [
        register_tag("level", 10, "out", type="float32", order="CDAB", status=12, source={
            "protocol": "simulated", "direction": "in", "address": {"point": "level"}}),
    ]  # fmt: skip
    plant.device("tank", tags, simulated={"model": "tank"}, modbus_server={"not_good": "status"})
    client = ModbusClient("127.0.0.1", plant.port)

    def shown() -> tuple[float, int]:
        first, second, status = client.read_holding_registers(10, 3) or [0, 0, 9]
        return struct.unpack(">f", struct.pack(">HH", second, first))[0], status

    ear.publish("tagwire/state/field_server/tank", {"level": [7.5, "good", 1000]}, retain=True)
    with plant.server():
        wait_until(lambda: shown() == (7.5, 2), 30, "its owner is not there")
        ear.publish("tagwire/server/field_server", {"online": True}, retain=True)
        wait_until(lambda: shown() == (7.5, 0), 10, "shown")
        ear.publish("tagwire/data/field_server/tank", [["level", 8.25, "good", 2000]])
        wait_until(lambda: shown() == (8.25, 0), 10, "changed")
        assert not client.write_single_register(10, 1)
        assert client.last_except == 2
        ear.publish("tagwire/server/field_server", {"online": False}, retain=True)
        wait_until(lambda: shown() == (8.25, 2), 10, "its owner has gone")
    client.close()


LEVEL = {"protocol": "simulated", "direction": "in", "address": {"point": "level"}}


def reading(client: ModbusClient, register: int, count: int = 1) -> list[int] | str:
    """Registers, or the exception's number."""
    return client.read_holding_registers(register, count) or f"exception {client.last_except}"


@pytest.fixture
def client(plant: MailboxPlant) -> Iterator[ModbusClient]:
    client = ModbusClient("127.0.0.1", plant.port, timeout=5)
    yield client
    client.close()


def command(ear: BusEar, device: str, **document: object) -> list[str]:
    """Set over the bus; the states that it came to."""
    command_id = f"c{len(ear.feedback(device))}-{time.monotonic_ns()}"
    ear.publish(
        f"tagwire/set/{device}",
        {"id": command_id, "by": "test", **document, "expires_ms": int(time.time() * 1000) + 5000},
    )

    def steps() -> list[dict[str, object]]:
        return [step for step in ear.feedback(device) if step["id"] == command_id]

    wait_until(lambda: steps() and steps()[-1]["final"], 10, f"{document} comes to an end")
    return [str(step["state"]) for step in steps()]


DONE = ["accepted", "sent", "acknowledged", "verified"]


@BOTH
def test_a_command_writes_the_registers(plant: MailboxPlant, ear: BusEar, client: ModbusClient) -> None:
    plant.device(
        "panel",
        [
            register_tag("speed", 20, "inout", type="float32", limits={"low": 0, "high": 100}),
            register_tag("mode", 22, "out", data_type="int"),
            register_tag("lamp", 1, "inout", table="coil", data_type="bool"),
            register_tag("only_read", 23),
        ],
    )
    with plant.server():
        told(ear, "panel", "speed", 0.0, "uncertain")
        assert command(ear, "panel", tag="speed", value=42.5) == DONE
        assert reading(client, 20, 2) == words(42.5)
        told(ear, "panel", "speed", 42.5)
        assert client.write_multiple_registers(20, words(7.0))
        told(ear, "panel", "speed", 7.0)
        assert command(ear, "panel", values={"mode": 3, "lamp": True}) == DONE
        assert (reading(client, 22), client.read_coils(1)) == ([3], [True])
        told(ear, "panel", "mode", 3)
        assert not client.write_single_register(22, 9)
        assert command(ear, "panel", tag="speed", value=101)[-1] == "failed"
        assert command(ear, "panel", values={"speed": 1.0, "mode": 70_000})[-1] == "failed"
        assert command(ear, "panel", tag="only_read", value=1)[-1] == "failed"
        assert (reading(client, 20, 2), reading(client, 22)) == (words(7.0), [3])


def test_old_values_never_look_fresh_after_a_kill(plant: MailboxPlant, ear: BusEar, client: ModbusClient) -> None:
    """Row M2, when the program itself was away: whatever comes first, the client or the configuration."""
    plant.device("tank", [register_tag("level", 10, "out", source=LEVEL)], simulated={"model": "tank"},
                 modbus_server={"not_good": "exception"})  # fmt: skip
    plant.device("other", [register_tag("level", 20, "out", status=21, source=LEVEL)], simulated={"model": "tank"})
    ear.publish("tagwire/server/field_server", {"online": True}, retain=True)
    for name in ("tank", "other"):
        ear.publish(f"tagwire/state/field_server/{name}", {"level": [55, "good", 1000]}, retain=True)
    with plant.server() as server:
        wait_until(lambda: reading(client, 10) == [55] and reading(client, 20, 2) == [55, 0], 30, "shown")
        server.kill()
    client.close()
    # The configuration cannot be read this time: nobody knows what the registers are, but that they are not fresh.
    with plant.server(SQLALCHEMY_DATABASE_URI=f"sqlite:///{plant.folder}/none.sqlite"):
        assert reading(client, 10) == "exception 11"
        assert reading(client, 20, 2) == [55, 2]
        assert not (plant.folder / "none.sqlite").exists()
    client.close()
    with plant.server():
        wait_until(lambda: reading(client, 10) == [55] and reading(client, 20, 2) == [55, 0], 30, "shown again")


def test_a_term_says_what_clients_see_of_its_unit(plant: MailboxPlant, ear: BusEar, client: ModbusClient) -> None:
    """Row M2: the choice is the unit's, whichever device a tag of it belongs to; that of the network stays for all others."""
    terms = [{"name": "strict", "settings": {"modbus_server": {"unit_id": 5, "not_good": "exception"}}}]
    tags = [
        {**register_tag("a", 10, "out", source=LEVEL), "term": "strict"},
        register_tag("b", 11, "out", source=LEVEL),
    ]
    made = plant.store.create_device(
        {"name": "tank", "network": {"modbus_server": {}, "simulated": {"model": "tank"}}, "terms": terms, "tags": tags}
    )
    plant.device("other", [register_tag("c", 12, "out", unit_id=5, source=LEVEL)], simulated={"model": "tank"})
    with plant.server() as server:
        server.wait_output("3 shown")
        refused = "exception 11"
        assert [reading(client, register) for register in (10, 11, 12)] == [refused, [0], refused]
        new = {"settings": {"modbus_server": {"unit_id": 5, "not_good": "last"}}}
        plant.store.patch_term(made["terms"][0]["id"], new)
        wait_until(lambda: [reading(client, register) for register in (10, 11, 12)] == [[0]] * 3, 5, "as it is now")


def test_a_device_that_was_deleted_meanwhile_leaves_its_registers(
    plant: MailboxPlant, ear: BusEar, client: ModbusClient
) -> None:
    made = plant.device("tank", [register_tag("level", 10, "out", source=LEVEL)], simulated={"model": "tank"},
                        modbus_server={"not_good": "exception"})  # fmt: skip
    with plant.server() as server:
        server.wait_output("1 shown")
        assert reading(client, 10) == "exception 11"
    client.close()
    plant.store.delete_device(made["id"])
    with plant.server():
        wait_until(lambda: reading(client, 10) == [0], 30, "a plain register")
        assert client.write_single_register(10, 5)


def test_what_was_written_before_a_restart_is_uncertain(plant: MailboxPlant, ear: BusEar, client: ModbusClient) -> None:
    plant.device("press", [register_tag("force", 100)])
    with plant.server() as server:
        told(ear, "press", "force", 0, "uncertain")
        client.write_single_register(100, 9)
        told(ear, "press", "force", 9)
        server.kill()
    client.close()
    with plant.server():
        told(ear, "press", "force", 9, "uncertain")
        client.write_single_register(100, 9)
        told(ear, "press", "force", 9)


def test_changes_of_the_configuration_need_no_restart(plant: MailboxPlant, ear: BusEar, client: ModbusClient) -> None:
    with plant.server():
        assert client.write_single_register(100, 9)
        made = plant.device("press", [register_tag("force", 100), register_tag("moved", 101)])
        told(ear, "press", "force", 9, "uncertain")
        assert client.write_single_register(100, 10)
        told(ear, "press", "force", 10)
        tag = next(each for each in made["tags"] if each["name"] == "moved")
        plant.store.patch_tag(tag["id"], {"bindings": register_tag("moved", 300)["bindings"]})
        time.sleep(2.0)
        assert client.write_single_register(300, 4)
        told(ear, "press", "moved", 4)
        plant.store.delete_device(made["id"])
        wait_until(lambda: ear.retained("tagwire/state/modbus_server/press") == b"", 5, "withdrawn")
        assert client.write_single_register(100, 11)
    assert len(ear.samples("press", "force")) == 2


def test_what_collides_is_told_where_an_operator_looks(plant: MailboxPlant, ear: BusEar, client: ModbusClient) -> None:
    plant.device("one", [register_tag("a", 5)])
    # The configuration does not know whether the server has a map, so another unit's register 5 is not refused there.
    plant.device("two", [register_tag("b", 5, unit_id=2), register_tag("c", 6)])
    with plant.server() as server:
        told(ear, "two", "c", 0, "uncertain")
        server.wait_output("two: left out: two@b: holding_register 5 belongs to one@a already")
        wait_until(lambda: ear.retained("tagwire/link/modbus_server/two"), 5, "the link")
        assert "belongs to one@a" in ear.retained("tagwire/link/modbus_server/two")["error"]
        client.write_single_register(5, 3)
        told(ear, "one", "a", 3)
        assert ear.samples("two", "b") == []


def test_a_call_reads_what_is_there(plant: MailboxPlant, ear: BusEar, client: ModbusClient) -> None:
    plant.device("press", [register_tag("force", 100)])
    with plant.server():
        told(ear, "press", "force", 0, "uncertain")
        client.write_single_register(100, 5)
        told(ear, "press", "force", 5)
        ear.publish("tagwire/call/press", {"id": "q", "tags": ["force"], "by": "test"})
        wait_until(lambda: ear.feedback("press"), 5, "an answer")
        answer = ear.feedback("press")[0]
        assert (answer["state"], answer["values"]["force"][:2]) == ("verified", [5, "good"])


@BOTH
def test_it_serves_without_broker_and_tells_late_what_came_meanwhile(
    plant: MailboxPlant, ear: BusEar, client: ModbusClient, broker: Broker
) -> None:
    """Rows B1 and B2 as far as they concern registers."""
    plant.device("press", [register_tag("force", 100)])
    time.sleep(1.5)  # until the broker has the subscription on its disk
    broker.kill()
    with plant.server() as server:
        server.wait_output("configuration 1: 1 tags from registers")
        for value in range(1, 201):
            assert client.write_single_register(100, value)
        time.sleep(0.6)  # what has waited for so long goes to the disk
        broker.start()
        told(ear, "press", "force", 200, timeout_s=40)
        found = ear.samples("press", "force")
        assert list(dict.fromkeys(row[0] for row in found)) == list(range(201))
        assert all(row[-1]["late"] for row in found)
        assert client.write_single_register(100, 1000)
        told(ear, "press", "force", 1000)
        assert len(ear.samples("press", "force")[-1]) == 3
        broker.kill()
        for value in range(2000, 2100):
            assert client.write_single_register(100, value)
        broker.start()
        told(ear, "press", "force", 2099, timeout_s=40)
        newest = list(dict.fromkeys(row[0] for row in ear.samples("press", "force")))
        assert newest[-101:] == [1000, *range(2000, 2100)]


@BOTH
def test_a_broker_that_goes_away_makes_what_is_shown_not_good(
    plant: MailboxPlant, ear: BusEar, client: ModbusClient, broker: Broker
) -> None:
    plant.device("tank", [register_tag("level", 10, "out", source=LEVEL)], simulated={"model": "tank"},
                 modbus_server={"not_good": "exception"})  # fmt: skip
    ear.publish("tagwire/server/field_server", {"online": True}, retain=True)
    ear.publish("tagwire/state/field_server/tank", {"level": [55, "good", 1000]}, retain=True)
    with plant.server():
        wait_until(lambda: reading(client, 10) == [55], 30, "shown")
        time.sleep(1.5)  # until the broker has what it acknowledged on the disk
        broker.kill()
        wait_until(lambda: reading(client, 10) == "exception 11", 5, "nobody vouches for it")
        assert reading(client, 11) == [0]
        broker.start()
        wait_until(lambda: reading(client, 10) == [55], 40, "shown again")


def test_clients_stay_connected_and_served_while_tags_change(plant: MailboxPlant, ear: BusEar) -> None:
    stop = threading.Event()
    slowest: list[float] = []
    client = ModbusClient("127.0.0.1", plant.port, auto_open=False)

    def poll() -> None:
        assert client.open()
        while not stop.is_set():
            begun = time.monotonic()
            assert client.read_holding_registers(40_000, 10)
            slowest.append(time.monotonic() - begun)

    with plant.server():
        poller = threading.Thread(target=poll)
        poller.start()
        for number in range(4):
            plant.device(f"d{number}", [register_tag(f"t{n}", number * 500 + n) for n in range(500)])
            told(ear, f"d{number}", "t499", 0, "uncertain")
        stop.set()
        poller.join(10)
    assert len(slowest) > 100
    assert max(slowest) < 2
    client.close()


def test_the_example_in_the_documentation_is_in_order(plant: MailboxPlant, ear: BusEar) -> None:
    text = (CHECKOUT / "docs/modbus_server.md").read_text()
    example = re.search(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert example is not None
    plant.store.create_device(json.loads(example[1]))
    with plant.server() as server:
        told(ear, "press", "force", 0.0, "uncertain")
        assert "left out" not in server.output


def test_two_servers_on_one_data_folder_have_one_mailbox(plant: MailboxPlant, ear: BusEar) -> None:
    plant.device("press", [register_tag("force", 100)])
    with plant.server():
        told(ear, "press", "force", 0, "uncertain")
        other = {"MODBUS_SERVER_PORT": free_port(), "MODBUS_SERVER_DATA_DIR": plant.folder / "other"}
        with start_program("modbus_server", **(plant.settings | other)) as second:
            second.wait_ready()
            second.wait_output("no register is bound to a tag: the mailbox of the Modbus server is running already")
            client = ModbusClient("127.0.0.1", int(other["MODBUS_SERVER_PORT"]))
            assert client.write_single_register(100, 5)
            client.close()
            assert second.terminate() == 0


def test_a_database_that_comes_later_is_found(plant: MailboxPlant, ear: BusEar, client: ModbusClient) -> None:
    later = plant.folder / "later.sqlite"
    with plant.server(SQLALCHEMY_DATABASE_URI=f"sqlite:///{later}"):
        assert client.write_single_register(100, 7)
        time.sleep(0.7)
        assert not later.exists()
        engine = open_engine(f"sqlite:///{later}")
        migrate(engine)
        press = {"name": "press", "network": {"modbus_server": {}}, "tags": [register_tag("force", 100)]}
        ConfigStore(engine).create_device(press)
        told(ear, "press", "force", 7, "uncertain")
        engine.dispose()

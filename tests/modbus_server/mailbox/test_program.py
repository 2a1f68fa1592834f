"""The real program between real brokers and clients that we did not write."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyModbusTCP.client import ModbusClient

from tests.support.brokers import Broker, start_mosquitto, start_nats
from tests.support.mailbox import BusEar, MailboxPlant, bus_ear, mailbox_plant, register_tag, told
from tests.support.processes import wait_until

pytestmark = pytest.mark.system


@pytest.fixture(params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    start = start_mosquitto if request.param == "mosquitto" else start_nats
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
        # One register of two: the tag has the value that stands there after each write.
        assert client.write_single_register(100, words(-3.0)[0])
        halfway = struct.unpack(">f", struct.pack(">HH", words(-3.0)[0], words(2.5)[1]))[0]
        told(ear, "press", "force", halfway)
        assert ear.retained("tagwire/state/modbus_server/press") is not None or True
        client.close()


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
        wait_until(lambda: shown() == (7.5, 2), 10, "its owner is not there")
        ear.publish("tagwire/server/field_server", {"online": True}, retain=True)
        wait_until(lambda: shown() == (7.5, 0), 10, "shown")
        ear.publish("tagwire/data/field_server/tank", [["level", 8.25, "good", 2000]])
        wait_until(lambda: shown() == (8.25, 0), 10, "changed")
        assert not client.write_single_register(10, 1)
        assert client.last_except == 2
        ear.publish("tagwire/server/field_server", {"online": False}, retain=True)
        wait_until(lambda: shown() == (8.25, 2), 10, "its owner has gone")
    client.close()

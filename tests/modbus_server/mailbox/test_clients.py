"""Clients that we did not write, against registers that are tags: what they are answered, and what the bus is told."""

import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import ModbusTcpClient, ModbusTlsClient

from tests.support.brokers import start_nats
from tests.support.certificates import Authority, client_context, utf8
from tests.support.mailbox import BusEar, MailboxPlant, bus_ear, mailbox_plant, register_tag, told
from tests.support.modbus_wire import tls_settings
from tests.support.processes import free_port, wait_until
from tests.support.programs import compile_with_libmodbus

pytestmark = pytest.mark.system

MAP = '[[unit]]\nids = [1]\nholding_register = ["0-49", "51-99"]\ncoil = ["0-31"]\n'
LEVEL = {"protocol": "simulated", "direction": "in", "address": {"point": "level"}}
BIT = {"type": "bool", "data_type": "bool"}
STRICT = {"name": "strict", "settings": {"modbus_server": {"unit_id": 1, "not_good": "exception"}}}
TAGS = [
    register_tag("f", 10, "inout", type="float32"),
    register_tag("b0", 14, bit=0, **BIT),
    register_tag("b1", 14, bit=1, **BIT),
    register_tag("c", 3, table="coil", data_type="bool"),
    register_tag("small", 24, type="int16", limits={"low": -5, "high": 5}),
    register_tag("level", 20, "out", status=22, source=LEVEL),
]


class Scene:
    """A server with TAGS, clients of several kinds and rights, and a subscriber of the bus."""

    def __init__(self, plant: MailboxPlant, ear: BusEar, authority: Authority, tls_port: int) -> None:
        self.ear = ear
        self.port = plant.port
        self.client = ModbusTcpClient("127.0.0.1", port=plant.port, retries=0)
        context = client_context(authority.path, authority.issue("client", utf8("Viewer")))
        context.check_hostname = False  # this client connects without naming whom it wants
        self.viewer = ModbusTlsClient("127.0.0.1", port=tls_port, sslctx=context, retries=0)

    def told(self, tag: str, value: Any, quality: str = "good") -> None:
        told(self.ear, "tank", tag, value, quality)

    def words(self, address: int, count: int = 1) -> list[int] | int:
        """Registers, or the exception's code."""
        answer = self.client.read_holding_registers(address, count=count)
        return answer.exception_code if answer.isError() else answer.registers


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("clients")
    (folder / "map.toml").write_text(MAP)
    authority, tls_port = Authority(folder), free_port()
    tls = {f"MODBUS_SERVER_{name}": value for name, value in tls_settings(authority, tls_port, "Viewer=read").items()}
    with start_nats(folder / "broker") as broker, mailbox_plant(folder, broker) as plant, bus_ear(broker) as ear:
        device = {"name": "tank", "network": {"modbus_server": {}, "simulated": {"model": "tank"}}}
        plant.store.create_device({**device, "terms": [STRICT], "tags": TAGS})
        with plant.server(MODBUS_SERVER_MAP=folder / "map.toml", **tls):
            scene = Scene(plant, ear, authority, tls_port)
            scene.told("f", 0.0, "uncertain")
            with scene.client, scene.viewer:
                yield scene


def test_pymodbus_writes_a_float_in_halves(scene: Scene) -> None:
    high, low = struct.unpack(">HH", struct.pack(">f", 3.3))
    whole = struct.unpack(">f", struct.pack(">HH", high, low))[0]
    assert not scene.client.write_registers(10, [high, low]).isError()
    scene.told("f", whole)
    assert not scene.client.write_register(10, 0xC0A0).isError()
    scene.told("f", struct.unpack(">f", struct.pack(">HH", 0xC0A0, low))[0], "uncertain")
    assert not scene.client.write_register(11, 0).isError()
    scene.told("f", -5.0)


def test_pymodbus_writes_with_every_function(scene: Scene) -> None:
    assert not scene.client.mask_write_register(address=14, and_mask=0xFFFC, or_mask=0x0002).isError()
    scene.told("b1", True)
    scene.told("b0", False)
    assert not scene.client.write_coils(0, [True] * 6).isError()
    scene.told("c", True)
    assert not scene.client.write_coil(3, False).isError()
    scene.told("c", False)
    values = list(struct.unpack(">HH", struct.pack(">f", 1.5)))
    answer = scene.client.readwrite_registers(read_address=10, read_count=5, write_address=10, values=values)
    assert answer.registers == [*values, 0, 0, 2]
    scene.told("f", 1.5)


def test_pymodbus_is_refused_as_a_whole(scene: Scene) -> None:
    before = scene.words(40, 10)
    for address, count in ((48, 4), (19, 2), (22, 1), (98, 3)):
        answer = scene.client.write_registers(address, [9] * count)
        assert (answer.isError(), answer.exception_code) == (True, 2), address
    assert scene.words(40, 10) == before
    assert [scene.words(*block) for block in ((48, 4), (50, 1), (19, 2), (21, 2))] == [2, 2, 11, [0, 2]]
    assert scene.client.read_holding_registers(10, count=1, device_id=2).exception_code == 11
    values = scene.client.readwrite_registers(read_address=20, read_count=1, write_address=10, values=[1, 1])
    assert values.exception_code == 11


def test_a_value_outside_its_limits_stands_there_and_is_bad_on_the_bus(scene: Scene) -> None:
    assert not scene.client.write_register(24, 5).isError()
    scene.told("small", 5)
    assert not scene.client.write_register(24, 0xFFFA).isError()
    scene.told("small", 5, "bad")
    assert scene.words(24) == [0xFFFA]


def test_a_client_that_may_only_read_changes_nothing(scene: Scene) -> None:
    told_before = len(scene.ear.samples("tank", "f"))
    before = scene.words(10, 2)
    assert scene.viewer.write_registers(10, [1, 2]).exception_code == 1
    assert (
        scene.viewer.readwrite_registers(read_address=0, read_count=1, write_address=10, values=[1]).exception_code == 1
    )
    assert scene.viewer.read_holding_registers(10, count=2).registers == before
    assert scene.viewer.read_holding_registers(20, count=1).exception_code == 11
    assert len(scene.ear.samples("tank", "f")) == told_before


def test_libmodbus_is_answered_likewise(scene: Scene, tmp_path: Path) -> None:
    program = compile_with_libmodbus(Path(__file__).parent / "libmodbus_mailbox.c", tmp_path)
    run = subprocess.run([program, str(scene.port)], capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    scene.told("f", -7.25)
    scene.told("b0", True)
    assert [row[0] for row in scene.ear.samples("tank", "f")].count(6.5) == 1


def test_commands_and_a_client_that_writes_at_the_same_time(scene: Scene) -> None:
    """What is told last is what stands there, and every command that is carried out is verified: nothing comes between its write
    and the look. Those that arrive together with a newer one are superseded.
    """
    ids = [f"r{number}" for number in range(40)]
    for number, command_id in enumerate(ids):
        command = {"id": command_id, "tag": "f", "value": 1000 + number, "expires_ms": int(time.time() * 1000) + 5000}
        scene.ear.publish("tagwire/set/tank", command)
        for value in (number, number + 0.5):
            values = list(struct.unpack(">HH", struct.pack(">f", value)))
            assert not scene.client.write_registers(10, values).isError()

    def ended() -> dict[str, str]:
        return {step["id"]: step["state"] for step in scene.ear.feedback("tank") if step["final"]}

    wait_until(lambda: ended().keys() >= set(ids), 10, "the commands come to an end")
    states = [ended()[command_id] for command_id in ids]
    assert set(states) <= {"verified", "superseded"}
    assert states[-1] == "verified"
    assert states.count("verified") > 10
    standing = struct.unpack(">f", struct.pack(">HH", *scene.words(10, 2)))[0]  # type: ignore[misc]  # registers, no code
    scene.told("f", standing)


def test_it_is_good_again_when_somebody_vouches_for_it(scene: Scene) -> None:
    scene.ear.publish("tagwire/server/field_server", {"online": True}, retain=True)
    scene.ear.publish("tagwire/state/field_server/tank", {"level": [55, "good", 1000]}, retain=True)
    wait_until(lambda: scene.words(19, 4) == [0, 55, 0, 0], 10, "shown")
    scene.ear.publish("tagwire/data/field_server/tank", [["level", 70_000, "good", 2000]])
    wait_until(lambda: scene.words(20) == 11, 10, "it does not fit")
    link = "tagwire/link/modbus_server/tank"
    wait_until(lambda: "does not fit" in (scene.ear.retained(link)["error"] or ""), 5, "and is told")

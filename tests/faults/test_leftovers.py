"""What is left on the bus of devices that are gone: the owners as real programs, a broker that brings back what was emptied."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.publish import single
from pyModbusTCP.client import ModbusClient

from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate
from tests.support.brokers import Broker
from tests.support.bus_watch import BusWatch, now_ms, watch_bus
from tests.support.processes import Process, free_port, start_program, wait_until
from tests.support.rest import Server, rest_server

pytestmark = pytest.mark.system

OWNERS = ("field_server", "mqtt_server", "modbus_server")
TAG_OF = {"field_server": "level", "mqtt_server": "heat", "modbus_server": "force"}
KINDS = ("state", "link", "plan")
LOOK_S = 3.0
"""A program looks at what is retained for two seconds after it came online."""


class House:
    """The three owners and REST on one database and one broker."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.uri = f"sqlite:///{folder}/db.sqlite"
        self.engine = open_engine(self.uri)
        migrate(self.engine)
        self.store = ConfigStore(self.engine)
        self.folder = folder
        self.broker = broker
        self.port = free_port()
        self.settings: dict[str, Any] = {
            "MQTT_HOST": "127.0.0.1",
            "MQTT_PORT": broker.port,
            "TAGWIRE_DATA_DIR": folder,
        }
        self.programs: dict[str, Process] = {}
        self.stack = ExitStack()

    def device(self, name: str, register: int) -> dict[str, Any]:
        """One with a tag of each owner."""
        addresses = {
            "level": ("simulated", {"point": "level"}),
            "heat": ("mqtt", {"path": "heat"}),
            "force": ("modbus_server", {"register": register}),
        }
        tags = [
            {"name": tag, "bindings": [{"protocol": protocol, "direction": "in", "address": address}]}
            for tag, (protocol, address) in addresses.items()
        ]
        network = {"simulated": {"model": "tank"}, "mqtt": {"topic": f"plant/{name}"}, "modbus_server": {}}
        return self.store.create_device({"name": name, "network": network, "tags": tags})

    def start(self, *names: str) -> None:
        """Programs, ready."""
        more: dict[str, Any] = {"MODBUS_SERVER_PORT": self.port, "SQLALCHEMY_DATABASE_URI": self.uri}
        for name in names:
            program = start_program(name, **self.settings, **more)
            self.programs[name] = self.stack.enter_context(program)
        for name in names:
            self.programs[name].wait_ready()

    def rest(self) -> Server:
        """The REST program, ready."""
        return self.stack.enter_context(rest_server(self.folder, **self.settings))

    def tell(self, watch: BusWatch, name: str, register: int) -> None:
        """Have each owner tell a value of a device."""
        client = ModbusClient("127.0.0.1", self.port, timeout=5)
        wait_until(lambda: "force" in watch.kept.get(f"state/modbus_server/{name}", {}), 15, "registers are a tag")
        assert client.write_single_register(register, 7), client.last_error_as_txt
        client.close()
        self.programs["mqtt_server"].wait_output("online (tagwire-mqtt_server)")
        time.sleep(0.2)
        single(f"plant/{name}", '{"heat": 5}', 1, hostname="127.0.0.1", port=self.broker.port)
        for owner, tag in TAG_OF.items():
            topic = f"state/{owner}/{name}"
            wait_until(lambda t=topic, k=tag: watch.kept.get(t, {}).get(k, [0, ""])[1] == "good", 15, topic)


@pytest.fixture
def house(tmp_path: Path, nats: Broker) -> Iterator[House]:
    built = House(tmp_path, nats)
    with built.stack:
        yield built
    built.engine.dispose()


def left_over(watch: BusWatch) -> set[str]:
    """What is retained of devices, but for the one that is still there."""
    return {topic for topic in list(watch.kept) if topic.split("/")[0] in KINDS and not topic.endswith("/stays")}


def said_before(kind: str, owner: str) -> str:
    """What an earlier run has told."""
    if kind == "state":
        return json.dumps({TAG_OF[owner]: [99, "good", now_ms()]})
    return json.dumps({"online": True, "since": now_ms(), "error": None} if kind == "link" else {"requests": []})


def test_a_killed_broker_that_brings_back_what_was_emptied_is_told_again(house: House) -> None:
    """The embedded broker's store is made anew after a kill. Each owner looks at what is retained after every reconnect."""
    gone = house.device("press", 10)
    house.device("stays", 20)
    with watch_bus(house.broker.port, session=True) as watch:
        house.start(*OWNERS)
        house.tell(watch, "press", 10)
        house.tell(watch, "stays", 20)
        wait_until(lambda: {f"link/{owner}/press" for owner in OWNERS} <= left_over(watch), 5, "the links as well")
        house.store.delete_device(gone["id"])
        wait_until(lambda: not left_over(watch), 10, "everything of the deleted device is emptied")
        rest = house.rest()
        time.sleep(LOOK_S)

        # As the broker may bring it back: all of it, or some. Said while nobody looks, it is the broker's at the reconnect.
        names = {kind: ("press", f"only-{kind}") for kind in KINDS}
        ghosts = [(f"{kind}/{owner}", each) for kind, owner in product(KINDS, OWNERS) for each in names[kind]]
        watch.flood([(f"{topic}/{name}", said_before(*topic.split("/"))) for topic, name in ghosts], retain=True)
        wait_until(lambda: len(left_over(watch)) == len(ghosts), 5, "all of it stands there")
        time.sleep(0.5)
        assert len(left_over(watch)) == len(ghosts), "nobody takes a message for what the broker has kept"
        house.broker.restart()
        for name, program in house.programs.items():
            wait_until(lambda p=program: p.output.count("-bus)") == 2, 15, f"{name} is back")  # type: ignore[misc]  # the lambda's default
        wait_until(lambda: not left_over(watch), 15, f"all of it is withdrawn: {left_over(watch)}")
        assert not [topic for topic in watch.emptied if topic.endswith("/stays")]

        with watch_bus(house.broker.port) as newcomer:
            wait_until(lambda: {f"state/{owner}/stays" for owner in OWNERS} <= newcomer.kept.keys(), 5, "what is there")
            time.sleep(0.3)
            assert left_over(newcomer) == set()
            assert newcomer.states["stays"].keys() <= set(TAG_OF.values())
        values = rest.ask("GET", "/api/v1/values").json["items"]
        assert {each["name"].partition("@")[0] for each in values} == {"stays"}
        # The same name again: nothing of the earlier one is shown under it.
        house.device("press", 30)

        def heat() -> tuple[object, object]:
            shown = rest.ask("GET", "/api/v1/tags/press@heat/value").json
            return shown["value"], shown["quality"]

        wait_until(lambda: heat() == (None, "bad"), 15, f"the old one's value is not shown: {heat()}")


def test_the_last_device_of_the_registers_taken_out_while_the_server_was_away(house: House) -> None:
    """A server without a device does not join the bus; what it left there the last time stayed for ever."""
    gone = house.device("press", 10)
    house.start("modbus_server")
    with watch_bus(house.broker.port) as watch:
        wait_until(lambda: {"state", "link"} <= {topic.split("/")[0] for topic in left_over(watch)}, 15, "told")
        house.programs["modbus_server"].kill()
        house.store.delete_device(gone["id"])
        house.start("modbus_server")
        wait_until(lambda: not left_over(watch), 15, f"withdrawn: {left_over(watch)}")

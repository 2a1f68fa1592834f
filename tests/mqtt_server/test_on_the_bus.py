"""The gateway on the bus, as real programs: sensors become tags, tags of others become registers and messages, setpoints."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import Broker, start_mosquitto, start_nats, start_proxy
from tests.support.bus_watch import BusWatch, watch_bus
from tests.support.fake_owner import FakeOwner
from tests.support.fault_device import FaultDevice
from tests.support.plant import ONLINE, Plant, build_plant, tag
from tests.support.processes import Process, clean_environment, free_port


@pytest.fixture(params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    with (start_mosquitto if request.param == "mosquitto" else start_nats)(tmp_path / "broker") as running:
        yield running


@pytest.fixture
async def plant(tmp_path: Path, mosquitto: Broker) -> AsyncIterator[Plant]:
    async with build_plant(tmp_path, mosquitto) as built:
        yield built


@pytest.fixture
async def device() -> AsyncIterator[FaultDevice]:
    async with FaultDevice() as running:
        yield running


@contextmanager
def field_server(plant: Plant) -> Iterator[Process]:
    environment = clean_environment(
        MQTT_HOST="127.0.0.1",
        MQTT_PORT=plant.broker.port,
        SQLALCHEMY_DATABASE_URI=plant.uri,
        TAGWIRE_DATA_DIR=plant.folder,
        FIELD_SERVER_FAST_MS=100,
    )
    process = Process([sys.executable, "-m", "field_server"], environment)
    try:
        yield process.wait_ready()
    finally:
        process.close()


@contextmanager
def owner(plant: Plant, name: str = "field_server") -> Iterator[FakeOwner]:
    fake = FakeOwner(plant.broker.port, name)
    try:
        yield fake
    finally:
        fake.close()


def told(bus: BusWatch, tag_name: str) -> list[tuple[Any, str, int, str]]:
    """What was said of a tag of the room, in order."""
    return [(each.value, each.quality, each.time_ms, each.reason) for each in bus.of("room", tag_name)]


def sensor(name: str, **more: Any) -> dict[str, Any]:
    source = {"protocol": "mqtt", "direction": "in", "address": {"path": name}, **more.pop("binding", {})}
    return {"name": name, "data_type": "float", "bindings": [source], **more}


def fed(source: dict[str, Any], *sinks: dict[str, Any]) -> dict[str, Any]:
    outs = [{"direction": "out", **sink} for sink in sinks]
    return {"name": "level", "data_type": "float", "bindings": [{"direction": "in", **source}, *outs]}


SIMULATED = {"protocol": "simulated", "address": {"point": "level"}}
TO_MQTT = {"protocol": "mqtt", "address": {"path": "tank.level"}}


def to_modbus(register: int = 10, **options: Any) -> dict[str, Any]:
    return {"protocol": "modbus", "address": {"register": register}, "options": options, "scaling": {"gain": 0.1}}


def fed_device(plant: Plant, port: int, *sinks: dict[str, Any], **mqtt: Any) -> dict[str, Any]:
    """A simulated device, played by whoever owns it, whose level goes out."""
    modbus = {"host": "127.0.0.1", "port": port, "timeout_s": 0.3, "connect_timeout_s": 0.5}
    network = {"simulated": {"model": "tank"}, "modbus": modbus, "mqtt": mqtt}
    return plant.store.create_device({"name": "tank", "network": network, "tags": [fed(SIMULATED, *sinks)]})


async def test_a_sensor_is_a_tag_on_the_bus(tmp_path: Path, broker: Broker) -> None:
    async with build_plant(tmp_path, broker) as plant:
        tags = [sensor("t"), sensor("h", deadband=5.0), sensor("p", limits={"low": 0, "high": 10, "action": "clamp"})]
        plant.store.create_device(
            {"name": "room", "network": {"mqtt": {"topic": "plant/room", "time": "at"}}, "tags": tags}
        )
        with watch_bus(broker.port) as bus:
            await plant.start()
            await plant.wait(lambda: bus.is_running("mqtt_server"), "the program is on the bus")
            at = 1_767_323_045_000
            messages = [{"t": 21.5, "h": 40, "p": 5}, {"t": 22, "h": 44, "p": 50}, {"t": "hot", "h": 50, "p": 5}]
            await plant.publish([("plant/room", json.dumps(m | {"at": at + n})) for n, m in enumerate(messages)])
            await plant.wait(lambda: len(bus.samples) == 8, "every change is told")
            assert told(bus, "t") == [
                (21.5, "good", at, ""),
                (22, "good", at + 1, ""),
                (22, "bad", at + 2, "config_error"),
            ]
            assert told(bus, "h") == [(40, "good", at, ""), (50, "good", at + 2, "")]
            assert told(bus, "p")[1] == (10, "uncertain", at + 1, "out_of_range")
            await plant.wait(lambda: bus.states.get("room", {}).get("h", [0])[0] == 50, "the state")
            assert bus.kept["state/mqtt_server/room"]["t"] == [22, "bad", at + 2, {"reason": "config_error"}]
            assert bus.online("room") == [True]
            await plant.publish(
                [("plant/room", b"\xff{"), ("plant/room", json.dumps({"t": 1, "h": 50, "p": 5, "at": at + 9}))]
            )
            await plant.wait(lambda: bus.said("room", "t") == (1, "good", ""), "a poison payload hides no good one")


async def test_a_restart_and_a_deleted_device(plant: Plant) -> None:
    """The state outlives the program, also of tags that no message speaks of any more; nobody's state is withdrawn."""
    made = [
        plant.store.create_device(
            {"name": name, "network": {"mqtt": {"topic": f"plant/{name}"}}, "tags": [sensor("a"), sensor("b")]}
        )
        for name in ("one", "two")
    ]
    with watch_bus(plant.broker.port) as bus:
        gateway = await plant.start()
        await plant.publish([("plant/one", b'{"a": 1, "b": 2}'), ("plant/two", b'{"a": 3, "b": 4}')])
        await plant.wait(lambda: len(bus.states) == 2, "states")
        assert gateway.terminate() == 0
        await plant.wait(lambda: bus.kept["server/mqtt_server"] == {"online": False}, "it said goodbye")
        plant.store.delete_device(made[1]["id"])
        await plant.start()
        await plant.publish([("plant/one", b'{"a": 5}')])
        await plant.wait(lambda: bus.states["one"]["a"][0] == 5, "the state goes on")
        await plant.wait(lambda: "b" in bus.states["one"], "with what is known of the other tag")
        assert bus.states["one"]["b"][:2] == [2, "good"]
        await plant.wait(lambda: "two" not in bus.states, "the deleted device's is withdrawn")


async def test_a_silent_sensor_is_stale(plant: Plant) -> None:
    network = {"mqtt": {"topic": "plant/room", "silent_after_s": 0.8}}
    plant.store.create_device({"name": "room", "network": network, "tags": [sensor("t")]})
    with watch_bus(plant.broker.port) as bus:
        await plant.start()
        await plant.publish([("plant/room", b'{"t": 1}')])
        await plant.wait(lambda: bus.said("room", "t") == (1, "bad", "stale"), "stale after 0.8 s")
        await plant.wait(
            lambda: bus.kept["link/mqtt_server/room"]["error"] == "silent for 0.8 s", "and the link says so"
        )
        await plant.publish([("plant/room", b'{"t": 1}')])
        await plant.wait(lambda: bus.said("room", "t") == (1, "good", ""), "and good again")


async def test_a_simulated_tank_goes_to_mqtt_and_to_a_plc(tmp_path: Path, broker: Broker, device: FaultDevice) -> None:
    async with build_plant(tmp_path, broker) as plant:
        fed_device(plant, device.port, TO_MQTT, to_modbus())
        await plant.start()
        with watch_bus(broker.port, "device/+/out") as bus, field_server(plant):
            await plant.wait(lambda: bus.others, "messages with the level")
            await plant.wait(lambda: device.registers[10], "registers with the level", 15)
            topic, document, _ = bus.others[0]
            assert topic.startswith("device/")
            assert document.keys() == {"tank"}
            assert 0 <= document["tank"]["level"] <= 100
            await plant.wait(
                lambda: abs(device.registers[10] / 10 - bus.said("tank", "level")[0]) <= 1.5,  # type: ignore[index]
                "the registers follow",
            )


async def test_a_polled_plc_goes_to_mqtt_and_on_to_another_plc(plant: Plant, device: FaultDevice) -> None:
    modbus = {"host": "127.0.0.1", "port": device.port, "timeout_s": 0.3}
    source = {"protocol": "modbus", "address": {"register": 3}, "scan": "fast"}
    network = {"modbus": modbus, "mqtt": {"out_topic": "site/plc", "out_retain": True}}
    plant.store.create_device({"name": "plc", "network": network, "tags": [fed(source, TO_MQTT)]})
    device.registers[3] = 77
    async with FaultDevice() as other:
        plant.device("other", other.port, [tag("t", 8, path="tank.level")], mqtt={"topic": "site/+"})
        # One that would write what the first is polled from: its value is sent no more.
        loop = plant.device("loop", device.port, [tag("t", 3, path="tank.level")], mqtt={"topic": "site/plc"})
        with watch_bus(plant.broker.port, "site/#") as bus, field_server(plant):
            await plant.start()
            await plant.wait(
                lambda: "plc@level: its value on site/plc would come back" in plant.output, "the loop is told"
            )
            await plant.wait(lambda: bus.said("plc", "level") == (77, "good", ""), "the tag is read")
            assert [reject["code"] for reject in plant.rejects()] == ["bad_config"]
            await plant.wait(lambda: bus.is_running("mqtt_server"), "the gateway hears it")
            await asyncio.sleep(1.0)
            assert not bus.others
            plant.store.delete_device(loop["id"])
            await asyncio.sleep(2.0)
            device.registers[3] = 78
            await plant.wait(lambda: bus.others and bus.others[-1][1] == {"tank": {"level": 78}}, "then every change")
            await plant.wait(lambda: other.registers[8] == 78, "also in the other PLC")
            device.registers[3] = 79
            await plant.wait(lambda: other.registers[8] == 79, "again")
    with watch_bus(plant.broker.port, "site/#") as later:
        await plant.wait(lambda: later.others == [("site/plc", {"tank": {"level": 79}}, True)], "retained")


async def test_bad_values_are_not_written_and_raise_the_fail_safe(plant: Plant, device: FaultDevice) -> None:
    fed_device(plant, device.port, to_modbus(failsafe={"after_s": 0.8, "value": 99, "flag": 50}))
    await plant.start()
    with owner(plant) as fake:
        fake.server(True)
        fake.data("tank", ["level", 5.0, "good", 1000])
        await plant.wait(lambda: device.registers[10] == 50 and device.registers[50] == 0, "a good value")
        await asyncio.sleep(1.5)
        assert device.registers[10] == 50, "a value that does not change is no silence"
        fake.data("tank", ["level", 7.0, "bad", 2000, {"reason": "comm_failure"}])
        await plant.wait(lambda: device.registers[10] == 990 and device.registers[50] == 1, "the fail-safe")
        fake.data("tank", ["level", 6.0, "good", 3000])
        await plant.wait(lambda: device.registers[10] == 60 and device.registers[50] == 0, "good again")
        fake.server(False)
        await plant.wait(lambda: device.registers[10] == 990, "its owner is gone")
        fake.server(True)
        await plant.wait(lambda: device.registers[10] == 60, "and back: the value holds")
        assert 70 not in [int.from_bytes(seen.pdu[3:5], "big") for seen in device.seen]


async def test_a_value_for_a_plc_that_is_away_stands_in_the_outbox(plant: Plant, device: FaultDevice) -> None:
    fed_device(plant, device.port, to_modbus(every_value=True))
    await device.set_mode("refuse")
    gateway = await plant.start()
    with owner(plant) as fake:
        for number in (1, 2, 3):
            fake.data("tank", ["level", number, "good", 1000 * number])
        await plant.wait(lambda: plant.outbox() == [1, 2, 3], "the values are on disk")
        gateway.kill()
        await device.set_mode("good")
        await plant.start()
        await plant.wait(lambda: device.registers[10] == 30, "they arrive after all")
        assert [int.from_bytes(seen.pdu[3:5], "big") for seen in device.seen] == [10, 20, 30]


async def test_a_setpoint_is_sent_to_its_device(tmp_path: Path, broker: Broker, device: FaultDevice) -> None:
    async with build_plant(tmp_path, broker) as plant:
        modbus = {"host": "127.0.0.1", "port": device.port}
        target = {"direction": "out", **TO_MQTT, "address": {"path": "set.level"}, "scaling": {"gain": 0.5}}
        shown = {"direction": "out", "protocol": "modbus", "address": {"register": 4}}
        mode = {"direction": "out", "protocol": "mqtt", "address": {"path": "mode"}}
        tags = [
            {"name": "target", "limits": {"low": 0, "high": 50}, "bindings": [target, shown]},
            {"name": "mode", "data_type": "string", "bindings": [mode]},
            sensor("t"),
        ]
        plant.store.create_device(
            {"name": "valve", "network": {"mqtt": {"topic": "plant/valve"}, "modbus": modbus}, "tags": tags}
        )
        await plant.start()
        with watch_bus(broker.port, "device/#") as bus:
            await plant.wait(lambda: bus.is_running("mqtt_server"), "on the bus")
            soon_ms = time.time_ns() // 1_000_000 + 10_000
            one = bus.set("valve", "target", 20, expires_ms=soon_ms)
            await plant.wait(lambda: bus.final(one), "the command ends")
            assert bus.final(one)["reason"] == ""  # type: ignore[index]
            assert bus.steps(one) == ["accepted", "sent", "acknowledged"]
            assert bus.others[0][1] == {"set": {"level": 40}}
            await plant.wait(lambda: bus.said("valve", "target") == (20, "good", ""), "it is a sample")
            await plant.wait(lambda: device.registers[4] == 20, "and goes to the tag's other places")
            two = bus.set("valve", values={"target": 10, "mode": "eco"}, expires_ms=soon_ms)
            await plant.wait(lambda: bus.final(two), "the group ends")
            assert bus.others[-1][1] == {"set": {"level": 20}, "mode": "eco"}
            for tag_name, value, reason in (("target", 51, "limit"), ("t", 5, "read only"), ("mode", 5, "text")):
                no = bus.set("valve", tag_name, value, expires_ms=soon_ms)
                await plant.wait(lambda no=no: bus.feedback[no], "refused")  # type: ignore[misc]  # the lambda's default
                assert bus.feedback[no][0]["state"] == "failed"
                assert reason in bus.feedback[no][0]["reason"]
            assert len(bus.others) == 2


async def test_samples_survive_a_broker_that_is_killed_again_and_again(plant: Plant) -> None:
    """Row B1 for the samples: none is lost, the order is kept, repeats are marked or follow at once."""
    count, kills = 2000, 3
    plant.store.create_device({"name": "m", "network": {"mqtt": {"topic": "plant/m"}}, "tags": [sensor("seq")]})
    assert isinstance(plant.broker, Broker)
    # With a session, and back before anything new is said: else what is lost may be what it did not hear itself.
    with watch_bus(plant.broker.port, session=True) as bus:
        await plant.start()
        for number in range(kills):
            share = range(number * count // kills + 1, (number + 1) * count // kills + 1)
            await plant.publish([("plant/m", b'{"seq": %d}' % value) for value in share])
            await asyncio.sleep(0.5)
            connections = bus.connections
            plant.broker.restart()
            await plant.wait(lambda n=number: plant.output.count("-bus)") >= n + 2, "the bus is back", 20)  # type: ignore[misc]  # the lambda's default
            await plant.wait(lambda n=number: plant.output.count("mqtt_server)") >= n + 2, "the link is back", 20)  # type: ignore[misc]  # the lambda's default
            await plant.wait(lambda n=connections: bus.connections > n, "the listener is back", 20)  # type: ignore[misc]  # the lambda's default
        await plant.wait(lambda: bus.value("m", "seq") == count, "the last one", 20)
        first_seen = dict.fromkeys(int(each.value) for each in bus.of("m", "seq"))
        assert list(first_seen) == list(range(1, count + 1))


def test_a_topic_that_leads_back_is_refused(tmp_path: Path) -> None:
    """As `MqttNetwork.faults` says it, over the store."""
    from scada.errors import ConfigError
    from storage.config_store import ConfigStore
    from storage.engine import open_engine
    from storage.migrate import migrate

    engine = open_engine(f"sqlite:///{tmp_path}/db.sqlite")
    migrate(engine)
    network = {"mqtt": {"topic": "plant/#", "out_topic": "plant/x/out"}}
    with pytest.raises(ConfigError, match="listens to it"):
        ConfigStore(engine).create_device({"name": "loop", "network": network, "tags": []})
    engine.dispose()


async def test_the_bus_comes_with_a_broker_that_comes_late(tmp_path: Path) -> None:
    """Row B2 for the samples: what nobody could hear is told afterwards, in few lines of log."""
    port = free_port()
    with start_proxy(port) as closed:
        closed.close()
        async with build_plant(tmp_path, closed, MQTT_PORT=port) as plant:
            network = {"mqtt": {"topic": "plant/m"}}
            plant.store.create_device({"name": "m", "network": network, "tags": [sensor("t")]})
            await plant.start(online=False)
            await asyncio.sleep(6.5)
            lines = plant.output.count("\n")
            with start_mosquitto(tmp_path / "broker", port=port) as broker, watch_bus(broker.port) as bus:
                await plant.wait(lambda: bus.is_running("mqtt_server"), "the bus is there", 8)
                await plant.wait(lambda: bus.said("m", "t") == (None, "bad", "not_connected"), "nothing was heard", 8)
                plant.broker = broker
                await plant.wait(lambda: ONLINE.search(plant.output), "the devices' topics too", 8)
                await plant.publish([("plant/m", b'{"t": 1}')])
                await plant.wait(lambda: bus.said("m", "t") == (1, "good", ""), "good")
                assert bus.kept["link/mqtt_server/m"]["online"] is True
            assert lines <= 8


@pytest.mark.parametrize("topic", ["#", "+/+/+/+", "+/set/+"])
async def test_a_filter_that_takes_everything_never_sees_the_bus(plant: Plant, device: FaultDevice, topic: str) -> None:
    """Every sample of the device became a message to it, and that another sample."""
    plant.device("all", device.port, [tag("t", 0)], mqtt={"topic": topic})
    await plant.start()
    await plant.publish([("tagwire/data/mqtt_server/all", b'{"t": 5}'), ("tagwire/set/all", b'{"t": 6}')])
    await plant.publish([("plant/set/x" if topic == "+/set/+" else "a/b/c/d", b'{"t": 7}')])
    await plant.wait(lambda: device.registers[0] == 7, "another topic")
    await asyncio.sleep(1.0)
    assert len(device.seen) == 1
    assert plant.rejects() == []

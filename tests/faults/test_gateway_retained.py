"""Row M2 where the upstream is MQTT: an old value that a broker has retained never looks fresh, and replaces nothing newer."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.brokers import start_mosquitto
from tests.support.fault_device import FaultDevice
from tests.support.plant import Plant, build_plant, tag
from tests.support.processes import Process

RETAINED, LIVE = [("plant/boiler", b'{"a": 1}')], [("plant/boiler", b'{"a": 2}')]
STALE_S = 0.8
both_brokers = pytest.mark.parametrize("broker", ["mosquitto", "quick_nats"], indirect=True)


def flagged(register: int, flag: int) -> dict[str, object]:
    return tag("a", register, options={"failsafe": {"after_s": STALE_S, "flag": flag}})


def seen(device: FaultDevice, register: int) -> list[int]:
    """What single-register writes wrote to a register, in order."""
    writes = (each.pdu for each in device.seen if each.pdu[0] == 6 and each.pdu[1:3] == register.to_bytes(2, "big"))
    return [int.from_bytes(pdu[3:5], "big") for pdu in writes]


async def end(gateway: Process, how: str) -> None:
    await asyncio.to_thread(gateway.kill if how == "kill -9" else gateway.terminate)


@both_brokers
@pytest.mark.parametrize("how", ["kill -9", "restart"])
async def test_m2_after_a_restart_the_retained_value_does_not_come_back(
    gateway_plant: Plant, device: FaultDevice, how: str
) -> None:
    """Registers [2, flag 1] became [1, flag 0]: an old value that looked fresh."""
    gateway_plant.device("boiler", device.port, [flagged(0, 50)])
    await gateway_plant.publish(RETAINED, retain=True)
    gateway = await gateway_plant.start()
    await gateway_plant.wait(lambda: device.registers[0] == 1, "a newcomer gets what is retained")
    await gateway_plant.publish(LIVE)
    await gateway_plant.wait(lambda: (device.registers[0], device.registers[50]) == (2, 0), "the live value")
    await gateway_plant.wait(lambda: device.registers[50] == 1, "then silence")
    for _ in range(2):
        device.seen.clear()
        await end(gateway, how)
        gateway = await gateway_plant.start()
        await asyncio.sleep(STALE_S + 0.7)
        assert (device.registers[0], device.registers[50]) == (2, 1)
        assert seen(device, 0) == []
        assert 0 not in seen(device, 50), "the flag stays as it is until a live message"
    await gateway_plant.publish([("plant/boiler", b'{"a": 3}')])
    await gateway_plant.wait(lambda: (device.registers[0], device.registers[50]) == (3, 0), "the source is back")
    assert gateway_plant.rejects() == []


@both_brokers
async def test_m2_killed_the_moment_the_first_live_value_stands(gateway_plant: Plant, device: FaultDevice) -> None:
    """What is not on disk by then is not acknowledged to the broker, which sends it again."""
    gateway_plant.device("boiler", device.port, [tag("a", 0)])
    await gateway_plant.publish(RETAINED, retain=True)
    gateway = await gateway_plant.start()
    await gateway_plant.wait(lambda: device.registers[0] == 1, "what is retained")
    with closing(sqlite3.connect(gateway_plant.folder / "plant.sqlite", isolation_level=None)) as rival:
        rival.execute("BEGIN IMMEDIATE")  # so that the moment is long enough to be hit
        await gateway_plant.publish(LIVE)
        await gateway_plant.wait(lambda: device.registers[0] == 2, "the live value")
        await asyncio.to_thread(gateway.kill)
    await gateway_plant.start()
    await asyncio.sleep(0.7)
    await gateway_plant.wait(lambda: device.registers[0] == 2, "and nothing older")
    await asyncio.sleep(0.5)
    assert device.registers[0] == 2


@both_brokers
async def test_m2_a_retained_value_does_not_tell_that_the_source_speaks(
    gateway_plant: Plant, device: FaultDevice
) -> None:
    """For a device that nobody has heard live it is written, marked as what it is."""
    await gateway_plant.publish(RETAINED, retain=True)
    gateway_plant.device("boiler", device.port, [flagged(0, 50)])
    safe = {"after_s": STALE_S, "value": 9}
    gateway_plant.device(
        "second", device.port, [tag("a", 1, options={"failsafe": safe})], mqtt={"topic": "plant/boiler"}
    )
    device.registers[50] = 1
    await gateway_plant.start()
    await gateway_plant.wait(lambda: device.registers[0] == 1, "what is retained is written")
    await gateway_plant.wait(lambda: device.registers[1] == 9, "the fail-safe value follows after the same silence")
    assert 0 not in seen(device, 50)
    assert device.registers[:2] == [1, 9]
    await gateway_plant.publish(LIVE)
    await gateway_plant.wait(lambda: (device.registers[:2], device.registers[50]) == ([2, 2], 0), "the source speaks")


@both_brokers
async def test_what_was_sent_retained_while_the_gateway_was_away_counts(
    gateway_plant: Plant, device: FaultDevice
) -> None:
    """The broker has kept it as a message like any other, beside what it has retained."""
    gateway_plant.device("boiler", device.port, [tag("a", 0)])
    gateway = await gateway_plant.start()
    await gateway_plant.publish(LIVE, retain=True)
    await gateway_plant.wait(lambda: device.registers[0] == 2, "live")
    await asyncio.to_thread(gateway.kill)
    await gateway_plant.publish([("plant/boiler", b'{"a": 7}')], retain=True)
    await gateway_plant.start()
    await gateway_plant.wait(lambda: device.registers[0] == 7, "the newest")


@both_brokers
async def test_devices_that_are_new_or_were_moved_get_what_is_retained(
    gateway_plant: Plant, device: FaultDevice
) -> None:
    await gateway_plant.publish([("plant/boiler", b'{"a": 1}'), ("plant/other", b'{"a": 5}')], retain=True)
    made = gateway_plant.device("boiler", device.port, [tag("a", 0)])
    gateway = await gateway_plant.start()
    await gateway_plant.publish(LIVE)
    await gateway_plant.wait(lambda: device.registers[0] == 2, "live")
    await end(gateway, "restart")
    gateway_plant.device("other", device.port, [tag("a", 1)])
    gateway_plant.store.patch_device(made["id"], {"network": {"mqtt": {"topic": "plant/+"}}})
    await gateway_plant.start()
    await gateway_plant.wait(lambda: device.registers[1] == 5, "a new device")
    await gateway_plant.wait(lambda: device.registers[0] in (1, 5), "another topic than the one that was heard")


async def test_a_broker_that_forgot_the_session_is_asked_for_what_it_retained(
    tmp_path: Path, device: FaultDevice
) -> None:
    """Nobody knows what was sent meanwhile: what is retained may be all that is left of it."""
    with start_mosquitto(tmp_path / "first") as broker:
        async with build_plant(tmp_path, broker) as plant:
            plant.device("boiler", device.port, [tag("a", 0)])
            gateway = await plant.start()
            await plant.publish(LIVE)
            await plant.wait(lambda: device.registers[0] == 2, "live")
            await end(gateway, "restart")
            with start_mosquitto(tmp_path / "second") as other:
                plant.broker = other
                await plant.publish([("plant/boiler", b'{"a": 8}')], retain=True)
                await plant.start()
                await plant.wait(lambda: device.registers[0] == 8, "what the new broker retained")

"""Rows S3 and S4 seen from the gateway: with its database locked, read-only or gone it goes on writing to devices."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.fault_device import FaultDevice
from tests.support.plant import Plant, build_plant, tag


@pytest.fixture
async def plant(tmp_path: Path, mosquitto: Broker) -> AsyncIterator[Plant]:
    async with build_plant(tmp_path, mosquitto) as built:
        yield built


@pytest.fixture
async def device() -> AsyncIterator[FaultDevice]:
    async with FaultDevice() as running:
        yield running


@pytest.fixture
async def dead() -> AsyncIterator[FaultDevice]:
    async with FaultDevice() as running:
        await running.set_mode("refuse")
        yield running


async def serve(plant: Plant, device: FaultDevice, numbers: range) -> None:
    for number in numbers:
        await plant.publish([("plant/boiler", b'{"t": %d}' % number), ("plant/boiler", b"poison")])
        await plant.wait(lambda number=number: device.registers[0] == number, "written as ever", 2)


async def test_s4_locked_by_another_program(plant: Plant, device: FaultDevice, dead: FaultDevice) -> None:
    plant.device("boiler", device.port, [tag("t", 0)])
    plant.device("dead", dead.port, [tag("t", 0)])
    await plant.start()
    with sqlite3.connect(plant.folder / "plant.sqlite", isolation_level=None) as rival:
        rival.execute("BEGIN EXCLUSIVE")
        await plant.publish([("plant/dead", b'{"t": 5}')])
        await serve(plant, device, range(1, 20))
        await plant.wait(lambda: "outbox: cannot be written" in plant.output, "the operator is told", 10)
        await serve(plant, device, range(20, 40))
        rival.execute("ROLLBACK")
    rival.close()
    await plant.wait(lambda: plant.outbox() == [5], "what waits is on disk after all", 15)
    await plant.wait(lambda: len(plant.rejects()) == 39, "the rejects too", 15)
    assert plant.output.count("outbox: cannot be written") == 1
    await dead.set_mode("good")
    await plant.wait(lambda: dead.registers[0] == 5, "and written")


async def test_s4_ends_in_time_although_the_database_is_locked(
    plant: Plant, device: FaultDevice, dead: FaultDevice
) -> None:
    plant.device("boiler", device.port, [tag("t", 0)])
    plant.device("dead", dead.port, [tag("t", 0)])
    gateway = await plant.start()
    with sqlite3.connect(plant.folder / "plant.sqlite", isolation_level=None) as rival:
        rival.execute("BEGIN EXCLUSIVE")
        await plant.publish([("plant/dead", b'{"t": 5}'), ("plant/boiler", b"poison")])
        await asyncio.sleep(0.5)
        started = time.monotonic()
        assert await asyncio.to_thread(gateway.terminate, 20) == 0
        # The transaction under way is not torn: up to its own five seconds.
        assert time.monotonic() - started < 10.0
        rival.execute("ROLLBACK")
    rival.close()
    assert plant.outbox() == []
    await plant.start()
    await plant.wait(lambda: plant.outbox() == [5], "the broker kept what was not acknowledged")


@pytest.mark.parametrize("fault", ["deleted", "garbage"])
async def test_s3_the_database_is_gone(plant: Plant, device: FaultDevice, dead: FaultDevice, fault: str) -> None:
    plant.device("boiler", device.port, [tag("t", 0)])
    plant.device("dead", dead.port, [tag("t", 0)])
    gateway = await plant.start()
    files = [plant.folder / f"plant.sqlite{end}" for end in ("", "-wal", "-shm")]
    for path in files:
        path.unlink(missing_ok=True)
    if fault == "garbage":
        files[0].write_bytes(b"this is no database\n" * 1000)
    await plant.publish([("plant/dead", b'{"t": 5}')])
    await plant.wait(lambda: "configuration: cannot be read, the last one stays" in plant.output, "told", 10)
    await serve(plant, device, range(1, 30))
    assert gateway.popen.poll() is None
    assert plant.output.count("cannot be read") == 1
    assert "Traceback" not in plant.output
    if fault == "garbage":
        assert files[0].read_bytes() == b"this is no database\n" * 1000, "left as it is"


async def test_rows_with_faults_are_left_out_and_named(plant: Plant, device: FaultDevice) -> None:
    plant.device("boiler", device.port, [tag("good", 0), tag("bad", 1), tag("worse", 2)])
    plant.device("mute", device.port, [tag("t", 5)])
    with sqlite3.connect(plant.folder / "plant.sqlite") as writer:
        writer.execute("""UPDATE binding SET address = '{"register": 99999}' WHERE id = 4""")
        writer.execute("""UPDATE binding SET address = 'no JSON' WHERE id = 6""")
        writer.execute(
            """UPDATE network SET settings = '{"topic": "a/#/b"}' WHERE device_id = 2 AND protocol = 'mqtt'"""
        )
    writer.close()
    gateway = await plant.start()
    await plant.publish([("plant/boiler", b'{"good": 1, "bad": 2, "worse": 3}')])
    await plant.wait(lambda: device.registers[0] == 1, "what can be understood is served")
    assert device.registers[1:6] == [0] * 5
    assert "bad" in plant.output
    assert "worse" in plant.output
    assert gateway.popen.poll() is None

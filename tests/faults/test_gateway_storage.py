"""Rows S3 and S4 seen from the gateway: with its database locked, read-only or gone it goes on writing to devices."""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.event_store import RejectLog
from tests.support.brokers import Broker
from tests.support.fault_device import FaultDevice
from tests.support.plant import Plant, build_plant, tag
from tests.support.processes import free_port, start_program
from tests.support.rest import Server
from tests.support.soak import rounds

# Longer than SQLite's own busy timeout of 5 s in every form.
HELD_S = rounds(8, 30)
EXIT_S = 5.0


@pytest.fixture
async def dead() -> AsyncIterator[FaultDevice]:
    async with FaultDevice() as running:
        await running.set_mode("refuse")
        yield running


def written(device: FaultDevice, register: int) -> list[int]:
    """What requests wrote to one register by function 6 or 16, in order."""
    result = []
    for seen in device.seen:
        function, offset = seen.pdu[0], register - int.from_bytes(seen.pdu[1:3], "big")
        values = {6: seen.pdu[3:5], 16: seen.pdu[6:]}.get(function, b"")
        if 0 <= offset < len(values) // 2:
            result.append(int.from_bytes(values[2 * offset : 2 * offset + 2], "big"))
    return result


async def serve(plant: Plant, device: FaultDevice, numbers: range) -> None:
    for number in numbers:
        await plant.publish([("plant/boiler", b'{"t": %d}' % number), ("plant/boiler", b"poison")])
        await plant.wait(lambda number=number: device.registers[0] == number, "written as ever", 2)


async def test_s4_locked_by_another_program(gateway_plant: Plant, device: FaultDevice, dead: FaultDevice) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0)])
    gateway_plant.device("dead", dead.port, [tag("t", 0), tag("every", 1, options={"every_value": True})])
    gateway = await gateway_plant.start()
    await serve(gateway_plant, device, range(1, 2))
    before = gateway.resident_bytes
    number = 1
    with sqlite3.connect(gateway_plant.folder / "plant.sqlite", isolation_level=None) as rival:
        rival.execute("BEGIN EXCLUSIVE")
        until = time.monotonic() + HELD_S
        while time.monotonic() < until:
            number += 1
            await gateway_plant.publish([("plant/dead", b'{"t": %d, "every": %d}' % (number, number))])
            await serve(gateway_plant, device, range(number, number + 1))
        # One thread writes both: which of them meets the lock first is chance, the other comes 5 s later.
        told = [gateway_plant.output.count(f"{each}: cannot be written") for each in ("outbox", "rejects")]
        assert set(told) <= {0, 1}
        assert sum(told) == 2 if HELD_S > 10 else sum(told) >= 1
        grown = gateway.resident_bytes - before
        rival.execute("ROLLBACK")
    rival.close()
    print(f"{number} messages of each kind in {HELD_S} s, resident memory grew by {grown / 2**20:.1f} MiB")
    assert grown < 50 * 2**20
    every = list(range(2, number + 1))
    await gateway_plant.wait(
        lambda: sorted(gateway_plant.outbox()) == sorted([number, *every]), "what waits is on disk after all", 15
    )
    await gateway_plant.wait(lambda: len(gateway_plant.rejects()) == min(number, 1000), "the rejects too", 15)
    assert RejectLog(gateway_plant.engine).counts() == {"not_json": number}
    await dead.set_mode("good")
    await gateway_plant.wait(lambda: dead.registers[:2] == [number, number], "and written")
    assert written(dead, 1) == every


async def test_s4_ends_in_time_although_the_database_is_locked(
    gateway_plant: Plant, device: FaultDevice, dead: FaultDevice
) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0)])
    gateway_plant.device("dead", dead.port, [tag("t", 0)])
    gateway = await gateway_plant.start()
    with sqlite3.connect(gateway_plant.folder / "plant.sqlite", isolation_level=None) as rival:
        rival.execute("BEGIN EXCLUSIVE")
        await gateway_plant.publish([("plant/dead", b'{"t": 5}'), ("plant/boiler", b"poison")])
        await asyncio.sleep(0.5)
        started = time.monotonic()
        assert await asyncio.to_thread(gateway.terminate, 20) == 0
        took = time.monotonic() - started
        print(f"ended after {took:.2f} s")
        assert took < EXIT_S
        rival.execute("ROLLBACK")
    rival.close()
    assert "rejects: not in the database at the end: 1 not_json" in gateway_plant.output
    assert gateway_plant.outbox() == []
    await gateway_plant.start()
    await gateway_plant.wait(lambda: gateway_plant.outbox() == [5], "the broker kept what was not acknowledged")


async def test_s4_ends_in_time_while_it_waits_for_a_locked_new_database(tmp_path: Path, mosquitto: Broker) -> None:
    async with build_plant(tmp_path, mosquitto, SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/new.sqlite") as plant:
        with sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None) as rival:
            rival.execute("BEGIN EXCLUSIVE")
            gateway = await plant.start(ready=False, online=False)
            await asyncio.to_thread(gateway.wait_handler)
            await asyncio.sleep(1.0)
            started = time.monotonic()
            assert await asyncio.to_thread(gateway.terminate, 20) == 0
            assert time.monotonic() - started < EXIT_S
        rival.close()


@pytest.mark.parametrize("fault", ["deleted", "garbage"])
async def test_s3_the_database_is_gone(
    gateway_plant: Plant, device: FaultDevice, dead: FaultDevice, fault: str
) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0)])
    gateway_plant.device("dead", dead.port, [tag("t", 0)])
    gateway = await gateway_plant.start()
    files = [gateway_plant.folder / f"plant.sqlite{end}" for end in ("", "-wal", "-shm")]
    for path in files:
        path.unlink(missing_ok=True)
    if fault == "garbage":
        files[0].write_bytes(b"this is no database\n" * 1000)
    await gateway_plant.publish([("plant/dead", b'{"t": 5}')])
    await gateway_plant.wait(
        lambda: "configuration: cannot be read, the last one stays" in gateway_plant.output, "told", 10
    )
    await serve(gateway_plant, device, range(1, 30))
    assert gateway.popen.poll() is None
    assert gateway_plant.output.count("cannot be read") == 1
    assert "Traceback" not in gateway_plant.output
    if fault == "garbage":
        assert files[0].read_bytes() == b"this is no database\n" * 1000, "left as it is"


async def test_s3_damaged_at_the_start_nothing_is_lost_and_the_operator_decides(
    gateway_plant: Plant, device: FaultDevice
) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0, options={"every_value": True})])
    gateway = await gateway_plant.start()
    await serve(gateway_plant, device, range(1, 3))
    assert await asyncio.to_thread(gateway.terminate) == 0
    export = gateway_plant.store.export_config()
    gateway_plant.engine.dispose()
    await gateway_plant.publish([("plant/boiler", b'{"t": %d}' % number) for number in range(100, 150)])
    path = gateway_plant.folder / "plant.sqlite"
    path.write_bytes(os.urandom(100_000))
    damaged = path.read_bytes()
    started = time.monotonic()
    # Both at once: one of them moves it.
    gateway = await gateway_plant.start(ready=False, online=False)
    port = free_port()
    with start_program("flask_app", SQLALCHEMY_DATABASE_URI=gateway_plant.uri, FLASK_APP_PORT=port) as process:
        await asyncio.to_thread(process.wait_ready)
        rest = Server(process, port)
        assert (await asyncio.to_thread(rest.ask, "GET", "/readyz")).json["status"] == "degraded"
        await gateway_plant.wait(
            lambda: "nothing is read or written until" in gateway_plant.output, "the operator is told"
        )
        assert time.monotonic() - started < 10.0
        (moved,) = (
            each
            for each in gateway_plant.folder.glob("plant.sqlite.damaged-*")
            if not each.name.endswith(("-wal", "-shm"))
        )
        assert moved.read_bytes() == damaged
        assert (gateway_plant.output + process.output).count("was damaged: ") == 1
        answer = await asyncio.to_thread(rest.ask, "PUT", "/api/v1/config", export)
        assert answer.status == 200, answer.body
        await asyncio.sleep(2.0)
        assert device.registers[0] == 2, "not before the operator says so"
        assert "online (tagwire-mqtt_server)" not in gateway_plant.output
        for each in gateway_plant.folder.glob("plant.sqlite.damaged-*"):
            each.unlink()
        await gateway_plant.wait(lambda: device.registers[0] == 149, "then all that the broker kept is written", 15)
        assert written(device, 0)[-50:] == list(range(100, 150))
        assert (await asyncio.to_thread(rest.ask, "GET", "/readyz")).json["status"] == "ready"


async def test_rows_with_faults_are_left_out_and_named(gateway_plant: Plant, device: FaultDevice) -> None:
    gateway_plant.device("boiler", device.port, [tag("good", 0), tag("bad", 1), tag("worse", 2)])
    gateway_plant.device("mute", device.port, [tag("t", 5)])
    with sqlite3.connect(gateway_plant.folder / "plant.sqlite") as writer:
        writer.execute("""UPDATE binding SET address = '{"register": 99999}' WHERE id = 4""")
        writer.execute("""UPDATE binding SET address = 'no JSON' WHERE id = 6""")
        writer.execute(
            """UPDATE network SET settings = '{"topic": "a/#/b"}' WHERE device_id = 2 AND protocol = 'mqtt'"""
        )
    writer.close()
    gateway = await gateway_plant.start()
    await gateway_plant.publish([("plant/boiler", b'{"good": 1, "bad": 2, "worse": 3}')])
    await gateway_plant.wait(lambda: device.registers[0] == 1, "what can be understood is served")
    assert device.registers[1:6] == [0] * 5
    assert "bad" in gateway_plant.output
    assert "worse" in gateway_plant.output
    assert gateway.popen.poll() is None

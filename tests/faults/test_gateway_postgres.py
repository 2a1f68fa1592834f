"""The gateway on PostgreSQL: outbox, rejects and what was heard outlive a kill of it, and a crash of the server."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from scada.errors import LinkError
from tests.support.brokers import Broker
from tests.support.fault_device import FaultDevice
from tests.support.plant import Plant, build_plant, tag
from tests.support.postgres import PostgresServer, postgres_server, programs


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    if programs() is None:
        pytest.skip("PostgreSQL's wheel is not installed")
    with postgres_server() as running:
        yield running


@pytest.fixture
async def plant(tmp_path: Path, mosquitto: Broker, server: PostgresServer) -> AsyncIterator[Plant]:
    async with build_plant(tmp_path, mosquitto, SQLALCHEMY_DATABASE_URI=server.uri()) as built:
        yield built


def message(number: int) -> tuple[str, bytes]:
    return "plant/boiler", b'{"latest": %d, "every": %d}' % (number, number)


def emptied(plant: Plant) -> bool:
    try:
        return plant.outbox() == []
    except LinkError:  # the connection that the crash has cut
        return False


async def test_s7_a_kill_of_the_gateway_and_a_crash_of_the_server(
    plant: Plant, device: FaultDevice, server: PostgresServer
) -> None:
    plant.device("boiler", device.port, [tag("latest", 0), tag("every", 1, options={"every_value": True})])
    await plant.publish([message(1)], retain=True)
    gateway = await plant.start()
    await plant.wait(lambda: device.registers[:2] == [1, 1], "what is retained")
    await plant.publish([message(2), ("plant/boiler", b"poison")])
    await plant.wait(lambda: device.registers[:2] == [2, 2], "served")
    await plant.wait(lambda: [each["payload"] for each in plant.rejects()] == ["poison"], "the reject is listed")

    await device.set_mode("refuse")
    await plant.publish([message(number) for number in (3, 4, 5)])
    await plant.wait(lambda: sorted(plant.outbox()) == [3, 4, 5, 5], "what waits is on disk")
    await asyncio.to_thread(gateway.kill)
    await device.set_mode("good")
    await plant.start()
    await plant.wait(lambda: device.registers[:2] == [5, 5], "written after the kill")
    await plant.wait(lambda: plant.outbox() == [], "the outbox is empty")
    await asyncio.sleep(0.5)
    assert device.registers[:2] == [5, 5], "and not what is retained"

    await asyncio.to_thread(server.stop, signal.SIGKILL)
    await plant.publish([message(6)])
    await plant.wait(lambda: device.registers[:2] == [6, 6], "devices are served without the database")
    await device.set_mode("refuse")
    await plant.publish([message(7), message(8)])
    await plant.wait(lambda: "outbox: cannot be written" in plant.output, "told")
    await asyncio.to_thread(server.start)
    await plant.wait(lambda: "outbox: can be written again" in plant.output, "the server is back", 15)
    await device.set_mode("good")
    await plant.wait(lambda: device.registers[:2] == [8, 8], "nothing is lost", 15)
    await plant.wait(lambda: emptied(plant), "the outbox is empty again")
    await asyncio.sleep(0.5)
    assert device.registers[:2] == [8, 8]
    assert "Traceback" not in plant.output

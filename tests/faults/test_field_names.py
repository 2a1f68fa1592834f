"""Devices with names whose resolver never answers: a field server as a process that has no other resolver."""

import asyncio
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.bus_watch import watch_bus
from tests.support.fault_device import FaultDevice
from tests.support.field_plant import SLOW_MACHINE_S, build_field_plant, tag
from tests.support.silent_resolver import silent_resolver
from tests.support.soak import rounds

pytestmark = pytest.mark.alone


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


async def test_d10_names_that_are_never_found(tmp_path: Path, mosquitto: Broker) -> None:
    """Bad in time; a name that is found, an address, commands and the end wait for none of them."""
    count = rounds(40, 400)
    with silent_resolver(tmp_path) as before, watch_bus(mosquitto.port) as watch:
        async with FaultDevice() as device, build_field_plant(tmp_path, mosquitto) as plant:
            plant.before = before
            lost = [f"lost{number}" for number in range(count)]
            for name in lost:
                plant.device(name, 502, tag("a", 0), host=f"{name}.example")
            plant.device("address", device.port, tag("a", 0))
            plant.device("name", device.port, tag("a", 1, "inout"), host="localhost")
            server = await plant.start()
            begun = time.monotonic()
            await plant.wait(
                lambda: watch.quality("address", "a") == watch.quality("name", "a") == "good", "read", 5 + count / 50
            )
            await plant.wait(lambda: all(watch.quality(name, "a") == "bad" for name in lost), "bad", 10 + count / 50)
            bad_after_s = max(watch.of(name, "a")[0].at_s for name in lost) - begun
            assert bad_after_s < count / 100 + 0.5 + SLOW_MACHINE_S, (
                "100 connects a second, connect_timeout_s, a slow machine"
            )
            assert {watch.of(name, "a")[0].reason for name in lost} == {"not_connected"}
            since = time.monotonic()
            for number in range(1, 6):
                command = watch.set("name", "a", number)
                assert (await plant.verdict(watch, command, 3))["state"] == "verified"
                await asyncio.sleep(rounds(1, 6) / 5)
            times = [each.time_s for each in device.seen if each.pdu[:3] == b"\3\0\0" and each.time_s > since]
            assert max(after - before for before, after in pairwise(times)) < SLOW_MACHINE_S
            assert {each.quality for name in ("address", "name") for each in watch.of(name, "a")} == {"good"}
            assert threads(server.pid) < count + 20, "one for each name, however often it is tried"
            stopped = time.monotonic()
            assert await asyncio.to_thread(server.terminate) == 0
            assert time.monotonic() - stopped < 5.0
            assert "never retrieved" not in plant.output
            assert "Traceback" not in plant.output
            assert len([line for line in plant.output.splitlines() if "lost" in line]) == count, plant.output

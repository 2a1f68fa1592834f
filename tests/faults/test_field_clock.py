"""Row T1 of the field server, with REST beside it: clocks that are set, that start in 1970, that differ, and a leap second."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import Broker, start_mosquitto
from tests.support.bus_watch import BusWatch, now_ms, watch_bus
from tests.support.clock import ShiftedClock
from tests.support.fault_device import FaultDevice
from tests.support.field_plant import FieldPlant, build_field_plant, tag
from tests.support.rest import Server, rest_server
from tests.support.soak import rounds

pytestmark = pytest.mark.alone

HOUR_S = 3600
TEN_YEARS_S = 10 * 365 * 24 * HOUR_S
LEAP_S = -1
"""A leap second, as most systems have it: the last second of the day comes twice."""


@pytest.fixture
async def device() -> AsyncIterator[FaultDevice]:
    async with FaultDevice() as running:
        yield running


def reads(device: FaultDevice) -> list[float]:
    """When the device's first register was asked for."""
    return [seen.time_s for seen in device.seen if seen.pdu[:3] == bytes.fromhex("030000")]


async def good(plant: FieldPlant, watch: BusWatch, *names: str) -> None:
    await plant.wait(lambda: all(watch.quality(name, "a") == "good" for name in names), f"{', '.join(names)} read")


@pytest.mark.parametrize("shift_s", [-TEN_YEARS_S, LEAP_S, HOUR_S, -HOUR_S][: rounds(2, 4)])
async def test_t1_the_wall_clock_is_set(tmp_path: Path, mosquitto: Broker, device: FaultDevice, shift_s: int) -> None:
    """Reads keep their pace, samples carry the new time, commands under way live as long as they were to."""
    clock = ShiftedClock(tmp_path)
    async with FaultDevice("refuse") as away, build_field_plant(tmp_path, mosquitto, **clock.settings) as plant:
        with watch_bus(mosquitto.port) as watch:
            await away.set_mode("refuse")
            plant.device("boiler", device.port, tag("a", 0, "inout"), tag("beat", 10))
            plant.device("away", away.port, tag("a", 0, "inout"))
            await plant.start()
            await good(plant, watch, "boiler")
            waiting = watch.set("away", "a", 5, expires_ms=now_ms() + 2500)
            sent = time.monotonic()
            await plant.wait(lambda: watch.steps(waiting) == ["accepted"], "it waits")
            await asyncio.sleep(0.5)
            clock.set(shift_s)
            begun = time.monotonic()
            for number in range(1, 11):
                device.registers[10] = number
                await asyncio.sleep(0.15)
            final = await plant.verdict(watch, waiting)
            assert final["state"] == "expired"
            assert 2.0 < final["at_s"] - sent < 4.0
            gaps = [after - before for before, after in pairwise(reads(device)) if after > begun - 0.2]
            assert max(gaps) < 0.1 + 0.7, "no stall"
            assert len(gaps) < 1.5 * (time.monotonic() - begun + 0.2) / 0.1, "no burst"
            heard = watch.of("boiler", "beat")
            assert [each.value for each in heard][-4:] == [7, 8, 9, 10]
            assert abs(heard[-1].time_ms - (now_ms() + 1000 * shift_s)) < 4000
            assert {each.quality for each in watch.samples if each.device == "boiler"} == {"good"}
            command = watch.set("boiler", "a", 9, expires_ms=now_ms() + 1000 * shift_s + 5000)
            assert (await plant.verdict(watch, command))["state"] == "verified"
            assert watch.servers[-1][2] is True
            await plant.wait(lambda: watch.states["boiler"]["beat"][0] == 10, "the state is the last value")
            assert len(device.accepted_s) == 1
            expired = watch.set("boiler", "a", 10, expires_ms=now_ms() + 1000 * shift_s - 1000)
            assert (await plant.verdict(watch, expired))["state"] == "expired"


async def test_t1_a_start_in_1970(tmp_path: Path, device: FaultDevice) -> None:
    """A machine without a battery for its clock: what an earlier run left arrives first, all is read, then the time comes."""
    clock = ShiftedClock(tmp_path)
    with start_mosquitto(tmp_path / "broker") as broker, watch_bus(broker.port, session=True) as watch:
        async with build_field_plant(tmp_path, broker, **clock.settings) as plant:
            plant.device("boiler", device.port, tag("a", 0, "inout"), tag("beat", 10, period_ms=20))
            number = 0

            async def beat(count: int) -> None:
                nonlocal number
                for number in range(number + 1, number + 1 + count):  # noqa: B020 - goes on from the last one
                    device.registers[10] = number
                    await asyncio.sleep(0.1)

            await beat(1)
            server = await plant.start()
            await good(plant, watch, "boiler")
            await beat(3)
            await asyncio.to_thread(broker.stop)
            await beat(10)
            assert await asyncio.to_thread(server.terminate) == 0
            left = number
            await asyncio.to_thread(broker.start)
            clock.set(10 - round(time.time()))
            seen = len(device.seen)
            server = await plant.start()
            await plant.wait(lambda: len(device.seen) > seen + 3, "read again")
            await beat(5)
            await plant.wait(lambda: watch.value("boiler", "beat") == number, "read in 1970")
            command = watch.set("boiler", "a", 5, expires_ms=30_000)
            assert (await plant.verdict(watch, command))["state"] == "verified"
            refused = await plant.verdict(watch, watch.set("boiler", "a", 6, expires_ms=now_ms() + 5000))
            assert refused["state"] == "failed"
            assert "clocks must agree" in refused["reason"]

            def state_ms() -> int:
                time_ms: int = watch.states.get("boiler", {}).get("beat", [0, "", 1 << 60])[2]
                return time_ms

            await plant.wait(lambda: state_ms() < 60_000, "its state is of 1970")
            clock.set(0)
            await beat(5)
            await plant.wait(lambda: watch.value("boiler", "beat") == number, "read today")
            command = watch.set("boiler", "a", 7, expires_ms=now_ms() + 5000)
            assert (await plant.verdict(watch, command))["state"] == "verified"
            heard = {each.value: each for each in watch.of("boiler", "beat")}
            assert sorted(heard) == list(range(1, number + 1)), "none is missing"
            arrived = [each.value for each in watch.of("boiler", "beat")]
            assert list(dict.fromkeys(arrived)) == sorted(heard), "and they are in order"
            in_1970 = [each.value for each in watch.of("boiler", "beat") if each.time_ms < 60_000]
            assert in_1970 == list(range(left, left + 6)), "from the first one on"
            assert any(each.late for each in heard.values())
            assert {each.quality for each in watch.samples} == {"good"}
            await plant.wait(lambda: abs(state_ms() - now_ms()) < 5000, "the state is of today")
            assert "Traceback" not in plant.output


def rest_beside(plant: FieldPlant, **settings: Any) -> AbstractContextManager[Server]:
    """REST over the plant's database and broker."""
    broker = {"MQTT_HOST": "127.0.0.1", "MQTT_PORT": plant.broker.port}
    return rest_server(
        plant.folder, SQLALCHEMY_DATABASE_URI=plant.uri, TAGWIRE_DATA_DIR=plant.folder, **broker, **settings
    )


async def command(rest: Server, name: str, value: int, expires_s: float = 5) -> dict[str, Any]:
    """Set a tag and wait for the end; the answer."""
    path = f"/api/v1/tags/{name}/commands?wait=8"
    answer = await asyncio.to_thread(rest.ask, "POST", path, {"value": value, "expires_s": expires_s})
    assert answer.status == 200, answer.json
    found: dict[str, Any] = answer.json
    return found


async def test_t1_rest_and_the_field_on_one_clock(tmp_path: Path, mosquitto: Broker, device: FaultDevice) -> None:
    """However it is set: values are fresh and good, commands end in their time, and those of later are verified."""
    clock = ShiftedClock(tmp_path)
    async with FaultDevice() as away, build_field_plant(tmp_path, mosquitto, **clock.settings) as plant:
        await away.set_mode("refuse")
        plant.device("boiler", device.port, tag("a", 0, "inout"), tag("beat", 10))
        plant.device("away", away.port, tag("a", 0, "inout"))
        await plant.start()
        with rest_beside(plant, **clock.settings) as rest:

            async def value(name: str) -> dict[str, Any]:
                found: dict[str, Any] = (await asyncio.to_thread(rest.ask, "GET", f"/api/v1/tags/{name}/value")).json
                return found

            async def shown(number: int) -> dict[str, Any]:
                device.registers[10] = number
                until = time.monotonic() + 6
                while (found := await value("boiler@beat"))["value"] != number:
                    assert time.monotonic() < until, found
                    await asyncio.sleep(0.05)
                return found

            await shown(1)
            shifts = [HOUR_S, -TEN_YEARS_S, 0, LEAP_S][: rounds(2, 4)]
            for number, shift_s in enumerate(shifts, 2):
                begun = time.monotonic()
                waiting = asyncio.create_task(command(rest, "away@a", number, expires_s=1.5))
                await asyncio.sleep(0.4)
                clock.set(shift_s)
                reading = await shown(number)
                assert reading["quality"] == "good"
                assert abs(reading["time_ms"] - (now_ms() + 1000 * shift_s)) < 8000
                done = await command(rest, "boiler@a", number)
                assert (done["state"], device.registers[0]) == ("verified", number)
                expired = await waiting
                assert expired["state"] == "expired", expired
                assert time.monotonic() - begun < 9.0
        assert "Traceback" not in plant.output


async def test_t1_clocks_that_differ(tmp_path: Path, mosquitto: Broker, device: FaultDevice) -> None:
    """Nothing is set by a command whose age nobody can know, and the answer says why; values are shown all the same."""
    clock = ShiftedClock(tmp_path)
    async with build_field_plant(tmp_path, mosquitto, **clock.settings) as plant:
        plant.device("boiler", device.port, tag("a", 0, "inout"))
        await plant.start()
        with rest_beside(plant) as rest:
            assert (await command(rest, "boiler@a", 1))["state"] == "verified"
            for shift_s, state in ((60, "expired"), (-60, "failed"), (-TEN_YEARS_S, "failed")):
                clock.set(shift_s)
                refused = await command(rest, "boiler@a", 2)
                assert refused["state"] == state
                assert "clocks must agree" in refused["reason"]
            assert device.registers[0] == 1
            clock.set(0)
            assert (await command(rest, "boiler@a", 3))["state"] == "verified"
            reading = await asyncio.to_thread(rest.ask, "GET", "/api/v1/tags/boiler@a/value")
            assert (reading.json["value"], reading.json["quality"]) == (3, "good")

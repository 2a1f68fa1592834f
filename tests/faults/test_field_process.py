"""Rows P1, P3-P5, P8, S3 and S4 of the field server: killed, ended, frozen, started twice, starved, its database gone."""

import asyncio
import os
import random
import signal
import sqlite3
import sys
import time
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from storage.command_store import CommandLog
from tests.support.brokers import Broker, start_mosquitto, start_proxy
from tests.support.bus_watch import BusWatch, now_ms, watch_bus
from tests.support.fault_device import FaultDevice
from tests.support.field_plant import FieldPlant, Ledger, build_field_plant, tag
from tests.support.processes import Process, clean_environment
from tests.support.soak import rounds

pytestmark = pytest.mark.alone


def reads(device: FaultDevice) -> list[float]:
    """When the device's first register was asked for."""
    return [seen.time_s for seen in device.seen if seen.pdu[:3] == bytes.fromhex("030000")]


async def good(plant: FieldPlant, watch: BusWatch, *names: str) -> None:
    await plant.wait(lambda: all(watch.quality(name, "a") == "good" for name in names), f"{', '.join(names)} read")


async def test_p1_killed_at_random(plant: FieldPlant, watch: BusWatch, device: FaultDevice) -> None:
    """Back at once, states right, and never a good value that was not there."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    plant.device("boiler", device.port, tag("a", 0, "inout"), tag("b", 1))
    async with Ledger(device, (0, 1)) as ledger:
        for _ in range(rounds(2, 30)):
            begun = time.monotonic()
            server = await plant.start()
            await plant.wait(lambda begun=begun: (s := watch.last("boiler", "b")) and s.at_s > begun, "read again", 5)
            await asyncio.sleep(rng.uniform(0.0, 1.0))
            assert watch.servers[-1][2] is True
            await asyncio.to_thread(server.kill)
            await plant.wait(lambda: watch.servers[-1][2] is False, "the broker says that it is gone", 2)
        begun_ms = now_ms()
        await plant.start()

        def state_ms() -> int:
            state = watch.states.get("boiler", {})
            return min(state[name][2] if name in state else 0 for name in "ab")

        await plant.wait(lambda: state_ms() > begun_ms, "its state")
        await asyncio.sleep(0.5)
        for register, name in enumerate("ab"):
            assert not ledger.lies(register, watch.of("boiler", name)), f"seed {seed}"
            value, quality, time_ms, *_ = watch.states["boiler"][name]
            assert (quality, now_ms() - time_ms < 2000) == ("good", True)
            assert not ledger.lies(register, [s for s in watch.of("boiler", name) if s.value == value][-1:])
    assert watch.online("boiler") == [True]
    assert watch.faults == []


async def test_p1_killed_while_the_broker_is_away_what_is_on_disk_arrives(tmp_path: Path, device: FaultDevice) -> None:
    with start_mosquitto(tmp_path / "broker") as broker, watch_bus(broker.port, session=True) as watch:
        async with build_field_plant(tmp_path, broker) as plant, Ledger(device, (0,)) as ledger:
            plant.device("boiler", device.port, tag("a", 0))
            server = await plant.start()
            await good(plant, watch, "boiler")
            await asyncio.sleep(0.5)
            begun_ms = now_ms()
            await asyncio.to_thread(broker.stop)
            await asyncio.sleep(2.5)
            killed_ms = now_ms()
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(broker.start)
            await plant.start()
            await plant.wait(lambda: (s := watch.last("boiler", "a")) and s.time_ms > killed_ms + 500, "live again", 15)
            samples = {each.time_ms: each for each in watch.of("boiler", "a")}
            # The last half second may still have been in memory.
            times = [each for each in sorted(samples) if begun_ms - 300 < each < killed_ms - 800]
            assert times[-1] > killed_ms - 1400, (begun_ms, killed_ms, times)
            assert max(after - before for before, after in pairwise(times)) < 600
            assert any(each.late for each in samples.values())
            assert not ledger.lies(0, samples.values())


async def test_p1_what_was_taken_out_meanwhile_is_withdrawn(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    """A device that was deleted, or renamed, while the field server was away leaves no good values behind."""
    made = plant.device("gone", device.port, tag("a", 0))
    other = plant.device("old", device.port, tag("a", 1))
    plant.device("boiler", device.port, tag("a", 2), tag("b", 3))
    server = await plant.start()
    await good(plant, watch, "gone", "old", "boiler")
    await plant.wait(lambda: len(watch.states) == len(watch.plans) == 3, "all of it is retained", 5)
    await asyncio.to_thread(server.kill)
    plant.store.delete_device(made["id"])
    plant.store.patch_device(other["id"], {"name": "new"})
    await plant.start()
    await good(plant, watch, "new")
    await plant.wait(lambda: set(watch.states) == {"new", "boiler"}, "their states are empty", 5)
    await plant.wait(lambda: set(watch.plans) == {"new", "boiler"}, "and their plans", 5)
    with watch_bus(plant.broker.port) as newcomer:
        await plant.wait(lambda: set(newcomer.states) == {"new", "boiler"}, "the others stay")
        await plant.wait(lambda: {name for _, name, *_ in newcomer.links} == {"new", "boiler"}, "and so do their links")


async def test_p3_terminated_under_load(plant: FieldPlant, watch: BusWatch) -> None:
    """In time, with the last values told, a dead device and commands under way."""
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(FaultDevice()) for _ in range(4)]
        for number, each in enumerate(devices):
            tags = [tag(f"t{register}", register, "inout", period_ms=50) for register in range(40)]
            plant.device(f"d{number}", each.port, tag("a", 40), *tags)
            await stack.enter_async_context(Ledger(each, range(40)))
        server = await plant.start()
        await good(plant, watch, *(f"d{number}" for number in range(4)))
        await devices[0].set_mode("never")
        commands = [watch.set(f"d{n % 4}", f"t{n}", n, expires_ms=now_ms() + 60_000) for n in range(40)]
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        assert await asyncio.to_thread(server.terminate) == 0
        assert time.monotonic() - begun < 5.0
        await plant.wait(lambda: all(watch.final(command) for command in commands), "a verdict on each")
        await plant.wait(lambda: watch.servers[-1][2] is False, "it says that it is gone")
        for number in range(1, 4):
            state, last = watch.states[f"d{number}"]["t39"], watch.last(f"d{number}", "t39")
            assert last is not None
            assert state[0] == last.value, "the state is that of the last change"
        assert "Traceback" not in plant.output


async def test_p3_terminated_while_broker_and_devices_are_black_holes(
    tmp_path: Path, mosquitto: Broker, device: FaultDevice
) -> None:
    with start_proxy(mosquitto.port) as proxy, watch_bus(mosquitto.port) as watch:
        async with build_field_plant(tmp_path, proxy) as plant:
            plant.device("boiler", device.port, tag("a", 0, "inout"), timeout_s=30)
            server = await plant.start()
            await good(plant, watch, "boiler")
            command = watch.set("boiler", "a", 5, expires_ms=now_ms() + 60_000)
            await device.set_mode("never")
            await plant.wait(lambda: "accepted" in watch.steps(command), "under way")
            proxy.blackhole()
            device.registers[0] = 7
            await asyncio.sleep(0.5)
            begun = time.monotonic()
            assert await asyncio.to_thread(server.terminate) == 0
            assert time.monotonic() - begun < 5.0


async def test_p4_frozen_and_thawed(plant: FieldPlant, watch: BusWatch) -> None:
    """At most one catch-up read a device, nothing bad, no connection lost, the old grid afterwards."""
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(FaultDevice()) for _ in range(10)]
        for number, each in enumerate(devices):
            plant.device(f"d{number}", each.port, tag("a", 0, period_ms=500))
        server = await plant.start()
        await good(plant, watch, *(f"d{number}" for number in range(10)))
        await asyncio.sleep(1.0)
        for _ in range(rounds(1, 5)):
            server.signal(signal.SIGSTOP)
            await asyncio.sleep(rounds(2, 30) + random.random() / 2)
            server.signal(signal.SIGCONT)
            begun = time.monotonic()
            await asyncio.sleep(2.5)
            for each in devices:
                after = [at - begun for at in reads(each) if at > begun - 0.05]
                assert len([at for at in after if at < 0.4]) <= 2, after
                assert 4 <= len(after) <= 7, after
        assert {each.quality for each in watch.samples} == {"good"}
        assert [len(each.accepted_s) for each in devices] == [1] * 10
        # A pause of more than 1.5 keepalives (30 s) ends the session with the broker, which is the broker's to decide.
        await plant.wait(lambda: watch.servers[-1][2] is True, "the broker says that it is there", 5)
        assert len([line for line in plant.output.splitlines() if line.startswith("INFO d") and "online" in line]) == 10
        assert plant.output.count(": online") <= 11 + rounds(0, 5), "ten devices and the broker, once"


async def test_p5_started_twice(plant: FieldPlant, watch: BusWatch, device: FaultDevice) -> None:
    plant.device("boiler", device.port, tag("a", 0))
    first = await plant.start()
    await good(plant, watch, "boiler")
    begun = time.monotonic()
    second = plant.process()
    try:
        assert await asyncio.to_thread(second.wait) == 2
        assert time.monotonic() - begun < 3.0
        assert f"process {first.pid} holds" in second.output
    finally:
        second.close()
    device.registers[0] = 7
    await plant.wait(lambda: watch.value("boiler", "a") == 7, "the first goes on")
    assert watch.online("boiler") == [True]


async def test_p8_starved_of_processor_time(plant: FieldPlant, watch: BusWatch) -> None:
    """Two endless loops at the same nice: periods stretch evenly, nothing is bad, nothing starts again."""
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(FaultDevice()) for _ in range(10)]
        for number, each in enumerate(devices):
            plant.device(f"d{number}", each.port, tag("a", 0, period_ms=200), timeout_s=1.0)
        server = await plant.start()
        await good(plant, watch, *(f"d{number}" for number in range(10)))
        loops = [Process([sys.executable, "-c", "while True: pass"], clean_environment()) for _ in range(2)]
        try:
            begun = time.monotonic()
            await asyncio.sleep(rounds(3, 30))
            gaps = [
                after - before for each in devices for before, after in pairwise(reads(each)) if before > begun + 0.3
            ]
        finally:
            for loop in loops:
                loop.close()
        p99 = sorted(gaps)[len(gaps) * 99 // 100]
        print(f"{len(gaps)} periods of 0.2 s, p99 {p99:.3f} s")
        assert p99 <= 3 * 0.2
        assert {each.quality for each in watch.samples} == {"good"}
        assert server.popen.poll() is None
        assert [len(each.accepted_s) for each in devices] == [1] * 10


async def test_s4_the_database_is_locked_and_polling_goes_on(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    plant.device("boiler", device.port, tag("a", 0, "inout"), tag("beat", 10))
    await plant.start()
    await good(plant, watch, "boiler")
    with sqlite3.connect(plant.folder / "plant.sqlite", isolation_level=None) as rival:
        rival.execute("BEGIN EXCLUSIVE")
        until, number = time.monotonic() + rounds(3, 30), 0
        while time.monotonic() < until:
            number += 1
            device.registers[10] = number
            command = watch.set("boiler", "a", number)
            assert (await plant.verdict(watch, command))["state"] == "verified"
            await plant.wait(lambda number=number: watch.value("boiler", "beat") == number, "read as ever", 2)
            await asyncio.sleep(0.2)
        rival.execute("ROLLBACK")
    rival.close()
    await plant.wait(lambda: len(CommandLog(plant.engine).steps(command)) == 4, "the steps are stored after all", 15)
    assert plant.output.count("cannot be stored") <= 1
    assert "Traceback" not in plant.output


async def test_s3_the_database_is_destroyed_and_polling_goes_on(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    plant.device("boiler", device.port, tag("a", 0, "inout"), tag("beat", 10))
    server = await plant.start()
    await good(plant, watch, "boiler")
    for path in (plant.folder / "plant.sqlite", plant.folder / "plant.sqlite-wal"):
        with path.open("r+b") as file:
            file.write(os.urandom(path.stat().st_size))
    begun = time.monotonic()
    for number in range(1, 8):
        device.registers[10] = number
        assert (await plant.verdict(watch, watch.set("boiler", "a", number)))["state"] == "verified"
        await plant.wait(lambda number=number: watch.value("boiler", "beat") == number, "read as ever", 2)
        await asyncio.sleep(0.3)
    assert server.popen.poll() is None
    assert "Traceback" not in plant.output
    assert len(plant.output.splitlines()) < 15, plant.output
    assert "the file is damaged; it was left as it is" in plant.output
    print(f"{time.monotonic() - begun:.1f} s\n{plant.output}")
    stopped = time.monotonic()
    assert await asyncio.to_thread(server.terminate) == 0
    assert time.monotonic() - stopped < 5.0

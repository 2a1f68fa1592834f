"""Rows D1-D13 seen from the bus: a field server as a process, devices that misbehave, and a ledger of what they held."""

import asyncio
import time
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scada.modbus.endpoint import Transport
from tests.support.brokers import Broker
from tests.support.bus_watch import BusWatch, now_ms, watch_bus
from tests.support.farm import Farm
from tests.support.fault_device import FaultDevice
from tests.support.field_plant import (
    PERIOD_MS,
    SLOW_MACHINE_S,
    TIMEOUT_S,
    FieldPlant,
    Ledger,
    build_field_plant,
    tag,
)
from tests.support.modbus_peer import Peer
from tests.support.netns import far_network
from tests.support.soak import rounds

pytestmark = pytest.mark.alone

BACKOFF_STEP_S = 3.5 * 1.2
BAD_WITHIN_S = TIMEOUT_S * 2 + PERIOD_MS / 1000 + SLOW_MACHINE_S
GOOD_WITHIN_S = BACKOFF_STEP_S + 0.5 + PERIOD_MS / 1000 + SLOW_MACHINE_S


def gaps_s(device: FaultDevice) -> list[float]:
    """The times between the reads of a device's first register."""
    times = [seen.time_s for seen in device.seen if seen.pdu[:3] == bytes.fromhex("030000")]
    return [after - before for before, after in pairwise(times)]


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[len(values) * percent // 100]


LYING = ["never", "wrong_tid", "zero_tid", "wrong_unit", "wrong_proto", "wrong_fc", "fewer_regs", "bytecount_lies"]
LYING += ["trunc", "trunc_stall", "len_huge", "garbage", "flood", "slow", "rst", "fin", "accept_close", "refuse"]
ARGUMENTS = {"slow": 200}


async def test_d1_to_d7_devices_that_misbehave_at_once(plant: FieldPlant, watch: BusWatch) -> None:
    """Each bad in time, never good with what it did not hold, good again in time; a healthy one beside them undisturbed."""
    names = [*LYING, "healthy"]
    async with AsyncExitStack() as stack:
        devices = {name: await stack.enter_async_context(FaultDevice()) for name in names}
        for name, each in devices.items():
            plant.device(name, each.port, tag("a", 0), tag("b", 1))
        server = await plant.start()
        ledgers = {name: await stack.enter_async_context(Ledger(each, (0, 1))) for name, each in devices.items()}
        await plant.wait(lambda: all(watch.quality(name, "b") == "good" for name in names), "all are read")
        await asyncio.sleep(0.5)
        files, memory = server.open_files, server.resident_bytes
        begun = time.monotonic()
        for mode in LYING:
            await devices[mode].set_mode(mode, ARGUMENTS.get(mode, 0))
        await plant.wait(lambda: all(watch.quality(mode, "b") == "bad" for mode in LYING), "all are bad")
        bad_after = {mode: next(e.at_s for e in watch.of(mode, "b") if e.quality == "bad") - begun for mode in LYING}
        assert max(bad_after.values()) < BAD_WITHIN_S, bad_after
        await asyncio.sleep(2.5)
        assert {watch.quality(mode, tag_name) for mode in LYING for tag_name in "ab"} == {"bad"}
        assert server.resident_bytes - memory < 20_000_000
        begun = time.monotonic()
        for mode in LYING:
            await devices[mode].set_mode("good")
        await plant.wait(lambda: all(watch.quality(mode, "b") == "good" for mode in LYING), "all are good again", 12)
        again = [next(e.at_s for e in watch.of(m, "b") if e.quality == "good" and e.at_s > begun) for m in LYING]
        assert max(again) - begun < GOOD_WITHIN_S, again
        await asyncio.sleep(0.5)
        assert abs(server.open_files - files) <= 2
        assert {name: watch.online(name) for name in LYING} == {name: [True, False, True] for name in LYING}
        assert watch.online("healthy") == [True]
        for name in names:
            assert not ledgers[name].lies(0, watch.of(name, "a")), name
            assert not ledgers[name].lies(1, watch.of(name, "b")), name
        assert {each.quality for each in watch.of("healthy", "a")} == {"good"}
        # Of some eighty reads in the loop that also plays the other eighteen devices.
        assert percentile(gaps_s(devices["healthy"]), 95) < 3 * PERIOD_MS / 1000
        assert max(gaps_s(devices["healthy"])) < TIMEOUT_S + SLOW_MACHINE_S
        assert "Traceback" not in plant.output
        assert len(plant.output.splitlines()) < 4 * len(names), plant.output
    assert watch.faults == []


async def test_d2_to_d7_odd_but_right_answers(plant: FieldPlant, watch: BusWatch) -> None:
    """Stale answers before the right one, two answers, chatter, a device that resets every third request: never bad for long."""
    modes = {"stale_then_good": 0.0, "twice": 0.0, "chatter": 0.0, "flap": 0.0, "slow": 5.0, "delay": 0.1}
    async with AsyncExitStack() as stack:
        ledgers = {}
        for mode, argument in modes.items():
            device = await stack.enter_async_context(FaultDevice(mode, argument))
            plant.device(mode, device.port, tag("a", 0))
            ledgers[mode] = await stack.enter_async_context(Ledger(device, (0,)))
        await plant.start()
        await plant.wait(lambda: all(watch.quality(mode, "a") == "good" for mode in modes), "all are read")
        await asyncio.sleep(2.0)
        for mode in modes:
            heard = watch.of(mode, "a")
            assert not ledgers[mode].lies(0, heard), mode
            assert {each.quality for each in heard} == {"good"}, mode
            assert watch.online(mode) == [True], mode
            assert len(heard) > 8, mode


REASONS = {1: "config_error", 2: "config_error", 3: "config_error", 4: "device_failure", 5: "device_failure"}
REASONS |= {6: "device_failure", 8: "device_failure", 10: "comm_failure", 11: "comm_failure"}
REASONS |= {0: "device_failure", 255: "device_failure"}


async def test_d5_exception_codes(plant: FieldPlant, watch: BusWatch) -> None:
    async with AsyncExitStack() as stack:
        devices = {code: await stack.enter_async_context(FaultDevice()) for code in REASONS}
        for code, device in devices.items():
            device.registers[0] = 1000 + code
            plant.device(f"d{code}", device.port, tag("a", 0))
        await plant.start()
        await plant.wait(lambda: all(watch.quality(f"d{code}", "a") == "good" for code in REASONS), "all are read")
        for code, device in devices.items():
            await device.set_mode("exc", code)
        await plant.wait(lambda: all(watch.quality(f"d{code}", "a") == "bad" for code in REASONS), "all are bad", 3)
        heard = {code: watch.last(f"d{code}", "a") for code in REASONS}
        assert {code: each and each.reason for code, each in heard.items()} == REASONS
        assert {code: each and each.value for code, each in heard.items()} == {code: 1000 + code for code in REASONS}
        for device in devices.values():
            device.seen.clear()
        await asyncio.sleep(2.0)
        asked = {code: len(device.seen) for code, device in devices.items()}
        assert max(asked[1], asked[2], asked[3]) <= 4, asked
        assert min(asked[4], asked[5], asked[6]) >= 8, asked
        for device in devices.values():
            await device.set_mode("good")
        await plant.wait(lambda: all(watch.quality(f"d{code}", "a") == "good" for code in REASONS), "all are good", 6)
        assert all(watch.online(f"d{code}") == [True] for code in REASONS if code not in (10, 11))
        assert len(plant.output.splitlines()) < 6 * len(REASONS)


async def test_d1_d8_one_unit_of_many_behind_a_connection(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    """The silent one is bad in time, the others' reads go on, the connection is kept."""
    for unit in range(1, 6):
        plant.device(f"u{unit}", device.port, tag("a", unit, unit_id=unit))
    async with Ledger(device, range(1, 6)) as ledger:
        await plant.start()
        await plant.wait(lambda: all(watch.quality(f"u{unit}", "a") == "good" for unit in range(1, 6)), "read")
        device.absent.add(3)
        begun = time.monotonic()
        await plant.wait(lambda: watch.quality("u3", "a") == "bad", "bad", 3)
        assert time.monotonic() - begun < BAD_WITHIN_S
        quiet = time.monotonic() + 1.0
        await asyncio.sleep(4.0)
        assert len(device.accepted_s) == 1
        times = [seen.time_s for seen in device.seen if seen.unit_id == 1 and seen.time_s > quiet]
        gaps = [after - before for before, after in pairwise(times)]
        assert max(gaps) < TIMEOUT_S + 5 * PERIOD_MS / 1000
        assert percentile(gaps, 80) < 2 * PERIOD_MS / 1000, gaps
        device.absent.clear()
        await plant.wait(lambda: watch.quality("u3", "a") == "good", "good again", 10)
        for unit in range(1, 6):
            assert not ledger.lies(unit, watch.of(f"u{unit}", "a"))
            assert watch.online(f"u{unit}") == ([True, False, True] if unit == 3 else [True])


async def test_d13_changed_while_polls_are_in_flight(plant: FieldPlant, watch: BusWatch, device: FaultDevice) -> None:
    """Deleted, renamed, re-addressed, hundreds of times: nothing under an old name or of an old place, nothing left open."""
    await device.set_mode("delay", 0.02)
    device.registers[:10] = range(100, 110)
    plant.device("still", device.port, tag("a", 9))
    server = await plant.start()
    await plant.wait(lambda: watch.quality("still", "a") == "good", "read")
    files, names = server.open_files, []

    def change() -> None:
        made: dict[str, Any] = {}
        for number in range(rounds(60, 1000)):
            names.append((time.monotonic(), made.get("name", ""), ""))
            if number % 7 == 6 and made:
                plant.store.delete_device(made["id"])
                made = {}
            elif made and number % 3:
                tag_id = made["tags"][0]["bindings"][0]["id"]
                register = number % 9
                plant.store.patch_binding(tag_id, {"address": {"register": register, "type": "uint16"}})
            elif made:
                made = plant.store.patch_device(made["id"], {"name": f"boiler{number}"})
            else:
                made = plant.device(f"boiler{number}", device.port, tag("a", number % 9, period_ms=20))
            time.sleep(0.03 if number % 5 else 0.3)
        if made:
            plant.store.delete_device(made["id"])

    await asyncio.to_thread(change)
    await plant.wait(lambda: set(watch.states) == set(watch.plans) == {"still"}, "all withdrawn", 5)
    emptied = {topic.rpartition("/")[2] for topic in watch.emptied}
    told = {each.device for each in watch.samples}
    assert told - {"still"} <= emptied
    await asyncio.sleep(0.5)
    assert abs(server.open_files - files) <= 2
    assert {each.quality for each in watch.of("still", "a")} == {"good"}
    assert {each.value for each in watch.samples if each.device != "still"} <= set(range(100, 109))
    count = len(watch.samples)
    await asyncio.sleep(0.5)
    assert [each for each in watch.samples[count:] if each.device != "still"] == []
    assert "Traceback" not in plant.output
    assert "never retrieved" not in plant.output
    for each in watch.links[:1]:
        assert each[1] == "still"


async def test_d12_all_come_back_at_once(plant: FieldPlant, watch: BusWatch) -> None:
    """No more connects a second than the setting says, and all good in time."""
    count, most = rounds(80, 1000), rounds(30, 90)
    plant.settings = {"FIELD_SERVER_CONNECTS_PER_S": most}
    farm = Farm(count, 0)
    try:
        for index, port in enumerate(farm.ports):
            plant.device(f"d{index}", port, tag("a", 0, type="float32", period_ms=1000))
        await plant.start()
        names = [f"d{index}" for index in range(count)]
        await plant.wait(lambda: all(watch.quality(name, "a") == "good" for name in names), "all are read", 20)
        await asyncio.to_thread(farm.tell, "mark")
        begun = time.monotonic()
        await asyncio.to_thread(farm.tell, "restart")
        await plant.wait(
            lambda: all((s := watch.last(n, "a")) and s.quality == "good" and s.at_s > begun + 1 for n in names),
            "all are good again", 30,
        )  # fmt: skip
        print(f"all good {time.monotonic() - begun:.1f} s after they went")
        connects = sorted((await asyncio.to_thread(farm.close))["connects"])
    finally:
        farm.end()
    assert len(connects) == count
    windows = [sum(1 for at in connects if begin <= at < begin + 1) for begin in connects]
    print(f"most connects in a second: {max(windows)}")
    assert max(windows) <= 1.15 * most


async def test_d9_d10_a_network_that_loses(tmp_path: Path, mosquitto: Broker) -> None:
    """Five per cent lost: nothing bad. A third: bad is allowed, wrong is not. All of it: bad in time, others undisturbed."""
    with far_network() as network:
        async with AsyncExitStack() as stack:
            watch = stack.enter_context(watch_bus(mosquitto.port))
            plant = await stack.enter_async_context(build_field_plant(tmp_path, mosquitto))
            near = await stack.enter_async_context(FaultDevice())
            ledger = await stack.enter_async_context(Ledger(near, (0,)))
            plant.device("near", near.port, tag("a", 0))
            far = [await stack.enter_async_context(Peer(Transport.TCP, listen=network.listen)) for _ in range(4)]
            for index, peer in enumerate(far):
                network_settings = {"host": network.far, "timeout_s": 1.0, "connect_timeout_s": 1.0}
                plant.device(f"far{index}", peer.port, tag("a", 0, "inout"), **network_settings)
            await plant.start()
            names = [f"far{index}" for index in range(4)]
            await plant.wait(lambda: all(watch.quality(name, "a") == "good" for name in names), "all are read")
            network.lose(5)
            numbers = range(1, rounds(6, 60))
            for number in numbers:
                commands = [watch.set(name, "a", number, expires_ms=now_ms() + 20_000) for name in names]
                assert {(await plant.verdict(watch, each, 25))["state"] for each in commands} == {"verified"}
            assert {each.quality for each in watch.samples} == {"good"}
            network.heal()
            network.lose(30)
            await asyncio.sleep(rounds(3, 60))
            network.heal()
            network.drop()
            begun = time.monotonic()
            await plant.wait(lambda: all(watch.quality(name, "a") == "bad" for name in names), "all are bad", 10)
            assert time.monotonic() - begun < 2 * 1.0 + 0.1 + 3.5 * 1.2 + SLOW_MACHINE_S
            await asyncio.sleep(2.0)
            network.heal()
            await plant.wait(lambda: all(watch.quality(name, "a") == "good" for name in names), "all are good", 12)
            wrong = [
                s for s in watch.samples if s.device != "near" and s.quality == "good" and s.value not in {0, *numbers}
            ]
            assert wrong == []
            assert {each.quality for each in watch.of("near", "a")} == {"good"}
            assert max(gaps_s(near)) < 10 * PERIOD_MS / 1000
            assert not ledger.lies(0, watch.of("near", "a"))

"""Rows D1-D13 seen from the bus: a field server as a process, devices that misbehave, and a ledger of what they held."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.bus_watch import BusWatch, watch_bus
from tests.support.fault_device import FaultDevice
from tests.support.field_plant import (
    PERIOD_MS,
    SLOW_MACHINE_S,
    TIMEOUT_S,
    FieldPlant,
    Ledger,
    build_field_plant,
    open_files,
    rss,
    tag,
)

BACKOFF_STEP_S = 3.5 * 1.2
BAD_WITHIN_S = TIMEOUT_S * 2 + PERIOD_MS / 1000 + SLOW_MACHINE_S
GOOD_WITHIN_S = BACKOFF_STEP_S + 0.5 + PERIOD_MS / 1000 + SLOW_MACHINE_S


@pytest.fixture
async def plant(tmp_path: Path, mosquitto: Broker) -> AsyncIterator[FieldPlant]:
    async with build_field_plant(tmp_path, mosquitto) as built:
        yield built


@pytest.fixture
def watch(mosquitto: Broker) -> Iterator[BusWatch]:
    with watch_bus(mosquitto.port) as watching:
        yield watching


@pytest.fixture
async def device() -> AsyncIterator[FaultDevice]:
    async with FaultDevice() as running:
        yield running


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
        files, memory = open_files(server), rss(server)
        begun = time.monotonic()
        for mode in LYING:
            await devices[mode].set_mode(mode, ARGUMENTS.get(mode, 0))
        await plant.wait(lambda: all(watch.quality(mode, "b") == "bad" for mode in LYING), "all are bad")
        bad_after = {mode: next(e.at_s for e in watch.of(mode, "b") if e.quality == "bad") - begun for mode in LYING}
        assert max(bad_after.values()) < BAD_WITHIN_S, bad_after
        await asyncio.sleep(2.5)
        assert {watch.quality(mode, tag_name) for mode in LYING for tag_name in "ab"} == {"bad"}
        assert rss(server) - memory < 20_000_000
        begun = time.monotonic()
        for mode in LYING:
            await devices[mode].set_mode("good")
        await plant.wait(lambda: all(watch.quality(mode, "b") == "good" for mode in LYING), "all are good again", 12)
        again = [next(e.at_s for e in watch.of(m, "b") if e.quality == "good" and e.at_s > begun) for m in LYING]
        assert max(again) - begun < GOOD_WITHIN_S, again
        await asyncio.sleep(0.5)
        assert abs(open_files(server) - files) <= 2
        assert {name: watch.online(name) for name in LYING} == {name: [True, False, True] for name in LYING}
        assert watch.online("healthy") == [True]
        for name in names:
            assert not ledgers[name].lies(0, watch.of(name, "a")), name
            assert not ledgers[name].lies(1, watch.of(name, "b")), name
        assert {each.quality for each in watch.of("healthy", "a")} == {"good"}
        assert percentile(gaps_s(devices["healthy"]), 99) < 3 * PERIOD_MS / 1000
        assert "Traceback" not in plant.output
        assert len(plant.output.splitlines()) < 4 * len(names), plant.output
    assert watch.faults == []

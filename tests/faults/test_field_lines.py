"""Row D9: lines that are narrow or slow. Reading adapts; what is shown is never wrong, and never bad for that alone."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.brokers import Broker, start_proxy
from tests.support.bus_watch import now_ms, watch_bus
from tests.support.fault_device import FaultDevice
from tests.support.field_plant import FieldPlant, Ledger, build_field_plant, tag
from tests.support.netns import far_network
from tests.support.soak import rounds

pytestmark = pytest.mark.alone


@pytest.fixture
async def plant(tmp_path: Path, mosquitto: Broker) -> AsyncIterator[FieldPlant]:
    async with build_field_plant(tmp_path, mosquitto) as built:
        yield built


async def test_d9_more_than_fits_through_256_kbit_a_second(plant: FieldPlant, mosquitto: Broker) -> None:
    """Four devices whose reads would need 330 kbit/s: fewer reads, evenly, and commands get through."""
    count, kbit = 4, 256
    with far_network() as network, watch_bus(mosquitto.port) as watch:
        async with AsyncExitStack() as stack:
            devices = [await stack.enter_async_context(FaultDevice(listen=network.listen)) for _ in range(count)]
            ledgers = [await stack.enter_async_context(Ledger(each, (0, 374))) for each in devices]
            names = [f"far{number}" for number in range(count)]
            ends = [tag(f"t{register}", register) for register in (124, 125, 249, 250)]
            for name, each in zip(names, devices, strict=True):
                tags = [tag("a", 0), *ends, tag("z", 374), tag("set", 500, "inout")]
                plant.device(
                    name, each.port, *tags, host=network.far, timeout_s=1.0, connect_timeout_s=1.0, max_gap=124
                )
            network.narrow(kbit)
            await plant.start()
            await plant.wait(lambda: all(watch.quality(name, "z") == "good" for name in names), "all are read")
            begun = time.monotonic()
            for number in range(1, rounds(5, 60)):
                commands = [watch.set(name, "set", number, expires_ms=now_ms() + 5000) for name in names]
                assert {(await plant.verdict(watch, each))["state"] for each in commands} == {"verified"}
                await asyncio.sleep(0.7)
            seconds = time.monotonic() - begun
            reads = [len([s for s in each.seen if s.time_s > begun and s.pdu[3:] == b"\0\x7d"]) for each in devices]
            used = sum(reads) * 311 * 8 / 1000 / seconds
            print(f"reads of 125 registers in {seconds:.1f} s: {reads}, {used:.0f} kbit/s of answers")
            assert used > 0.6 * kbit, "the line is used"
            assert min(reads) > 0.7 * max(reads), "evenly"
            for name, ledger in zip(names, ledgers, strict=True):
                for register, each in ((0, "a"), (374, "z")):
                    heard = watch.of(name, each)
                    assert {sample.quality for sample in heard} == {"good"}
                    assert not ledger.lies(register, heard)
                    assert max(b.at_s - a.at_s for a, b in pairwise(heard)) < 2.0
            assert [len(each.accepted_s) for each in devices] == [1] * count


async def test_d9_a_line_that_takes_its_time(plant: FieldPlant, mosquitto: Broker) -> None:
    """0.2 s (0.15 to 0.25) each way, more than the period: as many reads as there can be, nothing bad at a timeout of 1 s."""
    with watch_bus(mosquitto.port) as watch:
        async with FaultDevice() as device, Ledger(device, (0,)) as ledger:
            with start_proxy(device.port) as proxy:
                proxy.delay_s = (0.15, 0.25)
                plant.device("far", proxy.port, tag("a", 0), tag("set", 500, "inout"), timeout_s=1.0)
                await plant.start()
                await plant.wait(lambda: watch.quality("far", "set") == "good", "read")
                begun = time.monotonic()
                for number in range(1, rounds(2, 30)):
                    command = watch.set("far", "set", number, expires_ms=now_ms() + 8000)
                    assert (await plant.verdict(watch, command, 9))["state"] == "verified"
                    await asyncio.sleep(0.5)
                requests = len([each for each in device.seen if each.time_s > begun])
                assert requests > (time.monotonic() - begun) / 0.5 * 0.6, "one round trip after the other"
                heard = watch.of("far", "a")
                assert {each.quality for each in watch.samples} == {"good"}
                assert not ledger.lies(0, heard)
                assert watch.online("far") == [True]
                assert len(device.accepted_s) == 1

"""Rows D1, D4, D6, D7, D11: what a device does to the periods of its neighbours, as those devices see them.

Each period is judged against the nominal one, or what the same machine made of it a moment before, without the fault; a fault
of ours shows every time, so it is what the best of a few attempts says that counts.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.bus_watch import BusWatch, watch_bus
from tests.support.farm import Farm
from tests.support.fault_device import FaultDevice
from tests.support.field_plant import FieldPlant, build_field_plant, tag
from tests.support.processes import Process
from tests.support.soak import rounds

pytestmark = pytest.mark.alone

ATTEMPTS = 4


@pytest.fixture
async def plant(tmp_path: Path, mosquitto: Broker) -> AsyncIterator[FieldPlant]:
    async with build_field_plant(tmp_path, mosquitto) as built:
        yield built


@pytest.fixture
def watch(mosquitto: Broker) -> Iterator[BusWatch]:
    with watch_bus(mosquitto.port) as watching:
        yield watching


async def p99_s(farm: Farm, seconds: float) -> float:
    """Of the times between two reads of each device of the farm, for so long from now on."""
    await asyncio.to_thread(farm.report)
    await asyncio.sleep(seconds)
    reads = (await asyncio.to_thread(farm.report))["reads"]
    gaps = sorted(after - before for times in reads for before, after in pairwise(times))
    assert len(gaps) > 100
    return gaps[len(gaps) * 99 // 100]


class Judge:
    """Compares periods of `nominal_s` with what they were, over `seconds` each."""

    def __init__(self, farm: Farm, nominal_s: float, seconds: float) -> None:
        self._farm, self._nominal_s, self._seconds = farm, nominal_s, seconds
        self._without_s = 0.0

    async def look(self) -> None:
        """Nothing is wrong now: that is what is compared with."""
        self._without_s = await p99_s(self._farm, self._seconds)

    async def compare(
        self, what: str, limit: float, begin: Callable[[], Awaitable[None]], end: Callable[[], Awaitable[None]]
    ) -> None:
        """With the fault the p99 is at most `limit` times the nominal period, or what it was without."""
        seen = []
        for _ in range(ATTEMPTS):
            await begin()
            with_s = await p99_s(self._farm, self._seconds)
            seen.append(f"{self._without_s:.3f} -> {with_s:.3f} s")
            if with_s <= limit * max(self._nominal_s, self._without_s):
                print(f"{what}: p99 of {self._nominal_s} s periods {', '.join(seen)}")
                return
            await end()
            await self.look()
        pytest.fail(f"{what}: p99 of {self._nominal_s} s periods {', '.join(seen)}")


MODES: list[tuple[str, float]] = [("never", 0), ("trunc_stall", 0), ("flood", 0), ("slow", 30), ("rst", 0)]
MORE: list[tuple[str, float]] = [("refuse", 0), ("accept_close", 0), ("garbage", 0), ("len_huge", 0), ("flap", 0)]


async def test_d1_to_d7_the_neighbours_keep_their_period(plant: FieldPlant, watch: BusWatch) -> None:
    """p99 at most 1.2 times nominal while first two devices never answer, then two more answer half, two more flood ..."""
    period_s, farm = 0.4, Farm(60, 0)
    modes = MODES if rounds(1, 0) else [*MODES, *MORE]
    try:
        async with AsyncExitStack() as stack:
            devices = [await stack.enter_async_context(FaultDevice()) for _ in range(2 * len(modes))]
            healthy, bad = [f"healthy{n}" for n in range(60)], [f"bad{n}" for n in range(len(devices))]
            ports = [*farm.ports, *(each.port for each in devices)]
            for name, port in zip([*healthy, *bad], ports, strict=True):
                plant.device(name, port, tag("a", 0, period_ms=round(period_s * 1000)))
            await plant.start()

            async def all_good() -> None:
                await plant.wait(lambda: all(watch.quality(n, "a") == "good" for n in [*healthy, *bad]), "all are good")

            await all_good()
            judge = Judge(farm, period_s, rounds(6, 75) / 5)
            await judge.look()
            for number, (mode, argument) in enumerate(modes):
                pair = devices[2 * number : 2 * number + 2]

                async def begin(pair=pair, mode=mode, argument=argument) -> None:  # type: ignore[no-untyped-def]
                    for each in pair:
                        await each.set_mode(mode, argument)

                async def end() -> None:
                    for each in devices:
                        await each.set_mode("good")
                    await all_good()

                await judge.compare(mode, 1.2, begin, end)
            assert {each.quality for name in healthy for each in watch.of(name, "a")} == {"good"}
    finally:
        farm.end()


async def test_d11_the_dead_among_many(plant: FieldPlant, watch: BusWatch) -> None:
    """One of two hundred (of a thousand) dies: the others' p99 is at most 1.1 times the period. A tenth of them: 1.5 times."""
    count, period_s = rounds(200, 1000), 1.0
    farm = Farm(count - count // 10, 0)
    try:
        async with AsyncExitStack() as stack:
            mortal = [await stack.enter_async_context(FaultDevice()) for _ in range(count // 10)]
            for number, port in enumerate([*farm.ports, *(each.port for each in mortal)]):
                network = {"timeout_s": 1.0, "connect_timeout_s": 1.0}
                plant.device(f"d{number}", port, tag("a", 0, type="float32", period_ms=1000), **network)
            server = await plant.start()

            async def all_good() -> None:
                names = [f"d{number}" for number in range(count)]
                await plant.wait(lambda: all(watch.quality(n, "a") == "good" for n in names), "all are good", 60)

            async def revive() -> None:
                for each in mortal:
                    await each.set_mode("good")
                await all_good()

            await all_good()
            judge = Judge(farm, period_s, rounds(5, 60) / 2)
            await judge.look()
            for dead, limit in ((1, 1.1), (len(mortal), 1.5)):

                async def begin(dead: int = dead) -> None:
                    for each in mortal[:dead]:
                        await each.set_mode("never")

                began, used = time.monotonic(), cpu_s(server)
                await judge.compare(f"{dead} of {count} dead", limit, begin, revive)
                load = (cpu_s(server) - used) / (time.monotonic() - began)
                print(f"{dead} of {count} dead: {100 * load:.0f} % of a core")
                assert load < 0.6
    finally:
        farm.end()


def cpu_s(process: Process) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

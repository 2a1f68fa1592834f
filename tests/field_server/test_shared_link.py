"""Several units behind one endpoint, some of them silent: what the others lose, and how soon everybody is back."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import pytest

from scada.values import Quality
from tests.support.fault_device import FaultDevice, Seen, Step
from tests.support.field import Plant, build_field, modbus_device, modbus_tag

pytestmark = pytest.mark.alone

GOOD, BAD = Quality.GOOD, Quality.BAD
UNITS = range(1, 7)
TIMEOUT_S = 0.2
PERIOD_S = 0.1


class Gateway(FaultDevice):
    """A device with many units, some of which are `silent`."""

    def __init__(self) -> None:
        super().__init__()
        self.silent: set[int] = set()

    def answer(self, seen: Seen) -> Iterator[Step]:
        steps = super().answer(seen)
        return iter(()) if seen.unit_id in self.silent else steps

    def asked(self, unit: int, since_s: float) -> list[float]:
        """When a unit was asked."""
        return [seen.time_s for seen in self.seen if seen.unit_id == unit and seen.time_s >= since_s]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway() as running:
        yield running


@pytest.fixture
async def plant() -> AsyncIterator[Plant]:
    async with build_field() as built:
        yield built


async def fill(plant: Plant, gateway: Gateway, retries: int) -> None:
    settings = {"timeout_s": TIMEOUT_S, "retries": retries}
    plant.put(*(modbus_device(n, f"u{n}", gateway.port, modbus_tag(n, "x", n, unit_id=n), **settings) for n in UNITS))
    await plant.wait(lambda: all(plant.told.quality(f"u{n}", "x") is GOOD for n in UNITS), "read")
    await asyncio.sleep(2 * PERIOD_S)


def bad_samples(plant: Plant, units: set[int], since_s: float) -> int:
    names = {f"u{unit}" for unit in units}
    return sum(told.quality is BAD for at_s, device, told in plant.told.samples if device in names and at_s >= since_s)


@pytest.mark.parametrize(
    ("silent", "retries"), [({6}, 0), ({6}, 1), ({4, 5, 6}, 1), ({2, 3, 4, 5, 6}, 1), ({2, 3, 4, 5, 6}, 0)]
)
async def test_units_that_answer_stay_good_beside_silent_ones(
    plant: Plant, gateway: Gateway, silent: set[int], retries: int
) -> None:
    """Each look at a silent unit made all bad that waited meanwhile, and with five of six silent the sixth was hardly asked."""
    await fill(plant, gateway, retries)
    live = set(UNITS) - silent
    gateway.silent = silent
    since_s = time.monotonic()
    await plant.wait(lambda: all(plant.told.quality(f"u{n}", "x") is BAD for n in silent), "the silent ones are bad")
    if len(silent) == 1:
        assert bad_samples(plant, live, since_s) == 0
    settled_s = since_s + (len(silent) + 1) * TIMEOUT_S * (retries + 1)
    await asyncio.sleep(4.0)
    assert bad_samples(plant, live, settled_s) == 0
    for unit in live:
        assert plant.told.quality(f"u{unit}", "x") is GOOD
        gaps = [after - before for before, after in pairwise(gateway.asked(unit, settled_s))]
        assert max(gaps) < 2 * TIMEOUT_S + PERIOD_S, "it waits for one look at a silent unit, not for more"
        assert sum(gaps) / len(gaps) < 1.5 * PERIOD_S, "looks take a tenth of the time"
    looks = [each for unit in silent for each in gateway.asked(unit, settled_s)]
    assert 1 <= len(looks) <= 4, "and they are still looked for"


async def test_when_one_unit_is_back_the_others_are_asked_at_once(plant: Plant, gateway: Gateway) -> None:
    await fill(plant, gateway, 1)
    gateway.silent = set(UNITS) - {1}
    await plant.wait(lambda: all(plant.told.quality(f"u{n}", "x") is BAD for n in gateway.silent), "bad")
    await asyncio.sleep(3.0)
    gateway.silent = set()
    back = {}

    def all_back() -> bool:
        for unit in UNITS:
            if plant.told.quality(f"u{unit}", "x") is GOOD:
                back.setdefault(unit, time.monotonic())
        return len(back) == len(UNITS)

    took = await plant.wait(all_back, "good", 10 * TIMEOUT_S + 4.5)
    first, *_, last = sorted(at_s for unit, at_s in back.items() if unit != 1)
    assert last - first < 3 * PERIOD_S, f"{took:.2f} s in all"


async def test_a_ceiling_holds_for_what_is_read_between(plant: Plant, gateway: Gateway) -> None:
    """Calls and the looks of commands were read as fast as they were asked for."""
    plant.put(modbus_device(1, "plc", gateway.port, modbus_tag(1, "a", 0, period_ms=5000), max_requests_per_s=20))
    await plant.wait(lambda: plant.told.quality("plc", "a") is GOOD, "read")
    plan = plant.field.device("plc")
    assert plan is not None
    poller = plant.field.poller(plan.parts[0])

    since_s = time.monotonic()
    for _ in range(10):
        await poller.asks.read_now(1, ["a"])
    times = gateway.asked(1, since_s)
    assert len(times) == 10
    assert times[-1] - times[0] >= 9 / 20 * 0.95


@pytest.mark.parametrize("how", ["read", "refused"])
async def test_a_unit_that_answers_the_look_of_a_command_is_back(plant: Plant, gateway: Gateway, how: str) -> None:
    """Its link was said to be down until the next look at it, for up to 5 s, and what a command had verified was shown as bad."""
    plant.put(modbus_device(1, "plc", gateway.port, modbus_tag(1, "a", 0), modbus_tag(2, "b", 500)))
    await plant.wait(lambda: plant.told.quality("plc", "b") is GOOD, "read")
    gateway.silent = {1}
    for _ in range(2):  # looked at in vain as well: the next look is further off
        asked = len(gateway.seen)
        await plant.wait(lambda asked=asked: len(gateway.seen) > asked + 1, "asked")  # type: ignore[misc]  # the lambda's default
    await plant.wait(lambda: plant.told.links[-1][:2] == ("plc", False), "down")
    await asyncio.sleep(TIMEOUT_S + 0.05)
    plan = plant.field.device("plc")
    assert plan is not None
    poller = plant.field.poller(plan.parts[0])
    gateway.silent = set()
    if how == "refused":
        await gateway.set_mode("exc", 4)

    await asyncio.wait([asyncio.create_task(poller.asks.read_now(1, ["a"]))], timeout=3)
    assert plant.told.links[-1] == ("plc", True, None)
    await gateway.set_mode("good")
    assert await plant.wait(lambda: plant.told.quality("plc", "b") is GOOD, "polled", 5) < 0.4

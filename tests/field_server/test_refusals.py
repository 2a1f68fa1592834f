"""A device that refuses: real illegal addresses are found soon, a moment in which everything is refused leaves nothing behind."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from scada.config import DeviceConfig
from scada.modbus.registers import RegisterType
from scada.values import Quality
from tests.support.fault_device import FaultDevice, Seen, Step
from tests.support.field import Plant, build_field, modbus_device, modbus_tag

GOOD, BAD = Quality.GOOD, Quality.BAD
TAGS = 400
BLOCKS = 7
"""Requests that read them all: 62 values of two registers in each."""
PERIOD_S = 0.1


class Moody(FaultDevice):
    """Refuses everything as long as `refuses` is above 0, so many requests."""

    refuses = 0

    def answer(self, seen: Seen) -> Iterator[Step]:
        if self.refuses <= 0:
            return super().answer(seen)
        self.refuses -= 1
        self.seen.append(seen)
        return iter((self.frame(seen, bytes((seen.pdu[0] | 0x80, 2))),))


@pytest.fixture
async def device() -> AsyncIterator[Moody]:
    async with Moody() as running:
        yield running


@pytest.fixture
async def plant() -> AsyncIterator[Plant]:
    async with build_field() as built:
        yield built


@pytest.fixture(autouse=True)
def quick_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told soon after a change and again after half a second; by itself not within a test."""
    monkeypatch.setattr("field_server.turns.FIRST_PLAN_S", 0.5)


def boiler(port: int, tags: int = TAGS) -> DeviceConfig:
    floats = [modbus_tag(n + 1, f"t{n}", 2 * n, type=RegisterType.FLOAT32) for n in range(tags)]
    return modbus_device(1, "boiler", port, *floats)


def having(plant: Plant, quality: Quality, tags: int = TAGS) -> Callable[[], bool]:
    """Whether every tag is so."""

    def holds() -> bool:
        last = {sample.tag: sample.quality for _, _, sample in plant.told.samples}
        return len(last) == tags and set(last.values()) == {quality}

    return holds


async def read_all(plant: Plant, device: Moody, tags: int = TAGS) -> None:
    plant.put(boiler(device.port, tags))
    await plant.wait(having(plant, GOOD, tags), "read")


def illegal(plant: Plant) -> list[str]:
    return [
        text for text in plant.told.plans.get("boiler", {}).get("learned", ()) if "illegal" in text or "whole" in text
    ]


async def requests_per_period(device: Moody, seconds: float = 1.0) -> float:
    begun = time.monotonic()
    first = len(device.seen)
    await asyncio.sleep(seconds)
    return (len(device.seen) - first) / ((time.monotonic() - begun) / PERIOD_S)


async def test_a_device_that_refuses_everything_is_not_flooded_and_read_as_before_afterwards(
    plant: Plant, device: Moody
) -> None:
    """Row D5: 1,999 requests in the first turn, and then each tag asked for alone for up to a minute after the repair."""
    await read_all(plant, device)
    device.seen.clear()
    await device.set_mode("exc", 2)
    await plant.wait(having(plant, BAD), "bad")
    asked = len(device.seen)
    assert asked <= 2 * BLOCKS + 5 * BLOCKS, "those of a turn before, each request, and a few of its parts"
    assert await requests_per_period(device, 2.0) < BLOCKS
    await device.set_mode("good")
    await plant.wait(having(plant, GOOD), "good again")
    assert await requests_per_period(device) <= 1.2 * BLOCKS
    await plant.wait(lambda: plant.told.plans["boiler"]["requests_per_s"] == 10 * BLOCKS, "as before")
    assert illegal(plant) == []


@pytest.mark.parametrize(("tags", "refuses"), [(60, 1), (60, 5), (60, 20), (60, 70), (TAGS, 2), (TAGS, 9), (TAGS, 70)])
async def test_a_moment_in_which_everything_is_refused_teaches_nothing(
    plant: Plant, device: Moody, tags: int, refuses: int
) -> None:
    """However far the division had come when the device answered again."""
    await read_all(plant, device, tags)
    device.refuses = refuses
    await plant.wait(lambda: device.refuses <= 0, "refused", 10)
    await plant.wait(having(plant, GOOD, tags), "good again")

    blocks = -(-tags // 62)
    for _ in range(20):
        asked = await requests_per_period(device, 0.5)
        if asked <= 1.2 * blocks:
            break
    assert asked <= 1.2 * blocks
    await plant.wait(lambda: len(plant.told.requests("boiler")) == blocks, "as before")
    assert illegal(plant) == []


async def test_illegal_addresses_are_found_in_a_turn_and_planned_around_at_once(plant: Plant, device: Moody) -> None:
    """Pieces of what was divided were asked for until the next plan, a minute later."""
    holes = {13, 14, 15, 200, 201, 340}
    device.illegal = {2 * hole for hole in holes}
    plant.put(boiler(device.port))
    await plant.wait(lambda: len({sample.tag for _, _, sample in plant.told.samples}) == TAGS, "all are known")
    assert len(device.seen) < 150
    wanted = {f"t{n}": BAD if n in holes else GOOD for n in range(TAGS)}
    assert {sample.tag: sample.quality for _, _, sample in plant.told.samples} == wanted
    await plant.wait(lambda: len(plant.told.requests("boiler")) <= BLOCKS + 3 * len(holes), "planned")
    assert await requests_per_period(device) <= BLOCKS + 6
    assert {sample.tag: sample.quality for _, _, sample in plant.told.samples} == wanted
    device.illegal.clear()
    await plant.wait(having(plant, GOOD), "legal by now")
    await plant.wait(lambda: len(plant.told.requests("boiler")) == BLOCKS, "one plan as at first", 3)


async def test_tags_between_illegal_addresses_everywhere_are_read_in_their_first_turns(
    plant: Plant, device: Moody
) -> None:
    """Only small parts of any request are answered: with the large ones first it took many turns to come upon one."""
    device.illegal = set(range(2, 700, 3))
    tags = [modbus_tag(n + 1, f"t{n}", n // 2 * 3 + n % 2) for n in range(400)]
    plant.put(modbus_device(1, "boiler", device.port, *tags))
    await plant.wait(having(plant, GOOD, 400), "read", 10)
    assert [seen.pdu for seen in device.seen].count(device.seen[0].pdu) <= 2
    await plant.wait(lambda: len(plant.told.requests("boiler")) == 200, "nothing is read over them", 10)


async def test_a_few_legal_addresses_among_many_that_are_not_are_found(plant: Plant, device: Moody) -> None:
    """The only ones that answer: before the first of them everything is refused."""
    legal = {41, 42}
    device.illegal = {2 * n for n in range(124) if n not in legal}
    plant.put(boiler(device.port, 124))
    await plant.wait(lambda: all(plant.told.quality("boiler", f"t{n}") is GOOD for n in legal), "found", 10)
    for n in legal:
        device.registers[2 * n] = 16256
    await plant.wait(
        lambda: all((s := plant.told.last("boiler", f"t{n}")) and s.value == 1.0 for n in legal), "read on"
    )


async def test_a_new_plan_has_its_load_soon_and_counts_what_is_left_alone_as_it_is_asked(
    plant: Plant, device: Moody
) -> None:
    """The load was 0 for a minute, and refused requests were counted at full speed."""
    await read_all(plant, device)
    await plant.wait(lambda: "boiler" in plant.told.plans, "the first plan")
    first = plant.told.plans["boiler"]
    await plant.wait(lambda: plant.told.plans["boiler"] is not first, "the second plan")
    device.illegal = {2 * hole for hole in range(0, TAGS, 40)}
    await plant.wait(lambda: len(illegal(plant)) == 10, "learned")
    told = plant.told.plans["boiler"]
    await plant.wait(lambda: plant.told.plans["boiler"] is not told, "told again")
    await plant.wait(lambda: all(row["duration_ms"] for row in plant.told.plans["boiler"]["requests"]), "durations", 3)
    plan = plant.told.plans["boiler"]
    assert plan["load"] > 0
    slow = [row for row in plan["requests"] if row["period_ms"] == 1000]
    assert len(slow) == 10
    assert plan["requests_per_s"] == 10 * (len(plan["requests"]) - 10) + 10
    begun = len(device.seen)
    await asyncio.sleep(2.0)
    asked = Counter(seen.pdu for seen in device.seen[begun:])
    counted = sum(asked.values()) / max(asked.values()) / PERIOD_S  # by turns: a busy machine leaves some out
    assert counted == pytest.approx(plan["requests_per_s"], rel=0.2)

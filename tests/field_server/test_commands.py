"""Commands and calls on the links of a field, behind a desk that hears them as from a broker: verdicts, ceilings, changes."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest

from drivers.registry import load_drivers
from field_server.commands import FieldCommands
from links.command_desk import CommandDesk
from scada.commands import Step
from scada.config import DeviceConfig, Direction, LimitsConfig, OutOfLimits, ScalingConfig, TagConfig
from scada.modbus.registers import RegisterType
from scada.protocols.modbus import ModbusOptions
from scada.topics import BusTopics
from scada.values import Quality
from tests.support.bus_watch import now_ms
from tests.support.fault_device import FaultDevice
from tests.support.field import Plant, build_field, modbus_device, modbus_tag

INOUT, OUT = Direction.INOUT, Direction.OUT
INT16, FLOAT32 = RegisterType.INT16, RegisterType.FLOAT32


class Ear:
    """The bus's side of a desk."""

    online = True

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[str, bytes, bool, bool], None]] = {}

    def watch(self, watcher: Callable[[bool], None]) -> None:
        return

    def subscribe(self, filters: Iterable[str], handler: Callable[[str, bytes, bool, bool], None]) -> None:
        self.handlers |= {each.split("/")[1]: handler for each in filters}

    async def connected(self) -> None:
        return

    async def send(self, topic: str, payload: bytes) -> None:
        return


class Site:
    """A plant with a desk before it. What is asked for gets the id "1" unless it has one."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.steps: list[Step] = []
        self._ear = Ear()
        bus: Any = self._ear
        commands = FieldCommands(plant.field, load_drivers())
        self.desk = CommandDesk(bus, BusTopics(), commands, self.steps.extend, answers_unknown=True)
        self.desk._fresh_from = 0.0

    def ask(self, kind: str, device: str, repeat: bool = False, **document: Any) -> None:
        """Publish a `set` or a `call`."""
        self._ear.handlers[kind](f"tagwire/{kind}/{device}", json.dumps(document).encode(), False, repeat)

    async def verdict(self, command_id: str = "1", timeout_s: float = 8.0) -> tuple[list[str], str]:
        """The states of a command when it has ended, and the last reason."""

        def own() -> list[Step]:
            return [step for step in self.steps if step.id == command_id]

        await self.plant.wait(lambda: own() and own()[-1].final, f"a verdict: {own()}", timeout_s)
        return [step.state.value for step in own()], own()[-1].reason

    async def set(self, tag: str, value: float, **more: Any) -> tuple[list[str], str]:
        """Set a tag of the device plc; see `verdict`."""
        self.ask("set", "plc", **{"id": "1", "tag": tag, "value": value, **more})
        return await self.verdict()

    async def plc(self, port: int, *tags: TagConfig, **network: Any) -> None:
        """Configure the device plc, and wait until its first tag that is read is good."""
        self.plant.put(modbus_device(1, "plc", port, *tags, **network))
        await self.is_read("plc", next(tag.name for tag in tags if tag.bindings[0].direction is not OUT))

    async def is_read(self, device: str, tag: str) -> None:
        await self.plant.wait(lambda: self.plant.told.last(device, tag), f"{device}@{tag} is read")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with build_field() as plant:
        site = Site(plant)
        running = asyncio.create_task(site.desk.run())
        yield site
        running.cancel()
        await asyncio.wait([running])


def written(device: FaultDevice) -> list[tuple[int, bytes]]:
    """The writes that reached a device: unit and request."""
    return [(seen.unit_id, seen.pdu) for seen in device.seen if seen.pdu[0] in (5, 6, 15, 16, 22)]


VERIFIED = ["accepted", "sent", "acknowledged", "verified"]
FAILED = ["accepted", "sent", "acknowledged", "failed"]


async def test_a_value_beyond_a_limit_that_clamps_is_not_the_limit(site: Site, device: FaultDevice) -> None:
    """A device that kept 150 was `verified` to hold 100, since the tag showed its limit."""
    device.registers[0], device.forgetful = 150, True
    limits = LimitsConfig(0, 100, OutOfLimits.CLAMP)
    await site.plc(device.port, modbus_tag(1, "x", 0, direction=INOUT, limits=limits))
    soon = {"expires_ms": now_ms() + 1000}
    assert await site.set("x", 100, **soon) == (FAILED, "x shows 150, not 100.0")


async def test_a_limit_that_float32_rounds_beyond_itself_is_reached(site: Site, device: FaultDevice) -> None:
    limits = LimitsConfig(0, 0.1)
    await site.plc(device.port, modbus_tag(1, "x", 0, direction=INOUT, type=FLOAT32, limits=limits))
    assert (await site.set("x", 0.1))[0] == VERIFIED


@pytest.mark.parametrize(
    ("gain", "shown", "wanted", "states"), [(0.1, 46, 5.0, FAILED), (0.1, 50, 5.0, VERIFIED), (10, 5, 53, VERIFIED)]
)
async def test_feedback_is_compared_in_steps_of_its_tags_scaling(
    site: Site, device: FaultDevice, gain: float, shown: int, wanted: float, states: list[str]
) -> None:
    """4.6 was near enough to 5.0, and 50 too far from 53 in steps of ten."""
    device.registers[10] = shown
    await site.plc(
        device.port,
        modbus_tag(1, "target", 0, direction=INOUT, type=FLOAT32, options=ModbusOptions(feedback="position")),
        modbus_tag(2, "position", 10, type=INT16, scaling=ScalingConfig(gain)),
    )
    assert (await site.set("target", wanted, expires_ms=now_ms() + 1000))[0] == states


async def test_the_neighbour_of_a_value_between_two_integers_is_another_one(site: Site, device: FaultDevice) -> None:
    """5 in steps of 2 is written as 6; 4, which was there before, is as near."""
    device.registers[0], device.forgetful = 2, True
    x = modbus_tag(1, "x", 0, direction=INOUT, type=INT16, scaling=ScalingConfig(2))
    await site.plc(device.port, x)
    assert (await site.set("x", 5, expires_ms=now_ms() + 1000))[0] == FAILED
    device.forgetful = False
    site.ask("set", "plc", id="2", tag="x", value=5)
    assert ((await site.verdict("2"))[0], device.registers[0]) == (VERIFIED, 3)


@pytest.mark.parametrize("change", ["deleted", "moved"])
async def test_a_command_that_waits_is_not_written_by_an_older_configuration(
    site: Site, device: FaultDevice, change: str
) -> None:
    """It reached a device that was deleted, or the register where its tag had been."""

    def plc(register: int) -> DeviceConfig:
        return modbus_device(1, "plc", device.port, modbus_tag(1, "x", register, direction=INOUT))

    site.plant.put(plc(0), modbus_device(2, "other", device.port, modbus_tag(2, "y", 5, unit_id=2)))
    await site.is_read("plc", "x")
    await site.is_read("other", "y")
    await device.set_mode("refuse")
    await site.plant.wait(lambda: site.plant.told.quality("plc", "x") is Quality.BAD, "away")
    site.ask("set", "plc", id="1", tag="x", value=7)
    await asyncio.sleep(0.1)
    site.plant.put(*([] if change == "deleted" else [plc(40)]), removed=[1] if change == "deleted" else [])
    await device.set_mode("good")
    assert await site.verdict() == (["accepted", "failed"], "plc: its configuration changed meanwhile")
    assert written(device) == []


async def test_a_device_with_a_ceiling_holds_up_no_neighbour(site: Site, device: FaultDevice) -> None:
    """Its wait was slept on the link: all behind it stood still for 9 s, and a command for another one expired."""
    slow = [modbus_tag(number, f"t{number}", 1000 * number, period_ms=60_000) for number in range(5)]
    fast = modbus_tag(50, "x", 5, unit_id=2, direction=INOUT)
    site.plant.put(
        modbus_device(1, "slow", device.port, *slow, max_requests_per_s=2.0),
        modbus_device(2, "fast", device.port, fast),
    )
    for tag in slow:
        await site.is_read("slow", tag.name)
    begun = time.monotonic()
    site.ask("call", "slow", id="call", expires_ms=now_ms() + 1200)
    await asyncio.sleep(0.1)
    site.ask("set", "fast", id="1", tag="x", value=9)
    assert (await site.verdict())[0] == VERIFIED
    assert time.monotonic() - begun < 1.0
    assert (await site.verdict("call"))[0] == ["expired"]
    asked = len([seen for seen in device.seen if seen.unit_id == 1])
    await asyncio.sleep(1.0)
    assert len([seen for seen in device.seen if seen.unit_id == 1]) == asked, "nobody waits for the rest any more"
    times = [seen.time_s for seen in device.seen if seen.unit_id == 2 and seen.time_s > begun]
    assert max(after - before for before, after in pairwise(times)) < 0.45


async def test_a_ceiling_holds_for_a_place_that_is_not_read_otherwise(site: Site, device: FaultDevice) -> None:
    """30 calls were 30 requests at once, to a device that bears two a second."""
    device.forgetful = True
    await site.plc(device.port, modbus_tag(1, "goal", 0, direction=OUT), modbus_tag(2, "y", 1), max_requests_per_s=5.0)
    since = len(device.seen)
    begun = time.monotonic()
    for number in range(30):
        site.ask("call", "plc", id=f"call{number}", tags=["goal"])
    assert (await site.set("goal", 5, expires_ms=now_ms() + 2000))[0] == FAILED
    reads = [seen for seen in device.seen[since:] if seen.pdu[0] == 3]
    assert len(reads) <= 5 * (time.monotonic() - begun) + 2
    ways = {seen.pdu[1:3] for seen in reads}
    assert ways == {b"\0\0", b"\0\1"}, "and what is polled has its share"


async def test_a_second_delivery_of_a_command_without_an_id_does_not_act(site: Site, device: FaultDevice) -> None:
    """Row B7: each got an id of its own, and what an operator had set meanwhile was set back."""
    await site.plc(device.port, modbus_tag(1, "x", 0, direction=INOUT))
    for repeat, expected in ((False, 1), (True, 1), (False, 2), (True, 2)):
        site.ask("set", "plc", repeat, tag="x", value=5)
        await asyncio.sleep(0.4)
        assert len(written(device)) == expected, "on purpose, a command may be given twice"
    assert [step.state.value for step in site.steps] == VERIFIED * 2


async def test_what_a_device_refuses_is_not_told_under_the_name_it_had_before(site: Site, device: FaultDevice) -> None:
    """Row D13: the state of a name that was gone came back."""
    tags = [modbus_tag(number, f"t{number}", 1000 * number, period_ms=60_000) for number in range(3)]

    def plc(name: str) -> DeviceConfig:
        return modbus_device(1, name, device.port, *tags, timeout_s=2.0)

    site.plant.put(plc("before"))
    for tag in tags:
        await site.is_read("before", tag.name)
    device.illegal = {0}
    await device.set_mode("delay", 0.5)
    site.ask("call", "before", id="1")
    await asyncio.sleep(0.25)
    told = len(site.plant.told.samples)
    site.plant.put(plc("after"))
    assert await site.verdict() == (["failed"], "before: its configuration changed meanwhile")
    await site.is_read("after", "t2")
    assert {name for _, name, _ in site.plant.told.samples[told:]} == {"after"}

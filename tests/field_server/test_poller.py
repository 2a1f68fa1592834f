"""One link's loop against a device that misbehaves: qualities, retries, breakers, reconnecting, reconfiguration."""

import asyncio
import logging
import os
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest

from field_server.poller import FIRST_PAUSE_S, MAX_PAUSE_S
from links.backoff import Backoff
from scada.config import DeviceConfig, Direction
from scada.errors import LinkError
from scada.modbus.endpoint import Transport
from scada.values import Quality, Reason
from tests.support.fault_device import FaultDevice
from tests.support.field import Plant, build_field, modbus_device, modbus_tag

GOOD, BAD = Quality.GOOD, Quality.BAD
LYING = ["wrong_tid", "wrong_unit", "wrong_proto", "wrong_fc", "fewer_regs", "bytecount_lies", "trunc", "trunc_stall"]
LYING += ["len_huge", "garbage", "zero_tid", "never", "rst", "fin"]


@pytest.fixture
async def device() -> AsyncIterator[FaultDevice]:
    async with FaultDevice() as running:
        running.registers[0:10] = range(100, 110)
        yield running


@pytest.fixture
async def plant() -> AsyncIterator[Plant]:
    async with build_field() as built:
        yield built


def boiler(port: int, **network: object) -> DeviceConfig:
    return modbus_device(1, "boiler", port, modbus_tag(1, "a", 0), modbus_tag(2, "b", 1), **network)


async def test_values_arrive_and_only_changes_are_told(plant: Plant, device: FaultDevice) -> None:
    plant.put(boiler(device.port))
    await plant.wait(lambda: plant.told.quality("boiler", "b") is GOOD, "read")
    await asyncio.sleep(0.35)
    device.registers[1] = 7
    await plant.wait(lambda: (last := plant.told.last("boiler", "b")) and last.value == 7, "the change")
    assert [(s.tag, s.value) for _, _, s in plant.told.samples] == [("a", 100), ("b", 101), ("b", 7)]
    assert plant.told.links == [("boiler", True, None)]
    assert len({seen.pdu for seen in device.seen}) == 1, "both in one request"
    assert plant.told.plans["boiler"]["requests_per_s"] == 10


async def test_reads_keep_to_their_grid(plant: Plant, device: FaultDevice) -> None:
    plant.put(boiler(device.port))
    await asyncio.sleep(1.6)
    times = [seen.time_s for seen in device.seen][3:]
    steps = [after - before for before, after in pairwise(times)]
    assert len(steps) >= 8
    assert abs(statistics.median(steps) - 0.1) < 0.01, steps


@pytest.mark.parametrize("mode", LYING)
async def test_never_good_with_a_value_that_was_not_sent(plant: Plant, device: FaultDevice, mode: str) -> None:
    """Rows D1-D4, D7: bad within timeout x (retries + 1), the true value again soon after, nothing else ever."""
    plant.put(boiler(device.port))
    await plant.wait(lambda: plant.told.quality("boiler", "a") is GOOD, "read")
    await device.set_mode(mode)
    took = await plant.wait(lambda: plant.told.quality("boiler", "a") is BAD, "bad")
    assert took < 0.2 * 2 + 0.1 + 0.5, "timeout x (retries + 1), a period, and a slow machine"
    await asyncio.sleep(0.3)
    device.registers[0] = 55
    await device.set_mode("good")
    await plant.wait(lambda: plant.told.quality("boiler", "a") is GOOD, "good again", 6)
    values = {(sample.tag, sample.value) for _, _, sample in plant.told.samples if sample.quality is GOOD}
    assert values <= {("a", 100), ("a", 55), ("b", 101)}
    assert [online for _, online, _ in plant.told.links] == [True, False, True]


@pytest.mark.parametrize("mode", ["stale_then_good", "twice", "chatter", "flap"])
async def test_odd_but_right_answers_are_good(plant: Plant, device: FaultDevice, mode: str) -> None:
    await device.set_mode(mode)
    plant.put(boiler(device.port))
    await plant.wait(lambda: plant.told.quality("boiler", "a") is GOOD, "read")
    await asyncio.sleep(0.5)
    device.registers[0] = 55
    await plant.wait(lambda: (last := plant.told.last("boiler", "a")) and last.value == 55, "the change")
    assert {s.value for _, _, s in plant.told.samples if s.quality is GOOD} == {100, 101, 55}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1, Reason.CONFIG_ERROR), (2, Reason.CONFIG_ERROR), (3, Reason.CONFIG_ERROR), (4, Reason.DEVICE_FAILURE),
        (5, Reason.DEVICE_FAILURE), (6, Reason.DEVICE_FAILURE), (8, Reason.DEVICE_FAILURE), (10, Reason.COMM_FAILURE),
        (11, Reason.COMM_FAILURE), (0, Reason.DEVICE_FAILURE), (255, Reason.DEVICE_FAILURE),
    ],
)  # fmt: skip
async def test_exception_codes_become_qualities(plant: Plant, device: FaultDevice, code: int, reason: Reason) -> None:
    """Row D5; a refusal that asking again does not change is asked for ten times less often."""
    plant.put(boiler(device.port))
    await plant.wait(lambda: plant.told.quality("boiler", "a") is GOOD, "read")
    await device.set_mode("exc", code)
    await plant.wait(lambda: plant.told.quality("boiler", "a") is BAD, "bad")
    sample = plant.told.last("boiler", "a")
    assert sample is not None
    assert (sample.reason, sample.value) == (reason, 100)
    if reason is Reason.CONFIG_ERROR:
        await asyncio.sleep(0.2)
        device.seen.clear()
        await asyncio.sleep(0.8)
        assert len(device.seen) <= 3
    await device.set_mode("good")
    await plant.wait(lambda: plant.told.quality("boiler", "a") is GOOD, "good again")


async def test_an_illegal_address_makes_bad_only_its_own_tag(plant: Plant, device: FaultDevice) -> None:
    tags = [modbus_tag(n + 1, f"t{n}", n) for n in range(10)]
    device.illegal.add(6)
    plant.put(modbus_device(1, "boiler", device.port, *tags))
    await plant.wait(lambda: plant.told.quality("boiler", "t9") is GOOD, "read")
    await plant.wait(lambda: plant.told.quality("boiler", "t6") is BAD, "the illegal one")
    assert [plant.told.quality("boiler", f"t{n}") for n in range(10)] == [GOOD] * 6 + [BAD] + [GOOD] * 3
    await plant.wait(lambda: plant.told.plans.get("boiler", {}).get("learned"), "shown in the plan")


async def test_a_silent_unit_does_not_take_the_others_with_it(plant: Plant, device: FaultDevice) -> None:
    """The socket is kept, the silent unit is asked less and less often, the other goes on."""
    silent = modbus_device(2, "silent", device.port, modbus_tag(20, "x", 5, unit_id=9))
    plant.put(boiler(device.port), silent)
    await plant.wait(lambda: plant.told.quality("silent", "x") is GOOD, "both read")
    answer = device.answer
    device.answer = lambda seen: iter(()) if seen.unit_id == 9 else answer(seen)  # type: ignore[method-assign]  # of this one alone
    await plant.wait(lambda: plant.told.quality("silent", "x") is BAD, "bad")
    await asyncio.sleep(1.0)
    connections = len(device.accepted_s)
    device.seen.clear()
    await asyncio.sleep(1.5)
    assert plant.told.quality("boiler", "a") is GOOD
    assert len(device.accepted_s) == connections == 1
    assert len(device.seen) >= 8, "the other unit is read all the time"
    device.answer = answer  # type: ignore[method-assign]  # of this one alone
    await plant.wait(lambda: plant.told.quality("silent", "x") is GOOD, "good again", 6)


async def test_a_dead_connection_is_opened_anew(plant: Plant, device: FaultDevice) -> None:
    """Nobody behind the socket answers: perhaps it is the socket."""
    plant.put(boiler(device.port))
    await plant.wait(lambda: plant.told.quality("boiler", "a") is GOOD, "read")
    await device.set_mode("never")
    await plant.wait(lambda: len(device.accepted_s) >= 2, "a new connection")


@pytest.mark.parametrize("framing", ["tcp", "udp", "rtu"])
async def test_a_silent_device_is_bad_in_time(plant: Plant, framing: str) -> None:
    """Row D1. Over RTU it took three timeouts: before it was asked again one more had to pass."""
    transport = {"rtu": "rtu_over_tcp"}.get(framing, framing)
    async with FaultDevice(framing=framing) as device:
        plant.put(boiler(device.port, transport=Transport(transport), timeout_s=1.0))
        await plant.wait(lambda: plant.told.quality("boiler", "a") is GOOD, "read")
        await device.set_mode("never")
        took = await plant.wait(lambda: plant.told.quality("boiler", "a") is BAD, "bad")
        assert took < 0.1 + 2 * 1.0 + 0.8, "a period, timeout x (retries + 1), and a slow machine"


async def test_a_device_that_is_not_there(plant: Plant, device: FaultDevice) -> None:
    """Row D7: asked again with backoff, good within 5 s of its return, no file left open."""
    await device.set_mode("refuse")
    plant.put(boiler(device.port))
    await plant.wait(lambda: plant.told.quality("boiler", "a") is BAD, "bad")
    sample = plant.told.last("boiler", "a")
    assert sample is not None
    assert (sample.reason, sample.value) == (Reason.NOT_CONNECTED, None)
    await asyncio.sleep(1.5)
    files = len(os.listdir("/proc/self/fd"))
    await device.set_mode("good")
    took = await plant.wait(lambda: plant.told.quality("boiler", "a") is GOOD, "good", 6)
    assert took < 5.0
    assert len(os.listdir("/proc/self/fd")) <= files + 4
    assert len(plant.told.links) == 2


async def test_who_waits_for_his_turn_to_connect_is_not_shown_good() -> None:
    """Row D12: after a power cut hundreds of devices stood as they had been, until it was their turn to be connected."""
    async with AsyncExitStack() as stack:
        farm = [await stack.enter_async_context(FaultDevice()) for _ in range(8)]
        plant = await stack.enter_async_context(build_field(connects_per_s=4))
        devices = [modbus_device(n, f"d{n}", each.port, modbus_tag(n, "x", 0)) for n, each in enumerate(farm, 1)]
        plant.put(*devices)
        await plant.wait(lambda: all(plant.told.quality(f"d{n}", "x") is GOOD for n in range(1, 9)), "read")
        assert len(plant.told.links) == 8, "nobody was told to be offline at the start"
        for each in farm:
            await each.set_mode("refuse")
        took = await plant.wait(lambda: all(plant.told.quality(f"d{n}", "x") is BAD for n in range(1, 9)), "bad")
        assert took < 0.1 + 2 * 0.2 + 0.5, "a period, timeout x (retries + 1), and a slow machine"


async def test_a_device_that_comes_and_goes_does_not_fill_the_log(
    plant: Plant, device: FaultDevice, caplog: pytest.LogCaptureFixture
) -> None:
    """Five lines a second, for as long as it lasted."""
    caplog.set_level(logging.INFO, "field_server")
    plant.put(modbus_device(1, "boiler", device.port, modbus_tag(1, "a", 0, period_ms=30)))
    for number in range(30):
        await (device.set_mode("exc", 4) if number % 2 else device.set_mode("good"))
        wanted = BAD if number % 2 else GOOD
        await plant.wait(lambda wanted=wanted: plant.told.quality("boiler", "a") is wanted, "a change")  # type: ignore[misc]  # the lambda's default
    lines = [record.getMessage() for record in caplog.records if "boiler" in record.getMessage()]
    assert 1 <= len(lines) <= 6, lines


async def test_a_ceiling_protects_the_device(plant: Plant, device: FaultDevice) -> None:
    tags = [modbus_tag(n + 1, f"t{n}", n * 500) for n in range(6)]
    plant.put(modbus_device(1, "boiler", device.port, *tags, max_requests_per_s=20))
    await asyncio.sleep(2.0)
    assert 20 <= len(device.seen) <= 42
    assert plant.told.plans["boiler"]["ceiling"] == 20
    assert plant.told.plans["boiler"]["wanted_requests_per_s"] == 60
    assert plant.told.plans["boiler"]["requests_per_s"] == 20
    await plant.wait(lambda: plant.told.plans["boiler"]["load"] > 0, "the load of what is allowed", 8)


async def test_a_write_goes_ahead_of_reads(plant: Plant, device: FaultDevice) -> None:
    tags = [modbus_tag(n + 1, f"t{n}", n * 500, direction=Direction.INOUT) for n in range(20)]
    await device.set_mode("delay", 0.02)
    config = modbus_device(1, "boiler", device.port, *tags)
    plant.put(config)
    await plant.wait(lambda: len(device.seen) > 5, "busy")
    device_plan = plant.field.device("boiler")
    assert device_plan is not None
    part = device_plan.parts[0]
    first = part.sources[0].point
    before = len(device.seen)
    await plant.field.poller(part).perform(lambda link: link.write([(first, 9)]))
    functions = [seen.pdu[0] for seen in device.seen[before:]]
    assert 6 in functions[:2], "after the read that was under way, if any"


async def test_work_on_a_link_that_is_down_waits_for_it(plant: Plant, device: FaultDevice) -> None:
    await device.set_mode("refuse")
    plant.put(boiler(device.port))
    await plant.wait(lambda: plant.told.quality("boiler", "a") is BAD, "bad")
    device_plan = plant.field.device("boiler")
    assert device_plan is not None
    poller = plant.field.poller(device_plan.parts[0])

    async def fail(_: object) -> None:
        raise LinkError("made up")

    asked = asyncio.create_task(poller.perform(fail))
    await asyncio.sleep(0.3)
    assert not asked.done()
    await device.set_mode("good")
    with pytest.raises(LinkError, match="made up"):
        await asyncio.wait_for(asked, 6)


async def test_changed_a_thousand_times_while_polls_are_in_flight(plant: Plant, device: FaultDevice) -> None:
    """Row D13: nothing under an old name after its withdrawal, no task and no socket left."""
    await device.set_mode("delay", 0.003)
    tasks = len(asyncio.all_tasks())
    files = len(os.listdir("/proc/self/fd"))
    late = []
    name = ""
    for number in range(1000):
        name = f"boiler{number % 7}"
        register = number % 5
        tag = modbus_tag(1, f"t{register}", register, period_ms=10)
        plant.put(modbus_device(1, name, device.port, tag))
        if number % 50 == 48:
            plant.put(removed=[1])
            name = ""
        await asyncio.sleep(0.002)
        begun = time.monotonic()
        if number % 25 == 0:
            await asyncio.sleep(0.02)
        late += [(each, name) for at, each, _ in plant.told.samples if at > begun and each != name]
        wrong = [s for _, _, s in plant.told.samples if s.quality is GOOD and s.value != 100 + int(s.tag[1:])]
        assert not wrong
        plant.told.samples.clear()
    assert not late
    plant.put(removed=[1])
    await plant.wait(lambda: len(asyncio.all_tasks()) <= tasks + 2, "the tasks are gone")
    await plant.wait(lambda: len(os.listdir("/proc/self/fd")) <= files + 2, "the sockets are gone")


async def test_a_fault_of_ours_makes_the_device_bad_and_is_got_over(
    plant: Plant, device: FaultDevice, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.put(boiler(device.port))
    await plant.wait(lambda: plant.told.quality("boiler", "a") is GOOD, "read")
    device_plan = plant.field.device("boiler")
    assert device_plan is not None
    link = plant.field.poller(device_plan.parts[0])._link
    with monkeypatch.context() as broken:
        broken.setattr(type(link), "read", lambda *_: 1 / 0)
        await plant.wait(lambda: plant.told.quality("boiler", "a") is BAD, "bad")
    device.registers[0] = 3
    await plant.wait(lambda: (last := plant.told.last("boiler", "a")) and last.value == 3, "goes on", 8)
    assert "ZeroDivisionError" in caplog.text


async def test_devices_behind_one_link_have_the_longest_timeout_of_all(plant: Plant, device: FaultDevice) -> None:
    """Opened with the first one's settings, the link called the slow one silent."""
    await device.set_mode("delay", 0.3)
    quick = modbus_device(1, "quick", device.port, modbus_tag(1, "a", 0), timeout_s=0.1)
    slow = modbus_device(2, "slow", device.port, modbus_tag(2, "b", 1, unit_id=2), timeout_s=0.8)
    plant.put(quick, slow)
    await plant.wait(lambda: plant.told.quality("slow", "b") is GOOD, "the slow one is read")
    assert plant.told.quality("slow", "b") is GOOD
    assert len(device.accepted_s) == 1
    plant.put(removed=[2])
    await plant.wait(lambda: plant.told.quality("quick", "a") is BAD, "the quick one's own timeout holds again", 8)


async def test_what_was_learned_makes_a_better_plan(
    plant: Plant, device: FaultDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dividing leaves small requests behind; planned again around the illegal address there are three."""
    monkeypatch.setattr("field_server.turns.PLAN_PERIOD_S", 0.5)
    monkeypatch.setattr("field_server.turns.FIRST_PLAN_S", 0.5)
    tags = [modbus_tag(n + 1, f"t{n}", n) for n in range(32)]
    device.illegal.add(13)
    plant.put(modbus_device(1, "boiler", device.port, *tags))
    await plant.wait(lambda: plant.told.quality("boiler", "t13") is BAD, "the illegal one")
    await plant.wait(lambda: len(plant.told.requests("boiler")) == 3, "planned again", 8)
    await asyncio.sleep(0.3)
    wanted = [BAD if n == 13 else GOOD for n in range(32)]
    assert [plant.told.quality("boiler", f"t{n}") for n in range(32)] == wanted
    device.registers[31] = 7
    await plant.wait(lambda: (last := plant.told.last("boiler", "t31")) and last.value == 7, "read on")


async def test_a_gateway_that_falls_silent_takes_all_its_units_with_it(plant: Plant, device: FaultDevice) -> None:
    """Six units behind one endpoint were found silent one after another: the last stayed good for many seconds."""
    units = [modbus_device(n, f"unit{n}", device.port, modbus_tag(n, "x", n, unit_id=n)) for n in range(1, 7)]
    plant.put(*units)
    await plant.wait(lambda: all(plant.told.quality(f"unit{n}", "x") is GOOD for n in range(1, 7)), "read")
    await device.set_mode("never")
    took = await plant.wait(lambda: all(plant.told.quality(f"unit{n}", "x") is BAD for n in range(1, 7)), "all bad")
    assert took < 0.2 * 2 + 0.1 + 0.5, "timeout x (retries + 1), a period, and a slow machine"
    await device.set_mode("good")
    await plant.wait(lambda: all(plant.told.quality(f"unit{n}", "x") is GOOD for n in range(1, 7)), "good again", 8)


async def test_a_unit_that_returns_is_read_at_once_with_all_its_tags(plant: Plant, device: FaultDevice) -> None:
    """Whatever their periods, and whichever device they belong to: a slow tag stayed bad until its next turn."""
    tags = [modbus_tag(1, "fast", 0), modbus_tag(2, "slow", 1, period_ms=60_000)]
    lodger = modbus_device(2, "lodger", device.port, modbus_tag(3, "slow", 2, period_ms=60_000))
    plant.put(modbus_device(1, "boiler", device.port, *tags), lodger)
    slow = ("boiler", "slow"), ("lodger", "slow")
    await plant.wait(lambda: all(plant.told.quality(*each) is GOOD for each in slow), "read")
    await device.set_mode("never")
    await plant.wait(lambda: all(plant.told.quality(*each) is BAD for each in slow), "bad")
    device.registers[1:3] = 7, 8
    await device.set_mode("good")
    await plant.wait(lambda: plant.told.quality("boiler", "fast") is GOOD, "it is back", 6)
    await plant.wait(lambda: all(plant.told.quality(*each) is GOOD for each in slow), "all of it", 2)
    assert [each and each.value for each in (plant.told.last(*each) for each in slow)] == [7, 8]
    await asyncio.sleep(0.3)
    assert [seen.pdu for seen in device.seen].count(bytes.fromhex("0300010001")) == 2, "at its first turn and now"


async def test_groups_are_spread_over_their_period(plant: Plant, device: FaultDevice) -> None:
    devices = [modbus_device(n, f"d{n}", device.port, modbus_tag(n, "x", n, period_ms=1000)) for n in range(1, 9)]
    plant.put(*devices)
    await asyncio.sleep(3.2)
    turns = sorted(seen.time_s % 1.0 for seen in device.seen if seen.time_s > device.seen[0].time_s + 1.1)
    gaps = [after - before for before, after in pairwise([*turns, turns[0] + 1.0])]
    assert max(gaps) < 0.5, "not all at the same time in their second"


async def test_a_change_leaves_the_links_of_others_alone(plant: Plant, device: FaultDevice) -> None:
    async with FaultDevice() as other:
        neighbour = modbus_device(2, "neighbour", other.port, modbus_tag(20, "x", 0))
        plant.put(boiler(device.port), neighbour)
        await plant.wait(lambda: plant.told.quality("neighbour", "x") is GOOD, "read")
        for number in range(5):
            plant.put(modbus_device(1, "boiler", device.port, modbus_tag(1, "a", number), timeout_s=0.3 + number / 10))
            await asyncio.sleep(0.15)
        assert len(other.accepted_s) == 1
        assert len(device.accepted_s) > 1, "its own is opened anew with another timeout"


def test_a_device_that_is_back_after_a_long_time_is_asked_within_five_seconds() -> None:
    """Row D7: first good poll at most 5 s after the repair, however long it was away."""
    backoff = Backoff(FIRST_PAUSE_S, MAX_PAUSE_S)
    assert max(backoff.next_delay_s() for _ in range(1000)) < 4.5

"""Rows P1, P3-P6 and C1: the gateway killed, ended, frozen, started twice, and configured anew under load."""

import asyncio
import random
import resource
import signal
import socket
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.fault_device import FaultDevice, Seen
from tests.support.plant import Plant, build_plant, tag
from tests.support.soak import rounds

MOST_WAITING = 2_500
"""So many values, some of them sent again after each kill, wait in a queue of 10,000 without an overflow."""


def written(device: FaultDevice, register: int) -> list[int]:
    """Every value that a request wrote to a register, in order."""
    return [value for seen in device.seen if (value := _value(seen, register)) is not None]


def _value(seen: Seen, register: int) -> int | None:
    function, address = seen.pdu[0], int.from_bytes(seen.pdu[1:3], "big")
    if function == 6 and address == register:
        return int.from_bytes(seen.pdu[3:5], "big")
    offset = 2 * (register - address)
    if function == 16 and 0 <= offset < seen.pdu[5]:
        return int.from_bytes(seen.pdu[6 + offset : 8 + offset], "big")
    return None


def message(number: int) -> tuple[str, bytes]:
    return "plant/boiler", b'{"latest": %d, "every": %d}' % (number, number)


def configure(plant: Plant, device: FaultDevice) -> None:
    """Two tags of one device: register 0 takes the latest value, register 1 every one."""
    plant.device("boiler", device.port, [tag("latest", 0), tag("every", 1, options={"every_value": True})])


@pytest.mark.parametrize("mode", ["good", "delay"])
@pytest.mark.parametrize("broker", ["mosquitto", "quick_nats"], indirect=True)
async def test_p1_killed_at_random_during_numbered_writes(
    gateway_plant: Plant, device: FaultDevice, mode: str, request: pytest.FixtureRequest
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    await device.set_mode(mode, 0.3)
    configure(gateway_plant, device)
    number = 0
    for _ in range(rounds(4, 30)):
        gateway = await gateway_plant.start()
        kill_at = time.monotonic() + rng.uniform(0.05, 0.7)
        while time.monotonic() < kill_at:
            if mode == "good" or number < MOST_WAITING:
                await gateway_plant.publish([message(number := number + 1) for _ in range(rng.randint(1, 20))])
            await asyncio.sleep(0.005)
        await asyncio.to_thread(gateway.kill)
        await gateway_plant.publish([message(number := number + 1) for _ in range(rng.randint(0, 3))])
    await device.set_mode("good")
    await gateway_plant.start()
    every = set(range(1, number + 1))
    await gateway_plant.wait(lambda: device.registers[0] == number, f"seed {seed}: the last value is written", 20)
    await gateway_plant.wait(
        lambda: set(written(device, 1)) == every, f"seed {seed}: every value reached the device", 20
    )
    await gateway_plant.wait(lambda: gateway_plant.outbox() == [], "nothing is left on disk")
    is_embedded = request.node.callspec.params["broker"] == "quick_nats"
    await asyncio.sleep(2.5 if is_embedded else 0.3)
    assert device.registers[0] == number
    # With `every_value` what the embedded broker sends again is written, late.
    assert is_embedded or device.registers[1] == number


async def test_p3_terminated_under_load(gateway_plant: Plant, device: FaultDevice) -> None:
    configure(gateway_plant, device)
    gateway = await gateway_plant.start()
    publishing = asyncio.create_task(gateway_plant.publish([message(number) for number in range(1, 1501)]))
    await asyncio.sleep(0.2)
    started = time.monotonic()
    assert await asyncio.to_thread(gateway.terminate) == 0
    assert time.monotonic() - started < 5.0
    await publishing
    await gateway_plant.start()
    await gateway_plant.wait(lambda: device.registers[:2] == [1500, 1500], "what was left to the broker is written", 20)
    assert set(written(device, 1)) == set(range(1, 1501))


async def test_p3_terminated_while_the_device_is_dead(gateway_plant: Plant, device: FaultDevice) -> None:
    await device.set_mode("never")
    configure(gateway_plant, device)
    gateway = await gateway_plant.start()
    await gateway_plant.publish([message(number) for number in range(1, 30)])
    started = time.monotonic()
    assert await asyncio.to_thread(gateway.terminate) == 0
    assert time.monotonic() - started < 5.0
    assert gateway_plant.outbox().count(29) == 2
    await device.set_mode("good")
    await gateway_plant.start()
    await gateway_plant.wait(lambda: device.registers[:2] == [29, 29], "values from the outbox are written")
    assert written(device, 1)[-29:] == list(range(1, 30))
    await gateway_plant.wait(lambda: gateway_plant.outbox() == [], "the outbox is empty")


async def test_p3_terminated_while_the_broker_cannot_be_reached(tmp_path: Path) -> None:
    """A connect that hangs must not keep the program: its backlog is full, so the kernel drops every SYN."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        broker = Broker([], listener.getsockname()[1], tmp_path / "unused")
        async with build_plant(tmp_path, broker) as plant:
            gateway = await plant.start(online=False)
            await asyncio.sleep(0.3)
            started = time.monotonic()
            assert await asyncio.to_thread(gateway.terminate) == 0
            assert time.monotonic() - started < 3.0


async def test_p4_frozen_and_thawed(gateway_plant: Plant, device: FaultDevice) -> None:
    configure(gateway_plant, device)
    gateway = await gateway_plant.start()
    await gateway_plant.publish([message(1)])
    await gateway_plant.wait(lambda: device.registers[1] == 1, "written before")
    gateway.signal(signal.SIGSTOP)
    await gateway_plant.publish([message(number) for number in range(2, 50)])
    await asyncio.sleep(2.0)
    gateway.signal(signal.SIGCONT)
    await gateway_plant.wait(lambda: device.registers[:2] == [49, 49], "written after", 5)
    assert set(written(device, 1)) == set(range(1, 50))
    assert gateway_plant.output.count("online (tagwire-mqtt_server)") == 1


@pytest.mark.alone
async def test_p5_started_twice(gateway_plant: Plant, device: FaultDevice) -> None:
    configure(gateway_plant, device)
    first = await gateway_plant.start()
    started = time.monotonic()
    second = await gateway_plant.start(ready=False, online=False)
    try:
        assert await asyncio.to_thread(second.wait) == 2
        assert time.monotonic() - started < 3.0
        assert f"process {first.pid} holds" in second.output
        assert "mqtt_server-1of1.lock" in second.output
        await gateway_plant.publish([message(7)])
        await gateway_plant.wait(lambda: device.registers[1] == 7, "the first goes on")
    finally:
        second.close()
        gateway_plant.running = first


async def test_p5_a_stale_lock_file_blocks_nobody(gateway_plant: Plant, device: FaultDevice) -> None:
    (gateway_plant.folder / "mqtt_server-1of1.lock").write_text("1\n")
    configure(gateway_plant, device)
    await gateway_plant.start()


async def test_c1_configuration_edited_during_writes(gateway_plant: Plant, device: FaultDevice) -> None:
    """Scale and place change together, back and forth: a value is either n at register 10 or 2n at register 20."""
    made = gateway_plant.device("boiler", device.port, [tag("t", 10, options={"every_value": True})])
    binding = made["tags"][0]["bindings"][1]["id"]
    await gateway_plant.start()
    total, stop = 600, asyncio.Event()

    async def edit() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            new = (
                {"address": {"register": 20}, "scaling": {"gain": 0.5}}
                if turn % 2
                else {"address": {"register": 10}, "scaling": {"gain": 1.0}}
            )
            await asyncio.to_thread(gateway_plant.store.patch_binding, binding, new)
            await asyncio.sleep(0.35)

    editing = asyncio.create_task(edit())
    for number in range(1, total + 1, 10):
        await gateway_plant.publish([("plant/boiler", b'{"t": %d}' % each) for each in range(number, number + 10)])
        await asyncio.sleep(0.03)
    stop.set()
    await editing
    old, new = partial(written, device, 10), partial(written, device, 20)
    everything = set(range(1, total + 1))
    await gateway_plant.wait(lambda: {*old(), *(value // 2 for value in new())} >= everything, "no value is lost")
    assert old()
    assert new()
    assert all(value <= total for value in old())
    assert all(value % 2 == 0 for value in new()), "old scale at the new place"


async def test_values_on_disk_survive_a_change_of_their_binding(gateway_plant: Plant, device: FaultDevice) -> None:
    """They were acknowledged: moved to the new place, they must stand on disk again, or a crash would lose them."""
    await device.set_mode("refuse")
    made = gateway_plant.device(
        "boiler", device.port, [tag("latest", 10), tag("every", 11, options={"every_value": True})]
    )
    gateway = await gateway_plant.start()
    await gateway_plant.publish([message(number) for number in (1, 2, 3)])
    await gateway_plant.wait(lambda: sorted(gateway_plant.outbox()) == [1, 2, 3, 3], "the values are on disk")
    for register, tag_ in enumerate(made["tags"], start=20):
        gateway_plant.store.patch_binding(tag_["bindings"][1]["id"], {"address": {"register": register}})
    await gateway_plant.wait(lambda: gateway_plant.output.count("configuration ") >= 2, "the change is in force")
    await asyncio.sleep(1.0)
    await asyncio.to_thread(gateway.kill)
    assert sorted(gateway_plant.outbox()) == [1, 2, 3, 3]
    await device.set_mode("good")
    await gateway_plant.start()
    await gateway_plant.wait(lambda: device.registers[20:22] == [3, 3], "written to the new place")
    assert written(device, 21) == [1, 2, 3]
    assert device.registers[10:12] == [0, 0]
    await gateway_plant.wait(lambda: gateway_plant.outbox() == [], "the outbox is empty")


async def test_p6_without_file_descriptors_it_waits_and_recovers(gateway_plant: Plant) -> None:
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(FaultDevice()) for _ in range(12)]
        for number, device in enumerate(devices):
            gateway_plant.device(f"d{number}", device.port, [tag("t", 0)])
        gateway = await gateway_plant.start()
        await gateway_plant.publish([("plant/d0", b'{"t": 1}')])
        await gateway_plant.wait(lambda: devices[0].registers[0] == 1, "the first is served")
        limits = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
        taken = gateway.open_files
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (taken, limits[1]))
        await gateway_plant.publish([(f"plant/d{number}", b'{"t": 2}') for number in range(len(devices))])
        await gateway_plant.wait(lambda: devices[0].registers[0] == 2, "who is connected is served")
        await asyncio.sleep(1.0)
        assert gateway.popen.poll() is None
        assert not all(device.registers[0] == 2 for device in devices), "the limit has an effect"
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, limits)
        await gateway_plant.wait(lambda: all(device.registers[0] == 2 for device in devices), "the others later", 8)
        await gateway_plant.wait(lambda: gateway_plant.outbox() == [], "nothing is left on disk")
        assert "Traceback" not in gateway_plant.output

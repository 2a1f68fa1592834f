"""Which samples no longer depend on this process, in the order in which they were published."""

import asyncio
import time
from pathlib import Path

import pytest

from links.bus import Bus
from links.bus_receipts import Receipts
from links.bus_window import KEPT_S
from links.environment import MqttSettings
from scada.topics import BusTopics
from scada.values import Quality, Sample
from storage.bus_buffer import BusBuffer
from tests.support.brokers import Broker


def sample(value: int | str) -> Sample:
    return Sample("t", value, Quality.GOOD, 1_763_712_000_000)


def test_batches_are_told_in_order_whatever_order_they_are_done_in() -> None:
    told: list[tuple[str, int]] = []
    receipts = Receipts(lambda device, count: told.append((device, count)))
    receipts.done([1, 2])  # of an earlier run
    for number, device in ((5, "a"), (6, "b"), (8, "a")):
        receipts.add(number, device, number * 10)
    receipts.done([8, 4])
    assert told == []
    receipts.done([5])
    assert told == [("a", 50)]
    receipts.done([5, 6])
    assert told == [("a", 50), ("b", 60), ("a", 80)]
    receipts.add(9, "c", 1)
    receipts.done([8])
    assert len(told) == 3
    receipts.done([9])
    assert told[-1] == ("c", 1)


@pytest.mark.parametrize("has_disk", [True, False])
async def test_a_bus_tells_what_is_safe_wherever_it_went(mosquitto: Broker, tmp_path: Path, has_disk: bool) -> None:
    told: list[tuple[str, int]] = []
    buffer = BusBuffer(tmp_path / "buffer", 1000) if has_disk else None
    bus = Bus(
        MqttSettings(port=mosquitto.port),
        BusTopics("plant/bus"),
        "writer",
        buffer=buffer,
        on_safe=lambda device, count: told.append((device, count)),
    )

    async def safe(device: str, count: int) -> None:
        for _ in range(1500):
            if sum(each for of, each in told if of == device) >= count:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"not safe within 15 s: {told}")

    bus.start()
    async with asyncio.timeout(10):
        await bus.connected()
    begun = time.monotonic()
    bus.publish("a", [sample(1), sample(2)])
    bus.publish("b", [sample("\ud800"), sample(3)])  # the first cannot be sent at all
    await safe("a", 2)
    await safe("b", 2)
    assert time.monotonic() - begun > KEPT_S  # a broker acknowledges before it saves
    await asyncio.to_thread(mosquitto.kill)
    told.clear()
    bus.publish("a", [sample(number) for number in range(500)])
    if has_disk:
        await safe("a", 500)
    else:
        await asyncio.sleep(0.5)
        assert told == []
    await asyncio.to_thread(mosquitto.start)
    await safe("a", 500)
    assert told == [("a", 500)]
    await bus.close()

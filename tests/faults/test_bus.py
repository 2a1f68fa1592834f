"""Rows B1, B2, B3 and B7 for the bus: brokers killed, absent, silent; a second program with our name.

The ledger: every sample that a publisher handed to its bus arrives at a subscriber on another connection, in the order of its
tag as far as first arrivals go, with its own time; what had to wait says so.
"""

import asyncio
import logging
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from links import bus_heartbeat
from links.bus import Bus
from links.environment import MqttSettings
from scada.bus_messages import decode_data, decode_link
from scada.topics import BusTopics
from scada.values import Quality, Sample
from storage.bus_buffer import BusBuffer
from tests.support.brokers import Broker, start_mosquitto, start_nats, start_proxy
from tests.support.processes import free_port, start
from tests.support.soak import rounds

TOPICS = BusTopics()
BROKERS = ("mosquitto", "nats")


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Broker:
    return request.getfixturevalue(request.param)


async def eventually(condition: Callable[[], object], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
        await asyncio.sleep(0.02)


class Ledger:
    """What was told, and what arrived: by device, in the order of first arrivals."""

    def __init__(self, port: int) -> None:
        self.told: dict[str, list[Sample]] = defaultdict(list)
        self.arrived: dict[str, dict[object, Sample]] = defaultdict(dict)
        self.states: dict[str, int] = defaultdict(int)
        self.bus = Bus(MqttSettings(port=port, client_id_prefix="ledger"), TOPICS, "ledger")
        self.bus.subscribe([TOPICS.data("+", "+")], self._take)
        self.bus.start()

    def _take(self, topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        samples, faults = decode_data(payload)
        assert not faults
        for each in samples:
            self.arrived[topic.rpartition("/")[2]].setdefault(each.value, each)

    def tell(self, bus: Bus, number: int) -> None:
        device = f"d{number % 4}"
        sample = Sample("t", number, Quality.GOOD, time.time_ns() // 1_000_000)
        self.told[device].append(sample)
        bus.publish(device, [sample])

    @property
    def missing(self) -> set[object]:
        return {
            each.value for device, told in self.told.items() for each in told if each.value not in self.arrived[device]
        }

    async def complete(self, timeout_s: float) -> None:
        try:
            await eventually(lambda: not self.missing, timeout_s)
        finally:
            assert not self.missing, f"lost: {len(self.missing)}, {sorted(map(str, self.missing))[:20]}"

    def check(self) -> None:
        """Order and times."""
        for device, told in self.told.items():
            arrived = list(self.arrived[device].values())
            assert [each.value for each in arrived] == [each.value for each in told], "in order, repeats aside"
            assert [each.time_ms for each in arrived] == [each.time_ms for each in told], "each with its own time"

    @property
    def late(self) -> int:
        return sum(each.late for arrived in self.arrived.values() for each in arrived.values())


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
async def test_b1_the_broker_killed_again_and_again(broker: Broker, tmp_path: Path) -> None:
    ledger = Ledger(broker.port)
    bus = Bus(MqttSettings(port=broker.port), TOPICS, "writer", buffer=BusBuffer(tmp_path / "bus.sqlite"))
    bus.start()
    await asyncio.gather(ledger.bus.connected(), bus.connected())
    restarts = rounds(3, 20)
    stop = asyncio.Event()

    async def publish() -> None:
        number = 0
        while not stop.is_set():
            ledger.tell(bus, number)
            number += 1
            await asyncio.sleep(0.003)

    publishing = asyncio.create_task(publish())
    for number in range(restarts):
        # Now and then it is killed before everything that the last outage kept back is delivered.
        await asyncio.sleep(0.4 if number % 2 else 1.2)
        await asyncio.to_thread(broker.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(broker.start)
        back = time.monotonic()
        if number % 2 == 0:
            await bus.connected()
            assert time.monotonic() - back <= 10
    stop.set()
    await publishing
    await ledger.complete(40)
    ledger.check()
    assert ledger.late
    await eventually(lambda: bus.counters.published >= sum(map(len, ledger.told.values())), 10)
    assert bus.counters.published == sum(map(len, ledger.told.values())), "each counted once, however often it was sent"
    assert bus.counters.buffered == 0
    assert bus.counters.dropped == 0
    await bus.close()
    await ledger.bus.close()


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
async def test_b1_the_program_killed_while_the_broker_is_away(broker: Broker, tmp_path: Path) -> None:
    ledger = Ledger(broker.port)
    await ledger.bus.connected()
    await asyncio.to_thread(broker.kill)
    command = [sys.executable, "-m", "tests.support.bus_writer", str(broker.port), tmp_path]
    first = 0
    for _ in range(3):
        with start([*command, str(first)]) as program:
            await asyncio.to_thread(program.wait_output, f"{first + 300} ")
            killed_ms = time.time_ns() // 1_000_000
            await asyncio.to_thread(program.kill)
            lines = [line.split() for line in program.output.splitlines() if line.count(" ") == 1]
            for number, time_ms in lines:
                if int(time_ms) < killed_ms - 1000:  # what is promised is all but the last half second
                    ledger.told[f"d{int(number) % 4}"].append(Sample("t", int(number), Quality.GOOD, int(time_ms)))
            first = int(lines[-1][0]) + 1000
    with start([*command, str(first)]) as program:
        await asyncio.to_thread(broker.start)
        await asyncio.to_thread(program.wait_output, f"{first} ")
        await ledger.complete(30)
        assert program.terminate() == 0
    arrived = {each.value: each for values in ledger.arrived.values() for each in values.values()}
    for told in ledger.told.values():
        for each in told:
            assert arrived[each.value] == each._replace(late=True)
    for values in ledger.arrived.values():
        assert list(values) == sorted(values, key=lambda value: int(str(value))), "oldest first"
    await ledger.bus.close()


async def test_b2_the_broker_comes_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    port = free_port()
    bus = Bus(MqttSettings(port=port), TOPICS, "writer", buffer=BusBuffer(tmp_path / "bus.sqlite"))
    bus.start()
    bus.link("d1", True, None)
    links: list[bytes] = []
    bus.publish("d1", [Sample("t", 1, Quality.GOOD, 5)])
    await asyncio.sleep(rounds(8, 60))
    assert bus.error is not None
    assert "cannot connect" in bus.error
    assert len([record for record in caplog.records if record.name.startswith("links")]) <= 3
    for start_broker in (start_mosquitto, start_nats):
        with start_broker(tmp_path / start_broker.__name__, port=port):
            there = time.monotonic()
            async with asyncio.timeout(15):
                await bus.connected()
            # 5 s is promised; one more for a machine that is busy with something else.
            assert time.monotonic() - there <= 6
            links.clear()
            reader = Bus(MqttSettings(port=port), TOPICS, "reader")
            reader.subscribe([TOPICS.link("+", "+")], lambda _topic, payload, *_: links.append(payload))
            reader.start()
            await reader.connected()
            await eventually(lambda: links, 5)
            assert decode_link(links[0]).online, "a broker that knows nothing is told everything again"
            await reader.close()
    await bus.close()


@pytest.fixture
async def pair(mosquitto: Broker, tmp_path: Path) -> AsyncIterator[tuple[Ledger, Bus]]:
    ledger = Ledger(mosquitto.port)
    await ledger.bus.connected()
    bus = Bus(MqttSettings(port=mosquitto.port), TOPICS, "writer", buffer=BusBuffer(tmp_path / "bus.sqlite"))
    yield ledger, bus
    await bus.close()
    await ledger.bus.close()


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
async def test_b3_a_link_that_goes_dead_is_found_and_nothing_of_it_is_lost(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the keep-alive of 20 s."""
    monkeypatch.setattr(bus_heartbeat, "PERIOD_S", 0.5)
    ledger = Ledger(broker.port)
    await ledger.bus.connected()
    with start_proxy(broker.port) as proxy:
        bus = Bus(MqttSettings(port=proxy.port), TOPICS, "writer", buffer=BusBuffer(tmp_path / "bus.sqlite"))
        bus.start()
        await bus.connected()
        proxy.blackhole()
        dead = time.monotonic()
        number = 0
        while bus.online and time.monotonic() - dead < 15:
            ledger.tell(bus, number)
            number += 1
            await asyncio.sleep(0.002)
        assert time.monotonic() - dead <= 5
        assert bus.error is not None
        assert "no heartbeat came back" in bus.error
        # The way is open again: the next attempt, which may be waiting for its CONNACK now, gets through.
        proxy.forward()
        await bus.connected()
        await ledger.complete(20)
        ledger.check()
        assert ledger.late
        await bus.close()
    await ledger.bus.close()


async def test_b3_a_broker_that_never_answers_the_connect(mosquitto: Broker) -> None:
    with start_proxy(mosquitto.port) as proxy:
        proxy.blackhole()
        bus = Bus(MqttSettings(port=proxy.port), TOPICS, "writer")
        bus.start()
        await eventually(lambda: "no answer (CONNACK) within 5 s" in str(bus.error), 8)
        proxy.forward()
        async with asyncio.timeout(8):
            await bus.connected()
        await bus.close()


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
async def test_b7_a_second_program_with_our_name_is_told_and_makes_no_ping_pong(broker: Broker, tmp_path: Path) -> None:
    ledger = Ledger(broker.port)
    await ledger.bus.connected()
    buses = [
        Bus(MqttSettings(port=broker.port), TOPICS, "writer", buffer=BusBuffer(tmp_path / f"{number}.sqlite"))
        for number in range(2)
    ]
    connects = 0
    for bus in buses:
        online = bus._on_change

        def count(is_online: bool, online: object = online) -> None:
            nonlocal connects
            connects += is_online
            online(is_online)  # type: ignore[operator]

        bus._link._on_change = count
        bus.start()
    begun = time.monotonic()
    number = 0
    told = False
    while time.monotonic() - begun < rounds(8, 60) or (not told and time.monotonic() - begun < 20):
        ledger.tell(buses[0], number)
        number += 1
        told = told or any("does another program use the client id" in str(bus.error) for bus in buses)
        await asyncio.sleep(0.01)
    assert told
    # Pauses of 1, 2, 4, 8, 8 ... s with 20 % jitter: four connections in the first 5.6 s, then one each 6.4 s; of two.
    assert connects <= 2 * (5 + max(0, time.monotonic() - begun - 5.6) / 6.4)
    await buses[1].close()
    await ledger.complete(30)
    ledger.check()
    await buses[0].close()
    await ledger.bus.close()


async def test_b7_repeats_are_marked_and_no_fault(pair: tuple[Ledger, Bus]) -> None:
    """A broker that sends again what was acknowledged already, or in another order: nothing is thrown away, nothing raises."""
    ledger, bus = pair
    bus.start()
    await bus.connected()
    for number in range(50):
        ledger.tell(bus, number)
    await ledger.complete(10)
    for topic, messages in (("data/writer/d0", [b'[["t",0,"good",1]]'] * 3), ("data/other/d0", [b"[[]]", b"x", b""])):
        for payload in messages:
            await bus.send(f"{TOPICS.root}/{topic}", payload)
    await asyncio.sleep(0.2)
    ledger.check()
    assert ledger.bus.counters.poisoned == 3, "the ledger's own handler raised: it was told, and lives on"
    assert ledger.bus.online

"""Rows B1-B7 of the field server as a process: brokers that die, hang, refuse and flood, and what stands on the bus."""

import asyncio
import json
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.brokers import Broker, start_mosquitto, start_nats, start_proxy
from tests.support.bus_watch import BusWatch, Heard, now_ms, watch_bus
from tests.support.fault_device import FaultDevice
from tests.support.field_plant import FieldPlant, Ledger, build_field_plant, tag
from tests.support.processes import free_port
from tests.support.soak import rounds

soak_only = pytest.mark.skipif(not rounds(0, 1), reason="in make soak; test_bus.py has the row in short")


def first_arrivals(watch: BusWatch) -> list[Heard]:
    """The samples of boiler@a in the order in which each came for the first time; what came twice was the same both times."""
    found: dict[int, Heard] = {}
    for each in watch.of("boiler", "a"):
        first = found.setdefault(each.time_ms, each)
        assert (first.value, first.quality) == (each.value, each.quality)
    return list(found.values())


def assert_whole(samples: list[Heard], begun_ms: int, ended_ms: int) -> None:
    """Nothing is missing between two times of a register that changes with every read, and all of it is in order."""
    times = [each.time_ms for each in samples]
    assert times == sorted(times)
    within = [each for each in times if begun_ms <= each <= ended_ms]
    assert within[0] - begun_ms < 900
    assert ended_ms - within[-1] < 900
    assert max(after - before for before, after in pairwise(within)) < 900


async def live(plant: FieldPlant, watch: BusWatch, timeout_s: float = 15) -> float:
    """Wait for a sample of now, with nothing late behind it."""
    since = now_ms()

    def is_live() -> bool:
        last = watch.last("boiler", "a")
        return last is not None and last.time_ms > since and now_ms() - last.time_ms < 400

    return await plant.wait(is_live, "live samples", timeout_s)


async def test_b1_the_broker_killed_again_and_again(tmp_path: Path, device: FaultDevice) -> None:
    with start_mosquitto(tmp_path / "broker") as broker, watch_bus(broker.port, session=True) as watch:
        async with build_field_plant(tmp_path, broker) as plant, Ledger(device, (0,)) as ledger:
            plant.device("boiler", device.port, tag("a", 0, "inout"))
            await plant.start()
            await live(plant, watch)
            begun_ms = now_ms()
            for _ in range(rounds(1, 20)):
                await asyncio.sleep(1.0)
                await asyncio.to_thread(broker.restart)
                assert await live(plant, watch) < 10.0
            ended_ms = now_ms()
            samples = first_arrivals(watch)
            assert_whole(samples, begun_ms, ended_ms)
            assert not ledger.lies(0, samples)
            assert {each.quality for each in samples} == {"good"}
            assert len({seen.pdu for seen in device.seen}) == len(device.accepted_s) == 1, "the field never noticed"


async def test_b2_the_broker_comes_later(tmp_path: Path, device: FaultDevice) -> None:
    port = free_port()
    async with (
        build_field_plant(tmp_path, Broker([], port, tmp_path / "unused")) as plant,
        Ledger(device, (0,)) as ledger,
    ):
        plant.device("boiler", device.port, tag("a", 0))
        begun = time.monotonic()
        await plant.start()
        assert time.monotonic() - begun < 10.0
        await plant.wait(lambda: len(device.seen) > 1, "read")
        begun_ms = now_ms()
        await asyncio.sleep(rounds(2, 60))
        assert len(plant.output.splitlines()) <= 6, plant.output
        with start_mosquitto(tmp_path / "late", port=port), watch_bus(port) as watch:
            assert await live(plant, watch, 10) < 8.0
            samples = first_arrivals(watch)
            assert_whole(samples, begun_ms, now_ms() - 300)
            assert samples[0].late
            assert not ledger.lies(0, samples)
            assert watch.states["boiler"]["a"][1] == "good"


@soak_only
async def test_b3_a_black_hole_is_found_and_what_was_read_meanwhile_arrives(
    tmp_path: Path, mosquitto: Broker, device: FaultDevice
) -> None:
    with start_proxy(mosquitto.port) as proxy, watch_bus(mosquitto.port) as watch:
        async with build_field_plant(tmp_path, proxy, MQTT_KEEPALIVE_S=4) as plant, Ledger(device, (0,)) as ledger:
            plant.device("boiler", device.port, tag("a", 0))
            await plant.start()
            await live(plant, watch)
            begun_ms, begun = now_ms(), time.monotonic()
            proxy.blackhole()
            await plant.wait(lambda: ": offline" in plant.output, "the dead link is found", 10)
            assert time.monotonic() - begun <= 1.5 * 4 + 1.0
            await plant.wait(lambda: watch.servers[-1][2] is False, "the broker says so too", 10)
            proxy.forward()
            await live(plant, watch, 20)
            samples = first_arrivals(watch)
            assert_whole(samples, begun_ms, now_ms() - 300)
            assert any(each.late for each in samples)
            assert not ledger.lies(0, samples)
            await plant.wait(lambda: watch.servers[-1][2] is True, "it is there again")


async def test_b4_a_wrong_password_is_told_once_and_the_field_is_read(tmp_path: Path, device: FaultDevice) -> None:
    conf = "listener {port} 127.0.0.1\nallow_anonymous false\nlog_type all\n"
    with start_mosquitto(tmp_path / "strict", conf) as broker:
        async with build_field_plant(tmp_path, broker, MQTT_USERNAME="tagwire", MQTT_PASSWORD="pa55w0rd") as plant:
            plant.device("boiler", device.port, tag("a", 0))
            await plant.start()
            await plant.wait(lambda: ": refused: the broker says: Not authorized" in plant.output, "a state of its own")
            await asyncio.sleep(3.0)
            assert plant.output.count("refused") == 1
            assert "pa55w0rd" not in plant.output
            assert broker.log.read_text().count("New connection") <= 2, "one is the fixture's"
            assert len(device.seen) > 15


async def test_b5_b6_retained_messages_floods_and_poison(tmp_path: Path, device: FaultDevice) -> None:
    """Thousands of retained commands at the connection, then a flood that nobody can want: bounded, and reading goes on."""
    count = rounds(2000, 10_000)
    conf = "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
    with start_mosquitto(tmp_path / "forgetful", conf) as broker, watch_bus(broker.port) as watch:
        async with build_field_plant(tmp_path, broker) as plant, Ledger(device, (0,)) as ledger:
            plant.device("boiler", device.port, tag("a", 0), tag("b", 1, "inout"))
            document = json.dumps({"tag": "b", "value": 13})
            kept = [(f"set/kept{number}", document) for number in range(count)]
            await asyncio.to_thread(watch.flood, [*kept, ("set/boiler", document)], retain=True)
            server = await plant.start()
            await live(plant, watch)
            await asyncio.sleep(1.0)
            before = server.resident_bytes
            junk = [("set/boiler", b"\xff" * 200 if n % 2 else b'{"id": "%d"}' % n) for n in range(count)]
            begun = time.monotonic()
            await asyncio.to_thread(watch.flood, [*junk, ("heartbeat/field_server", b"somebody else")])
            command = watch.set("boiler", "b", 5, expires_ms=now_ms() + 30_000)
            assert (await plant.verdict(watch, command, 20))["state"] == "verified"
            assert [seen.pdu[3:5] for seen in device.seen if seen.pdu[0] == 6] == [b"\0\5"]
            print(f"a flood of {count} messages was over after {time.monotonic() - begun:.1f} s")
            assert server.resident_bytes - before < 50_000_000
            times = [seen.time_s for seen in device.seen]
            assert max(after - before for before, after in pairwise(times)) < 2.0
            assert not ledger.lies(0, watch.of("boiler", "a"))
            assert {each.quality for each in watch.of("boiler", "a")} == {"good"}
            assert "Traceback" not in plant.output
            assert len(plant.output.splitlines()) < 50, plant.output[-2000:]


@soak_only
async def test_b7_a_second_client_with_our_id(tmp_path: Path, mosquitto: Broker, device: FaultDevice) -> None:
    """No ping-pong, and nothing of what was read is lost."""
    with watch_bus(mosquitto.port) as watch:
        async with build_field_plant(tmp_path, mosquitto) as plant, Ledger(device, (0,)) as ledger:
            plant.device("boiler", device.port, tag("a", 0))
            await plant.start()
            await live(plant, watch)
            begun_ms, stop, connects = now_ms(), threading.Event(), []

            def rival() -> None:
                while not stop.is_set():
                    client = Client(
                        CallbackAPIVersion.VERSION2, client_id="tagwire-field_server-bus", clean_session=False
                    )
                    client.connect("127.0.0.1", mosquitto.port)
                    connects.append(time.monotonic())
                    while not stop.is_set() and client.loop(0.1) == 0:
                        pass
                    client.disconnect()

            fighting = asyncio.create_task(asyncio.to_thread(rival))
            await asyncio.sleep(4.0)
            stop.set()
            await fighting
            assert 2 <= len(connects) <= 4
            await live(plant, watch, 20)
            samples = first_arrivals(watch)
            assert_whole(samples, begun_ms, now_ms() - 300)
            assert not ledger.lies(0, samples)


async def test_the_embedded_broker_killed_and_restarted(tmp_path: Path, device: FaultDevice) -> None:
    with start_nats(tmp_path / "nats") as broker, watch_bus(broker.port, session=True) as watch:
        async with build_field_plant(tmp_path, broker) as plant, Ledger(device, (0,)) as ledger:
            plant.device("boiler", device.port, tag("a", 0), tag("b", 1, "inout"))
            await plant.start()
            await live(plant, watch)
            assert (await plant.verdict(watch, watch.set("boiler", "b", 5)))["state"] == "verified"
            begun_ms = now_ms()
            await asyncio.to_thread(broker.restart)
            await live(plant, watch, 20)
            assert (await plant.verdict(watch, watch.set("boiler", "b", 6, expires_ms=now_ms() + 10_000)))[
                "state"
            ] == "verified"
            samples = sorted(first_arrivals(watch), key=lambda each: each.time_ms)
            assert_whole(samples, begun_ms, now_ms() - 300)
            assert not ledger.lies(0, samples)
            await plant.wait(lambda: watch.states["boiler"]["b"][0] == 6, "its state")

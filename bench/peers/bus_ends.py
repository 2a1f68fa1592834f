"""The two ends of a bus in the bench, ours and bare paho's: `python -m bench.peers.bus_ends ROLE PORT COUNT RATE`.

A change's value is the time it was made (monotonic, nanoseconds; the same clock in every process), so it is unique. A
subscriber prints "ready", then, when COUNT different changes came: the seconds since the first, p50 and p99 in ms, and how many
came twice. A publisher publishes COUNT changes of DEVICES devices at RATE a second, 0 for as fast as they are acknowledged.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import orjson
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from links.bus import Bus
from links.environment import MqttSettings
from links.loop import collect_rarely, new_event_loop
from scada.bus_messages import decode_data
from scada.topics import BusTopics
from scada.values import Quality, Sample

DEVICES = 1000
MOST_WAITING = 10_000
LIMIT_S = 60.0
TOPICS = BusTopics("bench")


class Seen:
    """What a subscriber notes of each change."""

    def __init__(self, count: int, done: Callable[[], None]) -> None:
        self._count = count
        self._done = done
        self._made: dict[int, int] = {}
        self._first = 0
        self._repeats = 0

    def add(self, values: Iterator[int]) -> None:
        now = time.monotonic_ns()
        self._first = self._first or now
        for value in values:
            if value in self._made:
                self._repeats += 1
            else:
                self._made[value] = now
        if len(self._made) == self._count:
            self._done()

    def report(self) -> str:
        milliseconds = sorted((came - made) / 1e6 for made, came in self._made.items())
        cuts = statistics.quantiles(milliseconds, n=100)
        seconds = (max(self._made.values()) - self._first) / 1e9
        return f"{seconds} {cuts[49]} {cuts[98]} {self._repeats} {len(self._made)}"


async def subscribe(port: int, count: int) -> None:
    """Our subscriber."""
    done = asyncio.Event()
    seen = Seen(count, done.set)
    bus = Bus(MqttSettings(port=port), TOPICS, "reader")
    bus.subscribe(
        [TOPICS.data("+", "+")],
        lambda _topic, payload, *_: seen.add(sample.value for sample in decode_data(payload)[0]),  # type: ignore[misc]  # add gives None
    )
    bus.start()
    async with asyncio.timeout(LIMIT_S):
        await bus.connected()
        print("ready", flush=True)
        await done.wait()
    print(seen.report(), flush=True)
    await bus.close()


async def publish(port: int, count: int, rate: float) -> None:
    """Our publisher."""
    bus = Bus(MqttSettings(port=port), TOPICS, "writer")
    bus.start()
    async with asyncio.timeout(LIMIT_S):
        await bus.connected()
        start = time.monotonic()
        made = 0
        while made < count:
            due = min(count, int((time.monotonic() - start) * rate)) if rate else count
            due = min(due, made + MOST_WAITING - bus.counters.buffered)
            while made < due:
                value = time.monotonic_ns()
                bus.publish(f"d{made % DEVICES}", (Sample("t", value, Quality.GOOD, value // 1_000_000),))
                made += 1
            await asyncio.sleep(0.001)
        while bus.counters.published < count:  # noqa: ASYNC110 - counters are for reading now and then
            await asyncio.sleep(0.01)
    await bus.close()


def subscribe_paho(port: int, count: int) -> None:
    """The least that receives the same: paho's own thread-free loop, one change a message."""
    client = Client(CallbackAPIVersion.VERSION2, client_id="bare-reader")
    seen = Seen(count, client.disconnect)
    client.on_message = lambda _client, _data, message: seen.add(iter((orjson.loads(message.payload)[0][1],)))
    client.on_connect = lambda *_: client.subscribe("bare/data/+/+", 1)
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.connect("127.0.0.1", port)
    client.loop_forever()
    print(seen.report(), flush=True)


def publish_paho(port: int, count: int, rate: float) -> None:
    """The least that publishes the same with QoS 1."""
    client = Client(CallbackAPIVersion.VERSION2, client_id="bare-writer")
    client.max_inflight_messages_set(1000)
    acknowledged = 0

    def on_publish(*_: object) -> None:
        nonlocal acknowledged
        acknowledged += 1

    client.on_publish = on_publish
    client.connect("127.0.0.1", port)
    client.loop_start()
    start = time.monotonic()
    for made in range(count):
        while (rate and made > (time.monotonic() - start) * rate) or made - acknowledged > 1000:
            time.sleep(0.0005)
        value = time.monotonic_ns()
        payload = orjson.dumps([["t", value, "good", value // 1_000_000]])
        client.publish(f"bare/data/writer/d{made % DEVICES}", payload, 1)
    while acknowledged < count:
        time.sleep(0.01)
    client.disconnect()
    client.loop_stop()


def main(role: str, port: int, count: int, rate: float) -> None:
    collect_rarely()
    if role == "subscribe_paho":
        subscribe_paho(port, count)
    elif role == "publish_paho":
        publish_paho(port, count, rate)
    else:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(subscribe(port, count) if role == "subscribe" else publish(port, count, rate))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))

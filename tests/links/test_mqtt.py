"""The MQTT link against a scripted broker: what a real one does too seldom to test with."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from links.environment import MqttSettings
from links.mqtt import Delivery, MqttLink

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ = 1, 2, 3, 4, 8, 9, 10, 11, 12


class ScriptedBroker:
    """Speaks MQTT 3.1.1; remembers what clients subscribed to and unsubscribed from. The session is always resumed."""

    def __init__(self) -> None:
        self.subscribed: list[list[str]] = []
        self.unsubscribed: list[list[str]] = []
        self.connects = 0
        self.acknowledged: list[int] = []
        self.suback = True
        self.session_present = True
        self.writers: list[asyncio.StreamWriter] = []
        self.changed = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        self.drop()

    def drop(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def publish(self, topic: str, payload: bytes, mid: int, *, dup: bool = False) -> None:
        body = len(topic).to_bytes(2, "big") + topic.encode() + mid.to_bytes(2, "big") + payload
        self.writers[-1].write(bytes((PUBLISH << 4 | 2 | dup << 3, len(body))) + body)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                first = (await reader.readexactly(1))[0]
                length = shift = 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                self._take(first >> 4, await reader.readexactly(length), writer)
                self.changed.set()
        except (asyncio.IncompleteReadError, OSError):
            return

    def _take(self, kind: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        if kind == CONNECT:
            self.connects += 1
            writer.write(bytes((CONNACK << 4, 2, self.session_present, 0)))
        elif kind in (SUBSCRIBE, UNSUBSCRIBE):
            topics, rest = [], body[2:]
            while rest:
                end = 2 + int.from_bytes(rest[:2], "big")
                topics.append(rest[2:end].decode())
                rest = rest[end + (kind == SUBSCRIBE) :]
            if kind == SUBSCRIBE:
                self.subscribed.append(topics)
                if self.suback:
                    writer.write(bytes((SUBACK << 4, 2 + len(topics))) + body[:2] + b"\x01" * len(topics))
            else:
                self.unsubscribed.append(topics)
                writer.write(bytes((UNSUBACK << 4, 2)) + body[:2])
        elif kind == PUBACK:
            self.acknowledged.append(int.from_bytes(body[:2], "big"))
        elif kind == PINGREQ:
            writer.write(bytes((13 << 4, 0)))


@pytest.fixture
async def broker() -> AsyncIterator[ScriptedBroker]:
    scripted = ScriptedBroker()
    await scripted.start()
    yield scripted
    await scripted.stop()


async def eventually(condition: Callable[[], object]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 5 s")


async def make_link(broker: ScriptedBroker, received: list[tuple[bytes, Delivery]]) -> MqttLink:
    settings = MqttSettings(port=broker.port)
    return MqttLink(settings, "test", lambda _topic, payload, _retained, delivery: received.append((payload, delivery)))


async def test_a_subscription_whose_answer_was_lost_is_asked_for_again(broker: ScriptedBroker) -> None:
    """The session was resumed, so the link took the filter for subscribed: its messages never came."""
    link = await make_link(broker, [])
    broker.suback = False
    link.subscribe(["plant/a"])
    link.start()
    await broker.until(lambda: broker.subscribed == [["plant/a"]])
    broker.drop()
    await broker.until(lambda: broker.subscribed == [["plant/a"]] * 2)
    await link.close()


async def test_a_confirmed_subscription_is_not_repeated(broker: ScriptedBroker) -> None:
    """A repeated one makes the broker send its retained messages again."""
    link = await make_link(broker, [])
    link.subscribe(["plant/a"])
    link.start()
    await broker.until(lambda: broker.subscribed)
    await asyncio.sleep(0.1)
    broker.drop()
    await broker.until(lambda: broker.connects == 2)
    await asyncio.sleep(0.1)
    assert broker.subscribed == [["plant/a"]]
    await link.close()


async def test_what_was_unsubscribed_while_offline_is_taken_out_of_the_session(broker: ScriptedBroker) -> None:
    link = await make_link(broker, [])
    link.subscribe(["plant/a", "plant/b"])
    link.start()
    await broker.until(lambda: broker.subscribed)
    await asyncio.sleep(0.1)
    broker.drop()
    await eventually(lambda: not link.online.is_set())
    link.unsubscribe(["plant/a"])
    await broker.until(lambda: broker.unsubscribed == [["plant/a"]])
    await link.close()


async def test_a_fault_of_ours_ends_the_connection_and_not_the_link(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    link = await make_link(broker, [])
    stay = link._stay
    faults = [RuntimeError("a bug")]

    async def fail_once() -> None:
        if faults:
            raise faults.pop()
        await stay()

    monkeypatch.setattr(link, "_stay", fail_once)
    link.start()
    async with asyncio.timeout(5):
        await link.online.wait()
    assert "a bug" in caplog.text
    await link.close()


async def test_a_delivery_says_whether_it_is_a_repeat(broker: ScriptedBroker) -> None:
    received: list[tuple[bytes, Delivery]] = []
    link = await make_link(broker, received)
    link.start()
    async with asyncio.timeout(5):
        await link.online.wait()
    broker.publish("a", b"1", 5)
    broker.publish("a", b"2", 6, dup=True)
    await eventually(lambda: len(received) == 2)
    assert [(payload, delivery.is_repeat) for payload, delivery in received] == [(b"1", False), (b"2", True)]
    await link.close()


async def test_packets_arrive_whole_however_they_were_cut(broker: ScriptedBroker) -> None:
    """Received in large pieces: many packets in one, and one in many; the last of a burst is not left lying in the buffer."""
    received: list[tuple[bytes, Delivery]] = []
    link = await make_link(broker, received)
    link.start()
    async with asyncio.timeout(5):
        await link.online.wait()
    wanted = [b"x" * (7 * number % 120) for number in range(1, 301)]
    frames = []
    for mid, payload in enumerate(wanted, 1):
        body = b"\x00\x01a" + mid.to_bytes(2, "big") + payload
        frames.append(bytes((PUBLISH << 4 | 2, len(body))) + body)
    stream = b"".join(frames)
    writer = broker.writers[-1]
    writer.write(stream[:4000])
    await eventually(lambda: len(received) > 50)
    for cut in range(4000, 4400):
        writer.write(stream[cut : cut + 1])
        await asyncio.sleep(0)
    writer.write(stream[4400:])
    await eventually(lambda: len(received) == 300)
    assert [payload for payload, _ in received] == wanted
    for _, delivery in received:
        link.acknowledge(delivery)
    await eventually(lambda: len(broker.acknowledged) == 300)
    assert broker.acknowledged == list(range(1, 301))
    await link.close()


async def test_what_was_acknowledged_just_before_the_end_reaches_the_broker(broker: ScriptedBroker) -> None:
    received: list[tuple[bytes, Delivery]] = []
    link = await make_link(broker, received)
    link.start()
    async with asyncio.timeout(5):
        await link.online.wait()
    broker.publish("a", b"1", 5)
    await eventually(lambda: received)
    link.acknowledge(received[0][1])
    await link.close()
    await eventually(lambda: broker.acknowledged == [5])

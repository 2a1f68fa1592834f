"""The MQTT link against a scripted broker."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from links.backoff import Backoff
from links.environment import MqttSettings
from links.mqtt import Delivery, MqttLink
from scada.errors import LinkError
from tests.support.scripted_broker import PUBCOMP, PUBLISH, PUBREC, PUBREL, ScriptedBroker, packet


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
    # Some have three bytes of length, which paho reads and not we; all contain what looks like a packet where one is cut.
    look_alike = packet(PUBLISH << 4, b"\x00\x01b") * 4000
    wanted = [look_alike[: 20_000 if number % 90 == 0 else 7 * number % 400] for number in range(1, 301)]
    frames = []
    for mid, payload in enumerate(wanted, 1):
        body = b"\x00\x01a" + mid.to_bytes(2, "big") + payload
        frames.append(packet(PUBLISH << 4 | 2, body))
    stream = b"".join(frames)
    writer = broker.writers[-1]
    writer.write(stream[:4000])
    await eventually(lambda: len(received) > 10)
    for cut in range(4000, 4400):
        writer.write(stream[cut : cut + 1])
        await asyncio.sleep(0)
    for cut in range(4400, 12_000, 38):
        writer.write(stream[cut : cut + 38])
        await asyncio.sleep(0.001)
    writer.write(stream[12_000:])
    await eventually(lambda: len(received) == 300)
    assert [payload for payload, _ in received] == wanted
    for _, delivery in received:
        link.acknowledge(delivery)
    await eventually(lambda: len(broker.acknowledged) == 300)
    assert broker.acknowledged == list(range(1, 301))
    await link.close()


async def test_what_follows_in_a_connection_that_its_receiver_ended_is_left_to_the_broker(
    broker: ScriptedBroker,
) -> None:
    received: list[bytes] = []

    def receive(topic: str, payload: bytes, retained: bool, delivery: Delivery) -> None:
        received.append(payload)
        if payload == b"end":
            link.drop("enough")

    link = MqttLink(MqttSettings(port=broker.port), "test", receive)
    link.start()
    async with asyncio.timeout(5):
        await link.online.wait()
    body = b"\x00\x01a\x00\x01"
    broker.writers[-1].write(b"".join(packet(PUBLISH << 4 | 2, body + each) for each in (b"1", b"end", b"2")))
    await eventually(lambda: not link.online.is_set())
    assert received == [b"1", b"end"]
    await link.close()


async def test_each_level_of_delivery_has_its_own_last_word(broker: ScriptedBroker) -> None:
    """A message of QoS 2 got PUBACK in place of PUBCOMP: a broker keeps it for ever."""
    received: list[tuple[bytes, Delivery]] = []
    link = await make_link(broker, received)
    link.start()
    async with asyncio.timeout(5):
        await link.online.wait()
    broker.writers[-1].write(packet(PUBLISH << 4 | 4, b"\x00\x01a\x00\x07two"))
    await eventually(lambda: broker.said[PUBREC] == [7])
    broker.writers[-1].write(packet(PUBREL << 4 | 2, b"\x00\x07"))
    await eventually(lambda: received)
    link.acknowledge(received[0][1])
    await eventually(lambda: broker.said[PUBCOMP] == [7])
    assert (received[0][0], broker.acknowledged) == (b"two", [])
    await link.close()


@pytest.mark.parametrize("body", [b"\x00\x01a\x00\x00x", b"\x00\x00\x00\x01x"])
async def test_a_message_that_cannot_be_ends_the_connection(broker: ScriptedBroker, body: bytes) -> None:
    """Without a packet identifier, without a topic."""
    received: list[tuple[bytes, Delivery]] = []
    link = await make_link(broker, received)
    link.start()
    async with asyncio.timeout(5):
        await link.online.wait()
    broker.writers[-1].write(packet(PUBLISH << 4 | 2, body))
    await broker.until(lambda: broker.connects == 2)
    assert (received, broker.acknowledged) == ([], [])
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


async def test_what_was_told_to_have_failed_is_never_sent_again(broker: ScriptedBroker) -> None:
    """paho sent it again by itself after the next connect: a command that had failed acted after all."""
    link = await make_link(broker, [])
    broker.puback = False
    link.start()
    async with asyncio.timeout(5):
        await link.online.wait()
    sending = asyncio.create_task(link.publish("a", b"1"))
    await broker.until(lambda: broker.published == [("a", b"1")])
    broker.drop()
    with pytest.raises(LinkError, match="lost before the acknowledgement"):
        await sending
    await broker.until(lambda: broker.connects == 2)
    async with asyncio.timeout(5):
        await link.online.wait()
    await asyncio.sleep(0.1)
    assert broker.published == [("a", b"1")]
    await link.close()


async def test_posts_do_not_wait_for_one_another(broker: ScriptedBroker) -> None:
    link = await make_link(broker, [])
    link.start()
    with pytest.raises(LinkError, match="not connected"):
        link.post("a", b"0", None)
    async with asyncio.timeout(5):
        await link.online.wait()
    answers: list[LinkError | None] = []
    for number in range(2000):
        link.post("a", b"%d" % number, answers.append)
    await eventually(lambda: len(answers) == 2000)
    assert answers == [None] * 2000
    assert [payload for _, payload in broker.published] == [b"%d" % number for number in range(2000)]
    broker.puback = False
    link.post("a", b"last", answers.append)
    await broker.until(lambda: broker.published[-1] == ("a", b"last"))
    broker.drop()
    await eventually(lambda: len(answers) == 2001)
    assert isinstance(answers[-1], LinkError)
    await link.close()


async def test_a_refused_subscription_is_known_until_it_is_taken(broker: ScriptedBroker) -> None:
    link = await make_link(broker, [])
    broker.refuses_subscriptions = True
    link.subscribe(["a", "b"])
    link.start()
    await eventually(lambda: link.refused == {"a", "b"})
    link.unsubscribe(["b"])
    assert link.refused == {"a"}
    broker.refuses_subscriptions = False
    broker.drop()
    await eventually(lambda: not link.refused)
    await link.close()


async def test_a_dropped_connection_is_made_again(broker: ScriptedBroker) -> None:
    changes: list[bool] = []
    link = MqttLink(MqttSettings(port=broker.port), "test", lambda *_: None, on_change=changes.append)
    link.start()
    await eventually(lambda: changes == [True])
    link.drop("it is dead")
    await eventually(lambda: changes == [True, False])
    await eventually(lambda: link.error == "it is dead")
    await broker.until(lambda: broker.connects == 2)
    await link.close()


async def test_connections_that_end_again_and_again_are_told(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two programs with one client id throw each other out for ever."""
    monkeypatch.setattr("links.mqtt.UNSTABLE_CAP_S", 0.05)
    monkeypatch.setattr("links.mqtt.Backoff", lambda first_s, cap_s: Backoff(min(first_s, 0.05), cap_s))
    link = await make_link(broker, [])
    link.start()
    for connects in range(1, 4):
        await broker.until(lambda connects=connects: broker.connects == connects)  # type: ignore[misc]  # the lambda's default
        await eventually(link.online.is_set)
        broker.drop()
        await eventually(lambda: not link.online.is_set())
    assert link.error is not None
    assert "does another program use the client id test?" in link.error
    await link.close()

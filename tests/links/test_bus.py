"""The bus from program to program over real brokers, and what only a scripted one does."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from links import bus as bus_module
from links import bus_heartbeat
from links.bus import Bus
from links.bus_handlers import Handlers, matches
from links.bus_heartbeat import Heartbeat
from links.bus_retained import SLOTS, Retained
from links.environment import MqttSettings
from scada.bus_messages import LinkReport, decode_data, decode_link, decode_state
from scada.errors import LinkError
from scada.topics import BusTopics
from scada.values import Quality, Reason, Sample
from storage.bus_buffer import BusBuffer
from tests.support.brokers import Broker, start_proxy
from tests.support.scripted_broker import ScriptedBroker

TOPICS = BusTopics("plant/bus")
BROKERS = ("mosquitto", "nats")


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Broker:
    return request.getfixturevalue(getattr(request, "param", "mosquitto"))


def sample(value: int | float | str | None, tag: str = "t", late: bool = False) -> Sample:
    return Sample(tag, value, Quality.GOOD, 1_763_712_000_000, late=late)


async def eventually(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    for _ in range(int(timeout_s * 100)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {timeout_s:g} s")


@asynccontextmanager
async def running(port: int, owner: str, buffer: Path | None = None) -> AsyncIterator[Bus]:
    """A bus that is online."""
    bus = Bus(MqttSettings(port=port), TOPICS, owner, buffer=BusBuffer(buffer) if buffer else None)
    bus.start()
    try:
        async with asyncio.timeout(10):
            await bus.connected()
        yield bus
    finally:
        await bus.close()


class Listener:
    """Everything that a bus is told, by topic."""

    def __init__(self, bus: Bus, filters: list[str]) -> None:
        self.seen: dict[str, list[tuple[bytes, bool]]] = defaultdict(list)
        bus.subscribe(filters, self._take)

    def samples(self, topic: str) -> list[Sample]:
        return [each for payload, _ in self.seen[topic] for each in decode_data(payload)[0]]

    def _take(self, topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        self.seen[topic].append((payload, retained))


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
async def test_changes_arrive_in_order_with_all_that_belongs_to_them(broker: Broker) -> None:
    async with running(broker.port, "reader") as reader, running(broker.port, "field_server") as writer:
        listener = Listener(reader, [TOPICS.data("+", "+")])
        await asyncio.sleep(0.2)
        told = [sample(number) for number in range(3000)]
        bad = Sample("u", None, Quality.BAD, 5, Reason.COMM_FAILURE)
        for start in range(0, 3000, 100):
            writer.publish("boiler", told[start : start + 100])
            await asyncio.sleep(0.001)
        writer.publish("ünit", [bad])
        await eventually(lambda: listener.samples("plant/bus/data/field_server/ünit"))
        await eventually(lambda: len(listener.samples("plant/bus/data/field_server/boiler")) == 3000)
        assert listener.samples("plant/bus/data/field_server/boiler") == told
        assert listener.samples("plant/bus/data/field_server/ünit") == [bad]
        await eventually(lambda: writer.counters.published == 3001)
        assert (writer.counters.late, writer.counters.buffered, writer.counters.dropped) == (0, 0, 0)


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
async def test_what_is_retained_is_asked_for_twice(broker: Broker) -> None:
    """The embedded broker may lose what is published while it sets a subscription up: an owner that came back stayed away. It may
    also repeat an older message than the last: behind one that was heard live it is none of a link or a program."""
    async with running(broker.port, "reader") as reader, running(broker.port, "writer") as writer:
        wanted = [TOPICS.server("a"), TOPICS.link("a", "boiler"), TOPICS.state("a", "boiler")]
        once, quiet = TOPICS.plan("a", "boiler"), TOPICS.server("b")
        for topic in (*wanted, once, quiet):
            await writer.send(topic, b"1", retain=True)
        seen: dict[str, list[tuple[bytes, bool]]] = defaultdict(list)

        def take(topic: str, payload: bytes, retained: bool, _repeat: bool) -> None:
            seen[topic].append((payload, retained))

        reader.subscribe([*wanted, quiet], take, retained=True)
        reader.subscribe([once], take)
        await eventually(lambda: len(seen) == 5)
        for topic in (*wanted, once):
            await writer.send(topic, b"2", retain=True)
        await eventually(lambda: len(seen[quiet]) >= 2)
        await asyncio.sleep(0.5)
        told = [(b"1", True), (b"2", False)]
        assert {topic: list(dict.fromkeys(messages)) for topic, messages in seen.items()} == {
            wanted[0]: told, wanted[1]: told, wanted[2]: [*told, (b"2", True)], once: told, quiet: told[:1]
        }  # fmt: skip


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
async def test_a_newcomer_gets_state_link_and_plan_and_nothing_of_what_was_forgotten(broker: Broker) -> None:
    async with running(broker.port, "field_server") as writer:
        writer.publish("boiler", [sample(1), sample(2, "u"), sample(3)])
        writer.publish("gone", [sample(1)])
        for device in ("boiler", "gone"):
            writer.link(device, True, None)
            writer.link(device, False, "refused")
            writer.plan(device, {"requests": []})
        await asyncio.sleep(1.5)
        writer.forget("gone")
        writer.forget("boiler", ["u"])
        await asyncio.sleep(1.5)
        async with running(broker.port, "reader") as reader:
            listener = Listener(reader, [f"{TOPICS.root}/{kind}/+/+" for kind in ("state", "link", "plan")])
            await eventually(lambda: len(listener.seen) == 3)
            await asyncio.sleep(0.2)
            base = "plant/bus/{}/field_server/boiler"
            assert set(listener.seen) == {base.format(kind) for kind in ("state", "link", "plan")}
            assert all(retained for messages in listener.seen.values() for _, retained in messages)
            assert decode_state(listener.seen[base.format("state")][0][0])[0] == [sample(3)]
            report = decode_link(listener.seen[base.format("link")][0][0])
            assert (report.online, report.error) == (False, "refused")
            assert abs(report.since_ms - time.time() * 1000) < 60_000
            writer.plan("boiler", None)
            await eventually(lambda: listener.seen[base.format("plan")][-1][0] == b"")


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
async def test_a_listener_that_was_away_hears_what_was_retained_meanwhile(broker: Broker) -> None:
    """Its session was resumed and holds nothing for a subscription of QoS 0: a link that broke meanwhile stayed online."""
    with start_proxy(broker.port) as proxy:
        async with running(proxy.port, "reader") as reader, running(broker.port, "field_server") as writer:
            told: list[bool] = []
            reader.subscribe(
                [TOPICS.link("+", "+")], lambda _t, payload, *_: told.append(decode_link(payload).online), 0
            )
            await asyncio.sleep(0.5)
            writer.link("boiler", True, None)
            await eventually(lambda: list(dict.fromkeys(told)) == [True])
            proxy.drop()
            writer.link("boiler", False, "gone")
            await eventually(lambda: not reader.online)
            await eventually(lambda: reader.online)
            await eventually(lambda: list(dict.fromkeys(told)) == [True, False])


async def test_a_link_that_did_not_change_is_not_told_again(broker: Broker) -> None:
    async with running(broker.port, "reader") as reader, running(broker.port, "field_server") as writer:
        listener = Listener(reader, [TOPICS.link("+", "+")])
        await asyncio.sleep(0.2)
        for error in (None, None, "a", "a", "b"):
            writer.link("boiler", error is None, error)
            await asyncio.sleep(0.05)
        topic = TOPICS.link("field_server", "boiler")
        await eventually(lambda: len(listener.seen[topic]) == 3)
        reports = [decode_link(payload) for payload, _ in listener.seen[topic]]
        assert [report.error for report in reports] == [None, "a", "b"]
        assert reports[1].since_ms == reports[2].since_ms, "away since the first error"


async def test_states_of_many_devices_are_spread_over_the_second_and_at_most_one_a_second_each() -> None:
    retained = Retained(TOPICS, "o")
    turns: list[list[str]] = []
    for _ in range(2 * SLOTS):
        for number in range(1000):
            retained.put_samples(f"d{number}", [sample(number)])
        retained.turn()
        taken = []
        while (each := retained.take()) is not None:
            taken.append(each[0])
        turns.append(taken)
    assert {len(taken) for taken in turns} == {1000 // SLOTS}
    for second in (turns[:SLOTS], turns[SLOTS:]):
        assert len({topic for taken in second for topic in taken}) == 1000


def test_after_a_reconnect_everything_is_due_again_but_what_was_emptied_for_good() -> None:
    retained = Retained(TOPICS, "o")
    retained.put_samples("a", [sample(1)])
    retained.put_link("a", True, None, 7)
    retained.forget("b")
    taken = [retained.take() for _ in range(4)]
    retained.all_again()
    again = dict(each for each in iter(retained.take, None))
    assert set(again) == {TOPICS.state("o", "a"), TOPICS.link("o", "a")} | {
        getattr(TOPICS, kind)("o", "b") for kind in ("state", "link", "plan")
    }
    assert decode_link(again[TOPICS.link("o", "a")]) == LinkReport(True, 7, None)
    for topic, payload in [each for each in taken if each]:
        if not payload:
            retained.settled(topic)
    retained.all_again()
    assert {topic.rpartition("/")[2] for topic, _ in iter(retained.take, None)} == {"a"}


def test_a_device_that_returned_is_not_emptied() -> None:
    retained = Retained(TOPICS, "o")
    retained.put_samples("a", [sample(1)])
    retained.forget("a")
    retained.put_link("a", True, None, 7)
    sent = dict(each for each in iter(retained.take, None))
    assert sent[TOPICS.state("o", "a")] == b""
    assert decode_link(sent[TOPICS.link("o", "a")]).online


def test_a_value_that_is_no_json_does_not_keep_the_others_from_the_state() -> None:
    retained = Retained(TOPICS, "o")
    retained.put_samples("a", [sample(1), sample("\ud800", "odd")])
    retained.turn_all()
    assert [decode_state(payload)[0] for _, payload in iter(retained.take, None)] == [[sample(1)]]


async def test_a_handler_that_fails_costs_its_message_only(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a callback ended paho's thread, and with it the link."""
    async with running(broker.port, "reader") as reader, running(broker.port, "writer") as writer:
        came: list[bytes] = []

        def handle(topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
            if payload == b"poison":
                raise RuntimeError("a bug")
            came.append(payload)

        reader.subscribe([TOPICS.set("+")], handle)
        await asyncio.sleep(0.2)
        for payload in (b"1", b"poison", b"poison", b"2"):
            await writer.send(TOPICS.set("d"), payload)
        await eventually(lambda: came == [b"1", b"2"])
        assert reader.counters.poisoned == 2
        assert reader.online
        assert caplog.text.count("could not be dealt with") == 1
        reader.unsubscribe([TOPICS.set("+")])
        await asyncio.sleep(0.2)
        await writer.send(TOPICS.set("d"), b"3")
        await asyncio.sleep(0.2)
        assert came == [b"1", b"2"]


async def test_what_no_message_can_hold_costs_only_itself(broker: Broker) -> None:
    async with running(broker.port, "reader") as reader, running(broker.port, "writer") as writer:
        listener = Listener(reader, [TOPICS.data("+", "+")])
        await asyncio.sleep(0.2)
        writer.publish("d", [sample(1), sample("x" * 300_000), sample(2), sample("\ud800"), sample(3)])
        writer.publish("no/+device", [sample(1)])
        topic = TOPICS.data("writer", "d")
        await eventually(lambda: [each.value for each in listener.samples(topic)] == [1, 2, 3])
        await eventually(lambda: writer.counters.published == 3)
        assert (writer.counters.poisoned, writer.counters.dropped, writer.counters.buffered) == (2, 1, 0)


async def test_offline_is_told_at_the_end_and_online_with_what_the_program_says(broker: Broker) -> None:
    async with running(broker.port, "reader") as reader:
        listener = Listener(reader, [TOPICS.server("field_server")])
        await asyncio.sleep(0.2)
        bus = Bus(MqttSettings(port=broker.port), TOPICS, "field_server", info={"version": "1"})
        assert not bus.online
        bus.start()
        await bus.connected()
        await bus.close()
        await eventually(lambda: len(listener.seen[TOPICS.server("field_server")]) == 2)
        first, last = (payload for payload, _ in listener.seen[TOPICS.server("field_server")])
        assert b'"online":true' in first
        assert b'"version":"1"' in first
        assert last == b'{"online":false}'
        assert not bus.online


async def test_what_waits_at_the_end_is_sent_late_by_the_next_run(broker: Broker, tmp_path: Path) -> None:
    async with running(broker.port, "reader") as reader:
        listener = Listener(reader, [TOPICS.data("+", "+")])
        await asyncio.sleep(0.2)
        bus = Bus(MqttSettings(port=1), TOPICS, "field_server", buffer=BusBuffer(tmp_path / "bus.sqlite"))
        bus.start()
        for number in range(2500):
            bus.publish("boiler", [sample(number)])
        bus.publish("pump", [sample(7)])
        assert bus.counters.buffered == 2501
        with pytest.raises(LinkError):
            await bus.send(TOPICS.set("boiler"), b"{}")
        await bus.close()
        async with running(broker.port, "field_server", tmp_path / "bus.sqlite") as again:
            again.publish("boiler", [sample(2500)])
            topic = TOPICS.data("field_server", "boiler")
            await eventually(lambda: len(listener.samples(topic)) == 2501)
            told = listener.samples(topic)
            assert [each.value for each in told] == list(range(2501))
            assert [each.late for each in told[:2500]] == [True] * 2500
            assert listener.samples(TOPICS.data("field_server", "pump")) == [sample(7, late=True)]
            await eventually(lambda: again.counters.published == 2502)
            assert again.counters.buffered == 0
        assert BusBuffer(tmp_path / "bus.sqlite").open() == (0, 0)


async def test_a_run_whose_clock_is_wrong_sends_what_an_earlier_one_left_and_all_of_its_own(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before the disk had told what is on it got numbers below that, and was never sent."""

    class SlowBuffer(BusBuffer):
        def open(self) -> tuple[int, int]:
            time.sleep(0.6)
            return super().open()

    async with running(broker.port, "reader") as reader:
        listener = Listener(reader, [TOPICS.data("+", "+")])
        await asyncio.sleep(0.2)
        earlier = Bus(MqttSettings(port=1), TOPICS, "field_server", buffer=BusBuffer(tmp_path / "bus.sqlite"))
        earlier.start()
        earlier.publish("boiler", [sample(0)])
        await earlier.close()
        with monkeypatch.context() as wrong:
            wrong.setattr(time, "time_ns", lambda: 10_000_000_000)
            bus = Bus(MqttSettings(port=1), TOPICS, "field_server", buffer=SlowBuffer(tmp_path / "bus.sqlite"))
            bus.start()
        for number in range(1, 5):
            bus.publish("boiler", [sample(number)])
            await asyncio.sleep(0.3)
        await bus.close()
        async with running(broker.port, "field_server", tmp_path / "bus.sqlite"):
            topic = TOPICS.data("field_server", "boiler")
            await eventually(lambda: len(listener.samples(topic)) == 5)
            assert [each.value for each in listener.samples(topic)] == [0, 1, 2, 3, 4]


async def test_what_was_published_just_before_the_end_is_sent(broker: Broker) -> None:
    """Closing did not wait: it took an event of the connection's beginning for its own."""
    async with running(broker.port, "reader") as reader:
        listener = Listener(reader, [TOPICS.data("+", "+"), TOPICS.state("+", "+")])
        await asyncio.sleep(0.2)
        async with running(broker.port, "writer") as writer:
            for number in range(20_000):
                writer.publish(f"d{number % 20}", [sample(number)])
        assert (writer.counters.published, writer.counters.buffered) == (20_000, 0)
        data = [TOPICS.data("writer", f"d{number}") for number in range(20)]
        await eventually(lambda: sum(len(listener.samples(topic)) for topic in data) == 20_000)
        await eventually(
            lambda: decode_state(listener.seen[TOPICS.state("writer", "d19")][-1][0])[0] == [sample(19_999)]
        )


async def test_a_message_follows_the_changes_published_before_it() -> None:
    """A verdict was heard up to 5 ms before the value that it speaks of."""
    broker = ScriptedBroker()
    broker.echo = True
    await broker.start()
    bus = Bus(MqttSettings(port=broker.port), TOPICS, "field_server")
    bus.start()
    async with asyncio.timeout(5):
        await bus.connected()
    verdict, data = TOPICS.feedback("boiler"), TOPICS.data("field_server", "boiler")
    for number in range(20):
        bus.publish("boiler", [sample(number)])
        await bus.send(verdict, b"%d" % number)
    told = [topic for topic, _ in broker.published if topic in (verdict, data)]
    assert told == [data, verdict] * 20
    await bus.close()
    await broker.stop()


async def test_a_full_window_makes_longer_messages_and_not_more(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "WINDOW", 1)
    async with running(broker.port, "reader") as reader, running(broker.port, "writer") as writer:
        listener = Listener(reader, [TOPICS.data("+", "+")])
        await asyncio.sleep(0.2)
        for number in range(3000):
            writer.publish(f"d{number % 3}", [sample(number)])
            if number % 30 == 0:
                await asyncio.sleep(0.001)
        await eventually(lambda: sum(len(listener.samples(topic)) for topic in list(listener.seen)) == 3000)
        for device in range(3):
            values = [each.value for each in listener.samples(TOPICS.data("writer", f"d{device}"))]
            assert values == list(range(device, 3000, 3))


@pytest.fixture
async def scripted(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedBroker]:
    monkeypatch.setattr(bus_heartbeat, "PERIOD_S", 0.2)
    monkeypatch.setattr(bus_module, "UPKEEP_S", 0.05)
    broker = ScriptedBroker()
    await broker.start()
    yield broker
    await broker.stop()


async def test_online_means_that_a_heartbeat_came_back_and_without_one_the_link_is_dropped(
    scripted: ScriptedBroker,
) -> None:
    """The socket looked fine and the library said connected, for hours."""
    bus = Bus(MqttSettings(port=scripted.port), TOPICS, "o")
    bus.start()
    await scripted.until(lambda: any(topic == TOPICS.heartbeat("o") for topic, _ in scripted.published))
    assert not bus.online
    assert bus.error == "no heartbeat came back yet"
    await scripted.until(lambda: scripted.connects == 2)
    scripted.echo = True
    await eventually(lambda: bus.online)
    assert bus.error is None
    scripted.echo = False
    await eventually(lambda: not bus.online)
    await scripted.until(lambda: scripted.connects == 3)
    await bus.close()


def test_heartbeats_that_queue_in_a_flood_are_no_reason_to_leave() -> None:
    """Nor is a program that slept: beats are counted."""
    quiet, flooded = Heartbeat(), Heartbeat()
    for beat in (quiet, flooded):
        beat.begin()
    dead_after: dict[str, int] = {}
    for number in range(12):
        now_s = number * 3600.0
        for name, beat in (("quiet", quiet), ("flooded", flooded)):
            if beat.is_dead(now_s):
                dead_after.setdefault(name, number)
            assert beat.due(now_s) is not None
            assert beat.due(now_s + 1) is None
        flooded.heard = True
    assert dead_after == {"quiet": 3, "flooded": 10}


async def test_where_the_heartbeat_may_not_be_subscribed_to_it_says_so_and_is_no_reason_to_leave(
    scripted: ScriptedBroker,
) -> None:
    scripted.refuses_subscriptions = True
    bus = Bus(MqttSettings(port=scripted.port), TOPICS, "o")
    bus.start()
    await eventually(lambda: bus.error and "refuses subscriptions: plant/bus/heartbeat/o" in bus.error)
    await asyncio.sleep(1.5)
    assert scripted.connects == 1
    assert not bus.online
    await bus.close()


async def test_heartbeats_of_another_program_with_our_name_are_told(
    scripted: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    bus = Bus(MqttSettings(port=scripted.port), TOPICS, "o")
    other = Bus(MqttSettings(port=scripted.port, client_id_prefix="other"), TOPICS, "o")
    bus.start()
    await scripted.until(lambda: scripted.published)
    stranger = b"0123456789ab 1"
    topic = TOPICS.heartbeat("o").encode()
    body = len(topic).to_bytes(2, "big") + topic + stranger
    scripted.writers[0].write(bytes((0x30, len(body))) + body)
    await eventually(lambda: "another program is o on this bus" in caplog.text)
    assert not bus.online, "it is no answer to ours"
    await bus.close()
    await other.close()


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("+/+", "a/b", True),
        ("#", "a/b", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "b/a", False),
        ("a/b/#", "a", False),
    ],
)
def test_filters(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


def test_a_handler_gets_a_message_once_however_many_of_its_filters_match() -> None:
    handlers = Handlers()

    def one(*_: object) -> None: ...

    def two(*_: object) -> None: ...

    handlers.add(["a/+", "a/#"], one)
    assert handlers.find("a/b") == (one,)
    handlers.add(["a/b"], two)
    assert handlers.find("a/b") == (one, two)
    handlers.remove(["a/b"])
    assert handlers.find("a/b") == (one,)

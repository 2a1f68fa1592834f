"""What is remembered of the bus: order, bounds, and what happens to nonsense. No broker here."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_app import live_values
from flask_app.live_commands import MAX_STEPS, LiveCommands, unanswered
from flask_app.live_counters import LiveCounters
from flask_app.live_readings import is_of, source_owner
from flask_app.live_values import DOUBT_S, SILENT_S, LiveValues
from scada.bus_messages import LinkReport, decode_state, encode_data, encode_link, encode_state
from scada.commands import Call, Command, CommandState, answer_of, step_of
from scada.topics import BusTopics
from scada.values import Quality, Sample

TOPICS = BusTopics()
NOW = 1_700_000_000_000


def sample(tag: str, value: float, time_ms: int = NOW, late: bool = False) -> Sample:
    return Sample(tag, value, Quality.GOOD, time_ms, late=late)


def values(live: LiveValues, device: str = "boiler") -> dict[str, object]:
    return {tag: each.value for samples in live.samples(device).values() for tag, each in samples.items()}


def test_a_state_replaces_everything_and_data_come_on_top() -> None:
    live = LiveValues(TOPICS)
    live.take("tagwire/data/a/boiler", encode_data([sample("x", 1), sample("y", 1)]))
    assert values(live) == {"x": 1, "y": 1}
    live.take("tagwire/state/a/boiler", encode_state([sample("x", 2)]))
    assert values(live) == {"x": 2}
    live.take("tagwire/data/a/boiler", encode_data([sample("x", 3), sample("x", 4, NOW + 1)]))
    live.take(
        "tagwire/data/a/boiler", encode_data([sample("x", 9, NOW - 10**7, late=True), sample("z", 5, 1, late=True)])
    )
    assert values(live) == {"x": 4, "z": 5}
    live.take("tagwire/state/a/boiler", b"")
    assert values(live) == {}
    assert live.samples("boiler") == {}


def test_what_was_taken_back_while_nobody_listened_is_gone() -> None:
    """A device deleted while REST had no broker: under the same name, made anew, its old values were shown as good."""
    live = LiveValues(TOPICS)
    link = encode_link(LinkReport(True, NOW, None))
    for device in ("stays", "gone", "quiet"):
        live.take(f"tagwire/state/a/{device}", encode_state([sample("x", 1)]))
        live.take(f"tagwire/link/a/{device}", link)
        live.take(f"tagwire/plan/a/{device}", b'{"requests": []}')
    first = live.begin_picture()
    picture = live.begin_picture()
    live.take("tagwire/state/a/stays", encode_state([sample("x", 2)]))
    live.take("tagwire/link/a/stays", link)
    live.take("tagwire/data/a/quiet", encode_data([sample("x", 3, NOW + 1)]))
    live.end_picture(first)
    assert values(live, "gone") == {"x": 1}
    live.end_picture(picture)
    assert [values(live, device) for device in ("stays", "gone", "quiet")] == [{"x": 2}, {}, {"x": 3}]
    assert [len(live.links(device)) for device in ("stays", "gone", "quiet")] == [1, 0, 0]
    assert live.plans("stays") == {}
    live.end_picture(picture)
    assert values(live, "stays") == {"x": 2}


def test_a_state_that_crossed_newer_changes_does_not_bring_old_values_back() -> None:
    now_s = 0.0
    live = LiveValues(TOPICS, clock=lambda: now_s)
    live.take("tagwire/state/a/boiler", encode_state([sample("x", 1), sample("y", 1)]))
    live.take("tagwire/data/a/boiler", encode_data([sample("x", 2, NOW + 20)]))
    assert values(live) == {"x": 2, "y": 1}
    live.take("tagwire/state/a/boiler", encode_state([sample("x", 1, NOW + 10), sample("y", 3, NOW + 5)]))
    assert values(live) == {"x": 2, "y": 3}
    # So do changes that a state overtook, or that come twice, and those that the device did not have yet.
    live.take("tagwire/data/a/boiler", encode_data([sample("y", 2, NOW + 2), sample("new", 7, NOW + 30)]))
    assert values(live) == {"x": 2, "y": 3, "new": 7}
    live.take("tagwire/state/a/boiler", encode_state([sample("x", 2, NOW + 20), sample("y", 3, NOW + 5)]))
    assert values(live) == {"x": 2, "y": 3, "new": 7}
    now_s = 60.0
    assert values(live) == {"x": 2, "y": 3, "new": 7}


def test_a_state_that_the_broker_repeats_neither_hides_nor_confirms_anything() -> None:
    """It is asked for a second time after each connection, and may be behind the changes by then."""
    now_s = 0.0
    live = LiveValues(TOPICS, clock=lambda: now_s)
    old = encode_state([sample("x", 1), sample("y", 1)])
    live.take("tagwire/state/a/boiler", old, retained=True)
    live.take("tagwire/data/a/boiler", encode_data([sample("x", 2, NOW + 20), sample("y", 2, NOW - 10**6)]))
    live.take("tagwire/state/a/boiler", old, retained=True)
    assert values(live) == {"x": 2, "y": 1}
    now_s = DOUBT_S
    assert values(live) == {"x": 2, "y": 2}
    live.take("tagwire/data/a/boiler", encode_data([sample("x", 3, NOW + 30)]))
    live.take(
        "tagwire/state/a/boiler", encode_state([sample("x", 2, NOW + 20), sample("y", 3, NOW + 1)]), retained=True
    )
    assert values(live) == {"x": 3, "y": 3}


def test_a_clock_that_was_set_back_is_believed_after_a_while() -> None:
    now_s = 0.0
    live = LiveValues(TOPICS, clock=lambda: now_s)
    live.take("tagwire/data/a/boiler", encode_data([sample("x", 1)]))
    assert values(live) == {"x": 1}
    live.take("tagwire/data/a/boiler", encode_data([sample("x", 2, NOW - 10**6)]))
    now_s = DOUBT_S - 0.1
    live.take("tagwire/state/a/boiler", encode_state([sample("x", 3, NOW - 10**6 + 1)]))
    assert values(live) == {"x": 1}
    now_s += DOUBT_S
    assert values(live) == {"x": 3}
    live.take("tagwire/data/a/boiler", encode_data([sample("x", 4, NOW - 10**6 + 2)]))
    assert values(live) == {"x": 4}


@given(
    st.lists(st.tuples(st.sampled_from("xy"), st.integers(0, 9), st.booleans(), st.booleans()), min_size=1, max_size=60)
)
def test_a_value_never_goes_back_in_time(changes: list[tuple[str, int, bool, bool]]) -> None:
    live = LiveValues(TOPICS, clock=lambda: 0.0)
    seen: dict[str, int] = {}
    for tag, offset, is_state, is_looked_at in changes:
        found = [sample(each, offset, NOW + offset) for each in ("xy" if is_state else tag)]
        live.take(
            f"tagwire/{'state' if is_state else 'data'}/a/boiler",
            encode_state(found) if is_state else encode_data(found),
        )
        if is_looked_at:
            times = {each.tag: each.time_ms for each in live.samples("boiler")["a"].values()}
            assert all(times.get(each, 0) >= seen[each] for each in seen)
            seen = times


def test_what_was_set_is_shown_when_it_is_there_or_something_newer() -> None:
    live = LiveValues(TOPICS)
    assert not live.shows("boiler", {"x": 1}, NOW)
    live.take("tagwire/state/a/boiler", encode_state([sample("x", 1), Sample("y", 2, Quality.BAD, NOW)]))
    assert live.shows("boiler", {"x": 1}, NOW + 1)
    assert live.shows("boiler", {"x": 5}, NOW)
    assert not live.shows("boiler", {"x": 5}, NOW + 1)
    assert not live.shows("boiler", {"y": 2}, NOW + 1)
    assert not live.shows("boiler", {"x": 1, "y": 2}, NOW + 1)
    live.take("tagwire/data/b/boiler", encode_data([sample("y", 2, NOW + 1)]))
    assert live.shows("boiler", {"x": 1, "y": 2}, NOW + 1)
    live.take("tagwire/link/a/boiler", b'{"online": false, "since": 1, "error": "no reply"}')
    assert not live.shows("boiler", {"x": 1, "y": 2}, NOW + 1), "it would be shown as bad"
    assert live.shows("boiler", {"y": 2}, NOW + 1)
    live.take("tagwire/link/a/boiler", b'{"online": true, "since": 2, "error": null}')
    assert live.shows("boiler", {"x": 1, "y": 2}, NOW + 1)


def test_a_state_that_is_repeated_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second after each connection all of them were, in the bus's thread; what was made of them was kept, not counted."""
    taken = []

    def decode(payload: bytes) -> tuple[list[Sample], list[str]]:
        taken.append(payload)
        return decode_state(payload)

    monkeypatch.setattr(live_values, "decode_state", decode)
    live = LiveValues(TOPICS)
    first, second = encode_state([sample("x", 1)]), encode_state([sample("x", 2, NOW + 1)])
    for payload in (first, first):
        live.take("tagwire/state/a/boiler", payload, retained=True)
    assert taken == []
    live.take("tagwire/state/a/boiler", second, retained=True)
    assert live.samples("boiler")["a"]["x"].value == 2
    assert taken == [first, second]


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 9), st.booleans()), max_size=200))
def test_taken_apart_late_is_taken_apart_as_at_once(changes: list[tuple[str, int, bool]]) -> None:
    lazy, eager = LiveValues(TOPICS), LiveValues(TOPICS)
    for number, (tag, value, is_state) in enumerate(changes):
        found = sample(tag, value, NOW + number)
        topic = f"tagwire/{'state' if is_state else 'data'}/a/boiler"
        payload = encode_state([found]) if is_state else encode_data([found])
        lazy.take(topic, payload)
        eager.take(topic, payload)
        eager.samples("boiler")
    assert lazy.samples("boiler") == eager.samples("boiler")


def test_a_program_is_silent_when_three_heartbeats_are_missing() -> None:
    """A program that hung was shown with good values for as long as the broker believed in its connection, 20 s."""
    now_s = 100.0
    live = LiveValues(TOPICS, clock=lambda: now_s)
    live.take("tagwire/server/plain", b'{"online": true}')
    live.take("tagwire/heartbeat/a", b"i 1")
    for _ in range(3):
        now_s += 3.0
        live.take("tagwire/heartbeat/a", b"i 1")
    now_s += 9.9
    assert not live.is_silent("a")
    now_s += 0.2
    assert live.is_silent("a")
    assert [live.is_silent(owner) for owner in ("plain", "nobody")] == [False, False], "they never sent one"
    live.take("tagwire/heartbeat/a", b"i 1")
    assert not live.is_silent("a")
    # Whatever else it says is as good; nobody is silent while nothing could be heard.
    now_s += SILENT_S
    live.take("tagwire/data/a/boiler", encode_data([sample("x", 1)]))
    now_s += SILENT_S
    assert not live.is_silent("a")
    now_s += 60.0
    assert live.is_silent("a")
    live.listen_anew()
    assert not live.is_silent("a")
    assert not live.is_silent("plain")
    now_s += SILENT_S + 0.1
    assert live.is_silent("a")
    assert live.is_running("a") is None
    for number in range(2_000):
        live.take(f"tagwire/heartbeat/o{number}", b"")
    now_s += SILENT_S + 0.1
    assert [live.is_silent(owner) for owner in ("a", "o10", "o1999")] == [True, True, False], "the bound"


def test_devices_beyond_the_bounds_push_out_the_most_silent_ones() -> None:
    live = LiveValues(TOPICS, max_devices=3)
    for name in ("a", "b", "c"):
        live.take(f"tagwire/state/o/{name}", encode_state([sample("x", 1)]))
    live.take("tagwire/data/o/a", encode_data([sample("x", 2)]))
    live.take("tagwire/state/o/d", encode_state([sample("x", 1)]))
    assert [bool(live.samples(name)) for name in "abcd"] == [True, False, True, True]
    heavy = LiveValues(TOPICS, max_bytes=100_000)
    for number in range(100):
        heavy.take(f"tagwire/plan/o/d{number}", orjson.dumps({"text": "x" * 5_000}))
    assert 15 <= sum(bool(heavy.plans(f"d{number}")) for number in range(100)) <= 20
    assert heavy.plans("d99")
    many = LiveValues(TOPICS)
    for number in range(2_000):
        many.take(f"tagwire/server/o{number}", b'{"online": true}')
    assert many.is_running("o10") is True
    assert many.is_running("o1999") is None


def test_other_topics_and_nonsense_change_nothing() -> None:
    live = LiveValues(TOPICS)
    live.take("tagwire/state/a/boiler", encode_state([sample("x", 2)]))
    live.take("tagwire/server/a", b'{"online": true}')
    for topic in ("other/state/a/boiler", "tagwire/set/boiler", "tagwire/state/a", "tagwire/config"):
        live.take(topic, encode_state([sample("x", 3)]))
    for payload in (b"\xff", b"[]", b"5", b'{"online": 1}', b"null"):
        live.take("tagwire/server/a", payload)
        live.take("tagwire/link/a/boiler", payload)
        live.take("tagwire/data/a/boiler", payload)
    assert values(live) == {"x": 2}
    assert live.links("boiler") == []
    assert live.is_running("a") is True


def test_the_owner_of_a_value_is_its_sources() -> None:
    def binding(protocol: str, direction: str) -> dict[str, str]:
        return {"protocol": protocol, "direction": direction}

    assert source_owner([binding("modbus", "out"), binding("mqtt", "in")]) == "mqtt_server"
    assert source_owner([binding("modbus", "inout"), binding("mqtt", "out")]) == "field_server"
    assert source_owner([binding("modbus", "out"), binding("mqtt", "out")]) == "mqtt_server"
    assert source_owner([]) == ""
    assert is_of("mqtt_server-2of8", "mqtt_server")
    assert not is_of("mqtt_server2", "mqtt_server")
    assert is_of("anybody", "")


def test_counters_are_those_of_the_last_heartbeat_and_end_with_it() -> None:
    now_s = 100.0
    live = LiveCounters(TOPICS, lambda: now_s)
    counters = {"published": 5, "late": 1, "dropped": 2, "poisoned": 0, "buffered": 3}
    live.take("tagwire/heartbeat/a", b"i 1 " + orjson.dumps(counters))
    now_s = 110.0
    live.take("tagwire/heartbeat/b", b"i 1 " + orjson.dumps(counters))
    live.take("tagwire/heartbeat/b", b"i 2 " + orjson.dumps(counters | {"published": 6, "more": "x"}))
    for junk in (b"", b"i 1", b"i 1 ", b"i 1 [", b"i 1 5", b'i 1 {"published": 9}', b"\xff \xff \xff"):
        live.take("tagwire/heartbeat/b", junk)
    for wrong in (-1, True, 1.5, "1", None):
        live.take("tagwire/heartbeat/b", b"i 1 " + orjson.dumps(counters | {"late": wrong}))
    live.take("tagwire/server/c", b"i 1 " + orjson.dumps(counters))
    assert live.by_owner() == {"a": counters, "b": counters | {"published": 6}}
    now_s = 116.0
    assert list(live.by_owner()) == ["b"]
    now_s = 126.0
    assert live.by_owner() == {}


def command(identity: str) -> Command:
    return Command(identity, "boiler", {"x": 1}, NOW)


def test_steps_come_once_and_say_when_a_command_ended() -> None:
    live = LiveCommands()
    watch = live.watch(command("1"))
    steps = [step_of(command("1"), state, NOW) for state in (CommandState.ACCEPTED, CommandState.FAILED)]
    live.take(steps[0])
    assert (live.steps(watch), watch.ended, live.unfinished()) == (steps[:1], False, [watch])
    live.take(steps[1])
    live.take(steps[1])
    assert (live.steps(watch), watch.ended, live.unfinished()) == (steps, True, [])


def test_commands_are_remembered_within_bounds() -> None:
    live = LiveCommands(max_kept=10)
    for number in range(20):
        live.take(step_of(command(str(number)), CommandState.ACCEPTED, NOW))
    assert [live.find(str(number)) is not None for number in range(20)] == [False] * 10 + [True] * 10
    for number in range(2 * MAX_STEPS):
        live.take(step_of(command("19"), CommandState.SENT, NOW + number))
    found = live.find("19")
    assert found is not None
    assert len(found.steps) == MAX_STEPS


def test_only_a_command_without_a_last_word_gets_one_from_here() -> None:
    live = LiveCommands()
    asked = command("1")
    watch = live.watch(asked)
    step = unanswered(watch, (), NOW)
    assert step is not None
    assert (step.state, step.reason, step.final) == (CommandState.EXPIRED, "nobody answered", True)
    stored = [step_of(asked, CommandState.ACCEPTED, NOW)]
    step = unanswered(watch, stored, NOW)
    assert step is not None
    assert step.reason == "its program has said nothing since accepted"
    assert unanswered(watch, [*stored, step_of(asked, CommandState.FAILED, NOW)], NOW) is None
    final = step_of(asked, CommandState.ACKNOWLEDGED, NOW, final=True)
    live.take(final)
    assert unanswered(watch, stored, NOW) is None
    call = Call("c", "boiler", (), NOW)
    step = unanswered(live.watch(call), (), NOW)
    assert step == answer_of(call, CommandState.EXPIRED, NOW, reason="nobody answered")

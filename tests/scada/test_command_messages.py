import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import BadRequest

from flask_app.bodies import parse_json
from scada.command_messages import (
    BadCall,
    BadCommand,
    decode_call,
    decode_feedback,
    decode_set,
    encode_call,
    encode_feedback,
    encode_set,
)
from scada.commands import MAX_EXPIRY_MS, MAX_GROUP, Call, Command, CommandState, Step, answer_of, step_of
from scada.values import BadValue, Quality, Reason, RejectCode, Sample

NOW = 1_700_000_000_000
NAMES = st.text("abcdefghijklmnopqrstuvwxyzäö0123456789_-", min_size=1, max_size=64)
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | PLAIN
TEXTS = st.text("abc d:.", max_size=64)
IDS = st.text("abcdef0123456789-", min_size=1, max_size=64)
COMMANDS = st.builds(
    lambda id, value, tag, by, origin, left: Command(id, "boiler", {tag: value}, NOW + left, by, origin),
    IDS, VALUES, NAMES, TEXTS, TEXTS, st.integers(-NOW, MAX_EXPIRY_MS),
)  # fmt: skip
GROUPS = st.builds(
    lambda id, values: Command(id, "boiler", values, NOW, group=True),
    IDS,
    st.dictionaries(NAMES, VALUES, min_size=1, max_size=5),
)


def payload(**fields: Any) -> bytes:
    return orjson.dumps({"id": "a", "tag": "level", "value": 5, **fields})


@given(COMMANDS | GROUPS)
def test_a_command_comes_back_as_it_was(command: Command) -> None:
    assert decode_set(encode_set(command, NOW), "boiler", NOW, "new") == command


@given(COMMANDS | GROUPS, st.sampled_from(CommandState), VALUES | st.none(), TEXTS)
def test_a_step_comes_back_as_it_was(command: Command, state: CommandState, old: Any, reason: str) -> None:
    step = step_of(command, state, NOW, old_value=old, reason=reason)
    assert decode_feedback(encode_feedback(step), "boiler") == step


def test_a_call_and_its_answer_come_back_as_they_were() -> None:
    call = Call("c1", "boiler", ("level", "pump"), NOW, "anna", "console")
    assert decode_call(encode_call(call, NOW), "boiler", NOW, "new") == call
    samples = (
        Sample("level", 5.5, Quality.GOOD, NOW),
        Sample("pump", None, Quality.BAD, NOW, Reason.COMM_FAILURE),
    )
    answer = answer_of(call, CommandState.VERIFIED, NOW, samples=samples)
    document = orjson.loads(encode_feedback(answer))
    assert document["values"] == {
        "level": [5.5, "good", NOW],
        "pump": [None, "bad", NOW, {"reason": "comm_failure"}],
    }
    assert decode_feedback(encode_feedback(answer), "boiler") == answer


def test_what_is_missing_is_filled_in() -> None:
    assert decode_set(b'{"tag": "level", "value": 5, "later": [1]}', "boiler", NOW, "new") == Command(
        "new", "boiler", {"level": 5}, NOW + 5_000
    )
    assert decode_call(b"{}", "boiler", NOW, "new") == Call("new", "boiler", (), NOW + 5_000)


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"id": 5}, RejectCode.WRONG_TYPE, "id: must be a text of 1 to 64 printable characters, not integer 5"),
        ({"id": "x" * 65}, RejectCode.WRONG_TYPE, "id:"),
        ({"id": "a\nb"}, RejectCode.WRONG_TYPE, "id:"),
        ({"tag": None}, RejectCode.WRONG_TYPE, "tag: must be the name of a tag, not null"),
        ({"tag": "a/b"}, RejectCode.WRONG_TYPE, "tag: '/' is not for names"),
        ({"value": None}, RejectCode.WRONG_TYPE, "value: must be a number, text, true or false, not null"),
        ({"value": [5]}, RejectCode.WRONG_TYPE, "value:"),
        ({"value": "x" * 1_025}, RejectCode.TOO_LARGE, "value: at most 1024 characters, not 1025"),
        ({"values": {"a": 1}}, RejectCode.WRONG_TYPE, "values: stands for a group"),
        ({"by": 5}, RejectCode.WRONG_TYPE, "by: must be text, not integer 5"),
        ({"from": "x" * 65}, RejectCode.TOO_LARGE, "from:"),
        ({"expires_ms": "soon"}, RejectCode.BAD_TIME, "expires_ms: must be UTC milliseconds"),
        ({"expires_ms": True}, RejectCode.BAD_TIME, "expires_ms:"),
        ({"expires_ms": 1.5}, RejectCode.BAD_TIME, "expires_ms:"),
        ({"asked_ms": "now"}, RejectCode.BAD_TIME, "asked_ms: must be UTC milliseconds"),
        ({"asked_ms": NOW + 5_001}, RejectCode.BAD_TIME, "asked_ms: 5001 ms ahead, at most 5000 (clocks must agree)"),
        ({"expires_ms": NOW + 3_600_001}, RejectCode.BAD_TIME, "expires_ms: at most 3600000 ms ahead, not 3600001"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], code: RejectCode, text: str) -> None:
    with pytest.raises(BadCommand) as caught:
        decode_set(payload(**fields), "boiler", NOW, "new")
    assert caught.value.code is code
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    "values", [{}, [], 5, None, {"a/b": 1}, {"a": None}, {"a": {}}, {f"t{n}": 1 for n in range(MAX_GROUP + 1)}]
)
def test_a_wrong_group_is_refused_as_a_whole(values: Any) -> None:
    with pytest.raises(BadCommand, match="values"):
        decode_set(orjson.dumps({"id": "a", "values": values}), "boiler", NOW, "new")


def test_what_is_legible_of_a_bad_command_can_be_answered() -> None:
    with pytest.raises(BadCommand) as caught:
        decode_set(payload(by="anna", expires_ms=None, value=True, **{"from": 7}), "boiler", NOW, "new")
    assert caught.value.command == Command("a", "boiler", {"level": True}, NOW, "anna")
    with pytest.raises(BadCommand) as caught:
        decode_set(b'{"id": "a", "tag": "level", "value": {"a": 1}}', "boiler", NOW, "new")
    assert caught.value.command is not None
    assert (caught.value.command.id, caught.value.command.tag, dict(caught.value.command.values)) == ("a", None, {})
    with pytest.raises(BadCommand) as caught:
        decode_set(b'{"tag": "level"}', "boiler", NOW, "new")
    assert caught.value.command == Command("new", "boiler", {}, NOW, group=True)
    for unusable in (b"7", b'""', b'"' + b"x" * 65 + b'"', b'"a\\nb"', b'"a", "id": "b"'):
        with pytest.raises(BadCommand) as caught:
            decode_set(b'{"tag": "level", "id": ' + unusable + b"}", "boiler", NOW, "new")
        assert caught.value.command is None


AMBIGUOUS = {
    "a tag twice": (b'{"id": "a", "tag": "level", "value": 5, "tag": "pump"}', "the name 'tag' stands twice"),
    "a value twice": (b'{"id": "a", "tag": "level", "value": 5, "value": 6}', "the name 'value' stands twice"),
    "in a group": (b'{"id": "a", "values": {"level": 5, "pump": 1, "level": 6}}', "the name 'level' stands twice"),
    "in what is ignored": (b'{"id": "a", "tag": "level", "value": 5, "more": [{"x": 1, "x": 1}]}', "the name 'x'"),
    "escaped": (b'{"id": "a", "tag": "level", "value": 5, "t\\u0061g": "pump"}', "the name 'tag' stands twice"),
    "beyond 64 bits": (b'{"id": "a", "tag": "level", "value": 18446744073709551616}', "an integer needs more than 64"),
    "U+0000": (b'{"id": "a", "tag": "level", "value": "x\\u0000"}', "a text holds U.0000"),
    "deep": (
        b'{"id": "a", "tag": "level", "value": 5, "more": ' + b"[" * 100 + b"]" * 100 + b"}",
        "nested more than",
    ),
}


@pytest.mark.parametrize(("data", "text"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_as_rest_refuses_it(data: bytes, text: str) -> None:
    """The last of two tags won: what the sender wrote for one of them was written to the other."""
    with pytest.raises(BadCommand, match=text) as caught:
        decode_set(data, "boiler", NOW, "new")
    assert caught.value.code is RejectCode.NOT_JSON
    assert caught.value.command is not None
    assert caught.value.command.id == "a"
    with pytest.raises(BadRequest, match=text):
        parse_json(data)
    with pytest.raises(BadCall, match=text):
        decode_call(data, "boiler", NOW, "new")


def test_what_stands_twice_is_not_told_of_a_refused_command() -> None:
    with pytest.raises(BadCommand) as caught:
        decode_set(AMBIGUOUS["a tag twice"][0], "boiler", NOW, "new")
    assert caught.value.command == Command("a", "boiler", {}, NOW, group=True)
    with pytest.raises(BadCommand) as caught:
        decode_set(AMBIGUOUS["U+0000"][0], "boiler", NOW, "new")
    assert caught.value.command == Command("a", "boiler", {}, NOW, group=True), "no database holds it"
    with pytest.raises(BadCommand) as caught:
        decode_set(AMBIGUOUS["in what is ignored"][0], "boiler", NOW, "new")
    assert caught.value.command == Command("a", "boiler", {"level": 5}, NOW)


def test_a_call_that_is_refused_can_be_answered() -> None:
    with pytest.raises(BadCall) as caught:
        decode_call(b'{"id": "c", "tags": 5, "by": "anna"}', "boiler", NOW, "new")
    assert caught.value.call == Call("c", "boiler", (), NOW, "anna")
    for data in (b"[]", b"{", b'{"id": 5}', b'{"id": "a", "id": "a"}'):
        with pytest.raises(BadCall) as caught:
            decode_call(data, "boiler", NOW, "new")
        assert caught.value.call is None


@given(st.binary(max_size=60) | st.recursive(
    VALUES | st.none(), lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["id", "tag", "tags", "value", "values", "state", "time_ms", "by", "final", "x"]), inner)
).map(lambda document: orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS)))  # fmt: skip
def test_garbage_raises_bad_value_only(data: bytes) -> None:
    with contextlib.suppress(BadValue):
        decode_set(data, "boiler", NOW, "new")
    with contextlib.suppress(BadValue):
        decode_call(data, "boiler", NOW, "new")
    with contextlib.suppress(BadValue):
        decode_feedback(data, "boiler")


def test_feedback_with_a_wrong_part_is_refused() -> None:
    good: dict[str, Any] = {"id": "a", "tag": None, "state": "verified", "time_ms": NOW}
    assert decode_feedback(orjson.dumps(good), "boiler") == Step("a", "boiler", None, CommandState.VERIFIED, NOW)
    for part in (
        {"state": "done"},
        {"time_ms": -1},
        {"time_ms": None},
        {"final": 1},
        {"id": None},
        {"tag": 5},
        {"value": [1]},
        {"old_value": {"a": [1]}},
        {"values": []},
        {"values": {"a": [1, "great", NOW]}},
        {"reason": 5},
    ):
        with pytest.raises(BadValue):
            decode_feedback(orjson.dumps(good | part), "boiler")


def test_a_message_that_may_be_old_must_say_when_it_expires() -> None:
    payload = b'{"id": "c", "tag": "t", "value": 1}'
    assert decode_set(payload, "d", 1000, "new").expires_ms == 6000
    with pytest.raises(BadCommand, match="expires_ms") as caught:
        decode_set(payload, "d", 1000, "new", must_expire=True)
    assert caught.value.command is not None
    assert decode_set(payload[:-1] + b', "expires_ms": 1500}', "d", 1000, "new", must_expire=True).expires_ms == 1500


@pytest.mark.parametrize(
    ("ahead_ms", "expires_ms"),
    [(0, NOW + 2_000), (5_000, NOW + 2_000), (-500, NOW + 1_500), (-10_000, NOW - 8_000)],
)
def test_a_clock_that_is_ahead_makes_no_command_last_longer(ahead_ms: int, expires_ms: int) -> None:
    """A setpoint that was to act within two seconds acted minutes later, when its device was back."""
    asked_ms = NOW + ahead_ms
    command = Command("a", "boiler", {"level": 5}, asked_ms + 2_000)
    assert decode_set(encode_set(command, asked_ms), "boiler", NOW, "new").expires_ms == expires_ms
    call = Call("a", "boiler", (), asked_ms + 2_000)
    assert decode_call(encode_call(call, asked_ms), "boiler", NOW, "new").expires_ms == expires_ms

import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.errors import ConfigError
from scada.paths import MAX_PATH_CHARACTERS, compile_path
from scada.payload import decode_payload
from scada.values import BadValue, RejectCode

DOCUMENT = {
    "temperature": 21.5,
    "a": {"b": {"c": 1}, "x.y": {"b": 2}, "list": [10, {"b": 20}, [30, 31]]},
    "it's": 3,
    'say "x"': 4,
    "back\\slash": 5,
    "": 6,
    "0": 7,
    "Room Temp": 8,
    "null": None,
    "°C": 9,
    "$ref": 10,
    "*": 11,
    "__proto__": 12,
}

FOUND = [
    ("temperature", 21.5, "temperature"),
    ("$.temperature", 21.5, "temperature"),
    ('$["temperature"]', 21.5, "temperature"),
    ("a.b.c", 1, "a.b.c"),
    ("a['b'].c", 1, "a.b.c"),
    ('a["x.y"].b', 2, 'a["x.y"].b'),
    ("a.list[0]", 10, "a.list[0]"),
    ("a.list[1].b", 20, "a.list[1].b"),
    ("a.list[-1][-2]", 30, "a.list[-1][-2]"),
    (r"['it\'s']", 3, '["it\'s"]'),
    ('["it\'s"]', 3, '["it\'s"]'),
    (r'["say \"x\""]', 4, r'["say \"x\""]'),
    (r'["back\\slash"]', 5, r'["back\\slash"]'),
    ('[""]', 6, '[""]'),
    ("0", 7, "0"),
    ("Room Temp", 8, "Room Temp"),
    ("null", None, "null"),
    ("°C", 9, "°C"),
    ('["$ref"]', 10, '["$ref"]'),
    ('["*"]', 11, '["*"]'),
    ("__proto__", 12, "__proto__"),
]


@pytest.mark.parametrize(("text", "value", "canonical"), FOUND)
def test_found(text, value, canonical):
    path = compile_path(text)
    assert path.get(DOCUMENT) == value
    assert path.text == canonical


@pytest.mark.parametrize("text", ["", "$"])
@pytest.mark.parametrize("document", [12, "on", None, [1], {"a": 1}, False])
def test_the_whole_payload(text, document):
    path = compile_path(text)
    assert path.get(document) is document
    assert (path.text, path.parts) == ("$", ())


def test_an_array_as_the_payload():
    assert compile_path("[2]").get([1, 2, 3]) == 3
    assert compile_path("$[-1].v").get([{"v": 1}, {"v": 2}]) == 2


LOST = [
    ("humidity", DOCUMENT, RejectCode.MISSING, "no key humidity"),
    ("a.z.c", DOCUMENT, RejectCode.MISSING, "no key a.z"),
    ("a.list[3]", DOCUMENT, RejectCode.MISSING, "no element a.list[3]"),
    ("a.list[-4]", DOCUMENT, RejectCode.MISSING, "no element a.list[-4]"),
    ("[0]", [], RejectCode.MISSING, "no element [0]"),
    ("a", [1], RejectCode.WRONG_TYPE, "the payload is no object (needed for a) but array"),
    ("a", 12, RejectCode.WRONG_TYPE, "the payload is no object (needed for a) but integer"),
    ("a", None, RejectCode.WRONG_TYPE, "the payload is no object (needed for a) but null"),
    ("a", "a", RejectCode.WRONG_TYPE, "the payload is no object (needed for a) but text"),
    ("[0]", "text", RejectCode.WRONG_TYPE, "the payload is no array (needed for [0]) but text"),
    ("[0]", {"0": 1}, RejectCode.WRONG_TYPE, "the payload is no array (needed for [0]) but object"),
    ("temperature.value", DOCUMENT, RejectCode.WRONG_TYPE, "temperature is no object (needed for temperature.value)"),
    ("a.b[0]", DOCUMENT, RejectCode.WRONG_TYPE, "a.b is no array (needed for a.b[0]) but object"),
    ("null.x", DOCUMENT, RejectCode.WRONG_TYPE, "null is no object (needed for null.x) but null"),
    ("a.list.b", DOCUMENT, RejectCode.WRONG_TYPE, "a.list is no object (needed for a.list.b) but array"),
    ("__class__", {}, RejectCode.MISSING, "no key __class__"),
]


@pytest.mark.parametrize(("text", "document", "code", "message"), LOST)
def test_lost_with_the_part_that_failed(text, document, code, message):
    with pytest.raises(BadValue) as caught:
        compile_path(text).get(document)
    assert caught.value.code is code
    assert message in str(caught.value)


SYNTAX = [
    ("a..b", 3, "key"),
    (".a", 1, "key"),
    ("a.", 3, "key"),
    ("$.", 3, "key"),
    ("$a", 2, "quotes"),
    ("$$", 2, "quotes"),
    ("a.$b", 3, "quotes"),
    ("*", 1, "quotes"),
    ("a.*", 3, "quotes"),
    ("a[*]", 3, "index"),
    ("a[]", 3, "index"),
    ("a[", 3, "index"),
    ("a[1", 3, "index"),
    ("a[1.5]", 3, "index"),
    ("a[1:2]", 3, "index"),
    ("a[+1]", 3, "index"),
    ("a[--1]", 3, "index"),
    ("a[٣]", 3, "index"),
    ("a[01]", 3, "written 1"),
    ("a[-0]", 3, "written 0"),
    ("a[1000000]", 3, "index"),
    ("a[0]b", 5, "expected"),
    ("a]b", 2, "quotes"),
    ('a"b', 2, "quotes"),
    ("a'b", 2, "quotes"),
    ("a\\b", 2, "quotes"),
    ("a\0b", 2, "quotes"),
    ("a\ud800", 2, "quotes"),
    (" a", 1, "quotes"),
    ("a. b", 3, "quotes"),
    ("a ", 1, "quotes"),
    ('["a', 2, "closed"),
    ('["a"', 5, "]"),
    ('["a"x]', 5, "]"),
    (r'["a\n"]', 5, "backslash"),
    ('["a\\', 5, "backslash"),
    ('["a\n"]', 4, "control"),
    ('["\udc00"]', 3, "surrogates"),
]


@pytest.mark.parametrize(("text", "position", "what"), SYNTAX, ids=lambda x: ascii(x))
def test_bad_syntax_is_refused_with_its_position(text, position, what):
    with pytest.raises(ConfigError, match=f"character {position}: ") as caught:
        compile_path(text)
    assert what in str(caught.value)


def test_a_path_of_unreasonable_length():
    assert compile_path("a" * MAX_PATH_CHARACTERS).text == "a" * MAX_PATH_CHARACTERS
    with pytest.raises(ConfigError, match="at most"):
        compile_path("a" * (MAX_PATH_CHARACTERS + 1))


keys = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8)


@given(st.lists(keys | st.integers(-9, 9), max_size=6))
def test_any_path_can_be_spelled_and_found(parts):
    text = ""
    document: object = 42
    for part in reversed(parts):
        document = {part: document} if isinstance(part, str) else [document] * 9
        spelled = str(part) if isinstance(part, int) else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
        text = f"[{spelled}]" + text
    if any(part == 9 for part in parts):
        with pytest.raises(BadValue):
            compile_path(text).get(document)
        return
    path = compile_path(text)
    assert path.get(document) == 42
    assert path.parts == tuple(parts)
    assert compile_path(path.text) == path
    assert compile_path(path.text).text == path.text


@given(st.text(max_size=30) | st.text("ab.[]$*\"'\\01- ", max_size=12))
def test_any_text_is_a_path_or_a_config_error(text):
    try:
        path = compile_path(text)
    except ConfigError:
        return
    assert compile_path(path.text) == path


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab0"), inner, max_size=3),
    ),
    st.sampled_from(["a", "a.b", "a[0]", "[0].b", "[-1][-1]", "0", "$"]),
)
def test_any_document_gives_a_value_or_bad_value(document, text):
    try:
        compile_path(text).get(document)
    except BadValue as exc:
        assert exc.code in (RejectCode.MISSING, RejectCode.WRONG_TYPE)  # noqa: PT017 either outcome is right here


def test_a_deep_document_is_no_trap_for_the_message():
    with pytest.raises(BadValue, match="array"):
        compile_path("a").get(decode_payload(b"[" * 1000 + b"]" * 1000))


@pytest.mark.parametrize("text", ["temperature", "a.b.c"])
def test_a_flood_of_bad_messages_costs_no_multiple(text):
    """Parsing and picking, good beside bad, in the same run: far below ten times."""
    path = compile_path(text)

    def take(payload: bytes) -> None:
        try:
            path.get(decode_payload(payload))
        except BadValue:
            return

    good = b'{"temperature": 21.5, "a": {"b": {"c": 1}}}'
    for bad in (b'{"humidity_in": 21.5, "x": {"b": {"c": 1}}}', b'[{"humidity": 21.5, "x": {"b": {"c": 1}}}]'):
        costs = [min(timeit.repeat(lambda data=data: take(data), number=500, repeat=7)) for data in (good, bad)]
        assert costs[1] < 10 * costs[0]

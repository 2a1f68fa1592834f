import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.errors import ConfigError
from scada.topics import (
    MAX_NAME_CHARACTERS,
    MAX_TOPIC_BYTES,
    BusTopics,
    check_name,
    check_topic_filter,
    check_topic_name,
)

BAD_EVERYWHERE = [
    ("", "at least one"),
    ("$SYS/x", "begins with $"),
    ("$share/group/a", "begins with $"),
    ("a b", "U+0020, character 2"),
    ("a/\0", "U+0000"),
    ("a/\x1f", "U+001F"),
    ("a/\x7f", "U+007F"),
    ("a\u00a0b", "U+00A0"),
    ("a\u200bb", "U+200B"),
    ("a\u202eb", "U+202E"),
    ("a\ufeff", "U+FEFF"),
    ("a\ud800", "U+D800"),
    ("a\uffff", "U+FFFF"),
    ("a\U0001fffe", "U+1FFFE"),
    ("a\ufdd0", "U+FDD0"),
    ("/a", "level 1 is empty"),
    ("a/", "level 2 is empty"),
    ("a//b", "level 2 is empty"),
    ("../a", "level 1"),
    ("a/./b", "level 2"),
    ("a/*", "level 2"),
    ("a/>", "level 2"),
    ("a" * (MAX_TOPIC_BYTES + 1), "at most 65535 bytes"),
    ("°" * 32_768, "at most 65535 bytes"),
]


@pytest.mark.parametrize(("text", "what"), BAD_EVERYWHERE, ids=lambda x: ascii(x)[:20])
@pytest.mark.parametrize("check", [check_topic_name, check_topic_filter])
def test_bad_as_a_name_and_as_a_filter(check, text, what):
    with pytest.raises(ConfigError) as caught:
        check(text)
    assert what in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text",
    ["a", "plant/boiler", "device/12", "Anlage/Kessel-1/Öl", "a/.b", "a/b.c", "a$/b", "завод/насос", "a" * 65_535],
)
def test_good_names_are_good_filters(text):
    check_topic_name(text)
    check_topic_filter(text)


@pytest.mark.parametrize("text", ["+", "#", "a/+/b", "a/#", "+/+", "+/a/#", "plant/+/temperature"])
def test_filters_are_no_names(text):
    check_topic_filter(text)
    with pytest.raises(ConfigError, match="wildcards"):
        check_topic_name(text)


@pytest.mark.parametrize("text", ["a+", "+a/b", "a/b+", "a/++", "#/a", "a/#/b", "a#", "a/b#", "##", "+#", "#+"])
def test_misused_wildcards_are_refused(text):
    for check in (check_topic_filter, check_topic_name):
        with pytest.raises(ConfigError, match=r"level|wildcards"):
            check(text)


GOOD_NAMES = [
    "a",
    "boiler",
    "Kessel-1",
    "T_1.x",
    "°C",
    "m²",
    "насос1",
    "温度",
    "a:b",
    "x" * MAX_NAME_CHARACTERS,
    "Öl",
    "...",
    "~",
]
BAD_NAMES = [
    ("", "at least one"),
    ("x" * (MAX_NAME_CHARACTERS + 1), "at most 64"),
    *[(f"a{char}b", "not for names") for char in "/+#$@*>"],
    ("a b", "U+0020"),
    (" a", "U+0020, character 1"),
    ("a ", "U+0020, character 2"),
    ("a\nb", "U+000A"),
    ("a\0", "U+0000"),
    ("a\x85", "U+0085"),
    ("a\u00a0", "U+00A0"),
    ("a\u3000", "U+3000"),
    ("a\u200d", "U+200D"),
    ("a\u202e", "U+202E"),
    ("\ud800", "U+D800"),
    (".", "folder"),
    ("..", "folder"),
    ("O\u0308l", "normal form C"),
    ("\u212b", "normal form C"),
    ("a\uff0fb", "U+FF0F"),
    ("a\uff0bb", "U+FF0B"),
    ("a\uff03b", "U+FF03"),
    ("a\uff20b", "U+FF20"),
    ("a\u2044b", "U+2044"),
    ("a\u2215b", "U+2215"),
    ("a\u2100b", "U+2100"),
]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_names(name):
    check_name(name)


@pytest.mark.parametrize(("name", "what"), BAD_NAMES, ids=lambda x: ascii(x)[:20])
def test_bad_names(name, what):
    with pytest.raises(ConfigError) as caught:
        check_name(name)
    assert what in str(caught.value)


@given(st.text(max_size=70))
def test_a_safe_name_can_be_a_level_of_a_topic_and_half_of_a_full_name(name):
    try:
        check_name(name)
    except ConfigError:
        return
    check_topic_name(f"tagwire/data/gateway/{name}")
    assert f"{name}@x".split("@") == [name, "x"]
    assert len(name.encode()) <= 4 * MAX_NAME_CHARACTERS


@given(st.text("a+#/$. *>é\0", max_size=8))
def test_what_passes_as_a_filter_cannot_be_widened_by_anything_in_a_level(text):
    try:
        check_topic_filter(text)
    except ConfigError:
        return
    levels = text.split("/")
    assert all(level in ("+", "#") or not set(level) & set("+# \0") for level in levels)
    assert "#" not in levels[:-1]
    assert not {"", ".", "..", "*", ">"} & set(levels)


@pytest.mark.parametrize(
    ("root", "text", "owned"),
    [
        ("tagwire", "tagwire", True),
        ("tagwire", "tagwire/#", True),
        ("tagwire", "tagwire/+/x", True),
        ("tagwire", "tagwire/set/boiler", True),
        ("tagwire", "tagwired/set", False),
        ("tagwire", "plant/tagwire/set", False),
        ("tagwire", "#", False),
        ("tagwire", "+/+", False),
        ("a/b", "a/b/set/x", True),
        ("a/b", "a/b/#", True),
        ("a/b", "a/#", False),
        ("a/b", "a", False),
    ],
)
def test_what_belongs_to_the_bus(root, text, owned):
    assert BusTopics(root).owns(text) is owned

"""The index finds what MQTT's matching rule says, as paho's own matcher sees it."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from scada.topic_index import TopicIndex, covers, matches, widest

LEVEL = st.sampled_from(["a", "b", "c", "$x"])
TOPIC = st.lists(LEVEL, min_size=1, max_size=4).map("/".join)
FILTER = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]),
    st.lists(st.sampled_from(["a", "b", "c", "+"]), max_size=3),
    st.sampled_from([["#"], ["a"], ["+"], ["b", "#"]]),
)


@given(st.lists(FILTER, max_size=8), st.lists(TOPIC, max_size=5))
def test_the_same_as_paho(filters: list[str], topics: list[str]) -> None:
    index: TopicIndex[int] = TopicIndex()
    for number, each in enumerate(filters):
        index.add(each, number)
    for topic in topics:
        expected = [number for number, each in enumerate(filters) if topic_matches_sub(each, topic)]
        assert sorted(index.find(topic)) == expected


@given(st.lists(FILTER, max_size=8), st.lists(TOPIC, min_size=1, max_size=5))
def test_removed_filters_match_no_more_and_leave_nothing_behind(filters: list[str], topics: list[str]) -> None:
    index: TopicIndex[int] = TopicIndex()
    for number, each in enumerate(filters):
        index.add(each, number)
    for number, each in enumerate(filters):
        index.remove(each, number)
    assert [index.find(topic) for topic in topics] == [[] for _ in topics]
    assert not index._root.children
    assert not index._plain


def test_a_wildcard_does_not_see_the_brokers_own_topics() -> None:
    index: TopicIndex[str] = TopicIndex()
    index.add("#", "all")
    index.add("+/broker", "plus")
    index.add("$SYS/#", "sys")
    assert index.find("$SYS/broker") == ["sys"]
    assert index.find("a/broker") == ["all", "plus"]


MATCHES = [
    ("a", "a", True),
    ("a", "b", False),
    ("a/b", "a", False),
    ("a", "a/b", False),
    ("a/#", "a", True),
    ("a/#", "a/b/c", True),
    ("a/#", "ab", False),
    ("+", "a", True),
    ("+", "a/b", False),
    ("+/+", "/a", True),
    ("/+", "/a", True),
    ("+", "/a", False),
    ("a/+", "a/", True),
    ("a/+/c", "a/b/c", True),
    ("a/+/#", "a", False),
    ("a/+/#", "a/b", True),
    ("#", "a/b", True),
    ("#", "$SYS/a", False),
    ("+/a", "$SYS/a", False),
    ("$SYS/#", "$SYS/a", True),
    ("$SYS/+", "$SYS/a", True),
    ("a/+", "a/$b", True),
    ("A", "a", False),
]


@pytest.mark.parametrize(("topic_filter", "topic", "expected"), MATCHES)
def test_the_cases_of_section_4_7(topic_filter: str, topic: str, expected: bool) -> None:
    index: TopicIndex[str] = TopicIndex()
    index.add(topic_filter, "x")
    assert (index.find(topic) == ["x"]) is expected
    assert topic_matches_sub(topic_filter, topic) is expected


LEVELS = st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=3)
WIDE = st.builds(lambda levels, deep: "/".join([*levels, "#"] if deep else levels), LEVELS, st.booleans())
TOPICS = ["/".join(each) for size in (1, 2, 3, 4) for each in product("abc", repeat=size)]


@given(WIDE, WIDE)
def test_a_filter_covers_another_when_it_takes_all_of_its_topics(wide: str, narrow: str) -> None:
    taken = [topic for topic in TOPICS if matches(narrow, topic)]
    assert covers(wide, narrow) is all(matches(wide, topic) for topic in taken)


@given(st.sets(WIDE, max_size=6))
def test_the_widest_take_what_all_take(filters: set[str]) -> None:
    found = widest(filters)
    assert found <= filters
    assert not any(covers(one, other) for one in found for other in found if one != other)
    for topic in TOPICS:
        assert any(matches(each, topic) for each in found) is any(matches(each, topic) for each in filters)


def test_no_wildcard_covers_a_topic_of_the_broker() -> None:
    assert not covers("#", "$SYS/x")
    assert not covers("+/x", "$SYS/x")
    assert covers("$SYS/#", "$SYS/x")

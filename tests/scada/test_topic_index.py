"""The index finds what MQTT's matching rule says, as paho's own matcher sees it."""

from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from scada.topic_index import TopicIndex

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

"""What the gateway subscribes to, and gives back, when devices come and go."""

import asyncio

import pytest

from mqtt_server import filters as filters_module
from mqtt_server.filters import Filters


class Link:
    """Notes what it is told, and keeps what would be subscribed to."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.given_back: set[str] = set()

    def subscribe(self, topics: set[str]) -> None:
        self.held |= topics

    def unsubscribe(self, topics: set[str]) -> None:
        self.given_back = set(topics)
        self.held -= topics


async def test_a_filter_that_a_wider_one_covers_is_subscribed_to_only_for_what_is_retained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(filters_module, "ASK_S", 0.05)
    link, filters = Link(), Filters()
    filters.attach(link)  # type: ignore[arg-type]  # a notebook
    for each in ("plant/#", "plant/a", "other"):
        filters.add(each)
    filters.apply()
    assert link.held == {"plant/#", "other"}
    assert link.given_back == {"plant/a"}, "an earlier run's session may hold it"
    filters.add("plant/b")
    filters.apply()
    assert link.held == {"plant/#", "other", "plant/b"}
    assert link.given_back == set(), "and what was given back is not again"
    await asyncio.sleep(0.1)
    assert link.held == {"plant/#", "other"}
    filters.remove("plant/#")
    filters.apply()
    assert link.held == {"plant/a", "plant/b", "other"}
    filters.add("#")
    filters.remove("other")
    filters.apply()
    assert link.held == {"#"}


async def test_what_is_wide_again_before_it_was_given_back_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters_module, "ASK_S", 0.05)
    link, filters = Link(), Filters()
    filters.attach(link)  # type: ignore[arg-type]  # a notebook
    filters.add("plant/#")
    filters.apply()
    filters.add("plant/a")
    filters.apply()
    filters.remove("plant/#")
    filters.apply()
    await asyncio.sleep(0.1)
    assert link.held == {"plant/a"}

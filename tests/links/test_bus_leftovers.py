"""What an owner takes over from its earlier run, and what it takes back, over a real broker."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import pytest

from links import bus_leftovers
from links.bus import Bus
from links.bus_leftovers import Leftovers
from links.environment import MqttSettings
from scada.bus_messages import encode_state
from scada.topics import BusTopics
from scada.values import Quality, Sample
from tests.support.brokers import Broker, start_proxy
from tests.support.bus_watch import BusWatch, watch_bus

TOPICS = BusTopics()
A, B, OLD = (Sample(tag, 5, Quality.GOOD, 1_763_712_000_000) for tag in ("a", "b", "old"))


@pytest.fixture(autouse=True)
def short_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_leftovers, "LISTEN_S", 0.5)


class Owner:
    """`told` are the tags of its devices; keeps what it is to take over."""

    def __init__(self, port: int, **told: Collection[str]) -> None:
        self.recalled: list[tuple[str, list[str]]] = []
        self.bus = Bus(MqttSettings(port=port), TOPICS, "o")
        self.leftovers = Leftovers(self.bus, TOPICS, "o", told.get, self._recall)

    def _recall(self, device: str, samples: list[Sample]) -> None:
        self.recalled.append((device, [each.tag for each in samples]))
        self.bus.publish(device, samples)


@asynccontextmanager
async def running(owner: Owner) -> AsyncIterator[Owner]:
    owner.bus.start()
    looking = asyncio.create_task(owner.leftovers.run())
    try:
        async with asyncio.timeout(10):
            await owner.bus.connected()
        yield owner
    finally:
        looking.cancel()
        await owner.bus.close()


async def eventually(condition: Callable[[], object], timeout_s: float = 8.0) -> None:
    for _ in range(int(timeout_s * 100)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {timeout_s:g} s")


def leave(watch: BusWatch, device: str, *samples: Sample) -> None:
    """What another run has told."""
    watch.publish(f"state/o/{device}", encode_state(samples), retain=True)
    watch.publish(f"link/o/{device}", '{"online": true, "since": 1, "error": null}', retain=True)
    watch.publish(f"plan/o/{device}", "{}", retain=True)


async def test_a_known_device_is_taken_over_without_the_tags_that_it_has_no_more(mosquitto: Broker) -> None:
    with watch_bus(mosquitto.port) as watch:
        leave(watch, "boiler", A, OLD)
        leave(watch, "empty", OLD)
        leave(watch, "gone", A)
        async with running(Owner(mosquitto.port, boiler={"a", "b"}, empty={"a"})) as owner:
            await eventually(lambda: watch.states.get("boiler", {}).keys() == {"a"})
            await eventually(lambda: "empty" not in watch.states and "gone" not in watch.states)
            assert sorted(owner.recalled) == [("boiler", ["a"]), ("empty", [])]
            assert {topic for topic in watch.kept if topic.endswith("/gone")} == set()


async def test_later_looks_withdraw_and_take_nothing_over(mosquitto: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """A broker that brings back the state of a device that had the same name: its values are nobody's any more."""
    caplog.set_level("INFO")
    with watch_bus(mosquitto.port) as watch, start_proxy(mosquitto.port) as proxy:
        async with running(Owner(proxy.port, boiler={"a", "b"})) as owner:
            await asyncio.sleep(1.0)
            leave(watch, "boiler", B, OLD)
            leave(watch, "gone", A)
            await asyncio.sleep(0.3)
            assert {"boiler", "gone"} <= watch.states.keys(), "nobody looks just now"
            proxy.drop()
            await eventually(lambda: not [topic for topic in watch.kept if topic.endswith("/gone")])
            await eventually(lambda: "boiler" not in watch.states)
            assert owner.recalled == []
            await eventually(lambda: "withdrawn, as they are not configured any more: gone" in caplog.text)


async def test_a_look_that_a_lost_connection_ended_is_made_again(mosquitto: Broker) -> None:
    with watch_bus(mosquitto.port) as watch, start_proxy(mosquitto.port) as proxy:
        async with running(Owner(proxy.port, boiler={"a"})) as owner:
            proxy.drop()
            leave(watch, "gone", A)
            leave(watch, "boiler", A)
            await eventually(lambda: not [topic for topic in watch.kept if topic.endswith("/gone")])
            await eventually(lambda: owner.recalled == [("boiler", ["a"])])

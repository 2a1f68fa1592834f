"""What REST remembers of the bus when its own connection was away meanwhile."""

from collections.abc import Iterator

import pytest

from flask_app import live as module
from flask_app.live import Live
from flask_app.live_values import LiveValues
from links.environment import MqttSettings
from scada.errors import LinkError
from scada.topics import BusTopics
from tests.support.brokers import Broker, Proxy, start_proxy
from tests.support.fake_owner import FakeOwner, fake_owner
from tests.support.processes import wait_until


@pytest.fixture
def proxy(mosquitto: Broker) -> Iterator[Proxy]:
    with start_proxy(mosquitto.port) as running:
        yield running


@pytest.fixture
def live(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    def no_stores() -> None:
        raise LinkError("there is no database here")

    monkeypatch.setattr(module, "PICTURE_S", 0.5)
    running = Live(MqttSettings(port=proxy.port), BusTopics(), no_stores)  # type: ignore[arg-type]
    running.start()
    wait_until(lambda: running.online, 20, "the bus is online")
    yield running
    running.close()


@pytest.fixture
def owner(mosquitto: Broker) -> Iterator[FakeOwner]:
    with fake_owner(mosquitto.port) as running:
        yield running


def known(values: LiveValues, device: str) -> tuple[dict[str, object], list[bool]]:
    found = {tag: each.value for samples in values.samples(device).values() for tag, each in samples.items()}
    return found, [link.report.online for link in values.links(device)]


def test_what_was_taken_back_meanwhile_is_gone_and_what_changed_is_new(
    live: Live, owner: FakeOwner, proxy: Proxy
) -> None:
    for device in ("gone", "broken", "tank"):
        owner.state(device, level=5)
        owner.link(device, True)
    wait_until(lambda: known(live.values, "tank") == ({"level": 5}, [True]), 10, "all is heard")
    proxy.drop()
    owner.publish(f"tagwire/state/{owner.name}/gone", None, retain=True)
    owner.publish(f"tagwire/link/{owner.name}/gone", None, retain=True)
    owner.link("broken", False, "refused")
    wait_until(lambda: known(live.values, "broken") == ({"level": 5}, [False]), 10, "the link that broke")
    wait_until(lambda: known(live.values, "gone") == ({}, []), 10, "the device that is gone")
    assert known(live.values, "tank") == ({"level": 5}, [True])

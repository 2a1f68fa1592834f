"""Fixtures for every test: free ports, real brokers, and programs and devices at them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import processes
from tests.support.brokers import Broker, start_mosquitto, start_nats
from tests.support.bus_watch import BusWatch, watch_bus
from tests.support.fault_device import FaultDevice
from tests.support.field_plant import FieldPlant, build_field_plant
from tests.support.plant import Plant, build_plant

settings.register_profile("tagwire", deadline=None)  # the machine may be busy with other tests
settings.load_profile("tagwire")


@pytest.fixture
def free_port() -> int:
    """A TCP port of loopback that nobody used a moment ago."""
    return processes.free_port()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Broker]:
    """A real Mosquitto, persistent, open to anybody."""
    with start_mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Broker]:
    """The embedded broker as `tagwire up` configures it."""
    with start_nats(tmp_path / "nats") as broker:
        yield broker


@pytest.fixture
def quick_nats(tmp_path: Path) -> Iterator[Broker]:
    """The embedded broker, but what was not acknowledged it sends again after 2 s (Mosquitto: at once, at a new connection)."""
    with start_nats(tmp_path / "nats", ack_wait_s=2) as broker:
        yield broker


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Broker:
    """Mosquitto, or the one that `parametrize("broker", [...], indirect=True)` names."""
    found = request.getfixturevalue(getattr(request, "param", "mosquitto"))
    assert isinstance(found, Broker)
    return found


@pytest.fixture
def watch(broker: Broker) -> Iterator[BusWatch]:
    """Everything that is said on the bus."""
    with watch_bus(broker.port) as watching:
        yield watching


@pytest.fixture
async def device() -> AsyncIterator[FaultDevice]:
    """A Modbus device that can misbehave."""
    async with FaultDevice() as running:
        yield running


@pytest.fixture
async def plant(tmp_path: Path, broker: Broker) -> AsyncIterator[FieldPlant]:
    """A field server at the broker, not started yet."""
    async with build_field_plant(tmp_path, broker) as built:
        yield built


@pytest.fixture
async def gateway_plant(tmp_path: Path, broker: Broker) -> AsyncIterator[Plant]:
    """A gateway at the broker, not started yet."""
    async with build_plant(tmp_path, broker) as built:
        yield built

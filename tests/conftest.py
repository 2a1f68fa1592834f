"""Fixtures for every test: free ports and real brokers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.brokers import Broker, start_mosquitto, start_nats


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

"""Where the field server tells what it reads: the bus, or a test's notebook."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from scada.values import Sample


class Sink(Protocol):
    """Where the poller tells what it reads; never blocks, never raises."""

    def publish(self, device: str, samples: Sequence[Sample]) -> None:
        """New samples of a device, in order."""

    def link(self, device: str, online: bool, error: str | None) -> None:
        """Whether the device answers."""

    def plan(self, device: str, document: Mapping[str, Any] | None) -> None:
        """How the device is read."""

    def forget(self, device: str, tags: Iterable[str] | None = None) -> None:
        """The device is gone, or these tags of it: what was told of them is withdrawn."""

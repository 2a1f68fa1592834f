"""What an earlier run left on the bus of devices that were deleted or renamed while nobody ran: found once, and withdrawn."""

import asyncio
import logging
from collections.abc import Callable

from links.bus import Bus
from scada.topics import BusTopics

log = logging.getLogger(__name__)

LISTEN_S = 2.0
"""The broker sends what it has retained right after the subscription."""


class Leftovers:
    """Of `owner`. `knows(device)` says whether this run tells anything of a device."""

    def __init__(self, bus: Bus, topics: BusTopics, owner: str, knows: Callable[[str], bool]) -> None:
        self._bus = bus
        self._knows = knows
        self._filters = [topics.state(owner, "+"), topics.link(owner, "+"), topics.plan(owner, "+")]
        self._withdrawn: set[str] = set()

    async def clear(self) -> None:
        """Once the bus is online: withdraw what is retained of devices that nobody knows."""
        await self._bus.connected()
        # QoS 0: nothing of it may wait in the session for a later run.
        self._bus.subscribe(self._filters, self._on_message, qos=0)
        try:
            await asyncio.sleep(LISTEN_S)
        finally:
            self._bus.unsubscribe(self._filters)
        if self._withdrawn:
            log.info("withdrawn, as they are not configured any more: %s", ", ".join(sorted(self._withdrawn)))

    def _on_message(self, topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        device = topic.rpartition("/")[2]
        if retained and payload and not self._knows(device) and device not in self._withdrawn:
            self._withdrawn.add(device)
            self._bus.forget(device)

"""What stands on the bus from before: withdrawn where nobody is left to tell it, taken over where nobody could read it anew.

Devices are deleted and renamed while no field server runs; a broker that was killed may bring back what was emptied; and the
value of a setpoint that is never read is known to the broker only.
"""

import asyncio
import logging

from field_server.field import Field
from links.bus import Bus
from scada.bus_messages import decode_state
from scada.topics import BusTopics
from scada.values import BadValue

log = logging.getLogger(__name__)

LISTEN_S = 2.0
"""The broker sends what it has retained right after the subscription."""


class Leftovers:
    """Of `owner`, whose devices `field` knows."""

    def __init__(self, bus: Bus, topics: BusTopics, owner: str, field: Field) -> None:
        self._bus = bus
        self._field = field
        self._filters = [topics.state(owner, "+"), topics.link(owner, "+"), topics.plan(owner, "+")]
        self._state = topics.state(owner, "")
        self._withdrawn: set[str] = set()
        self._online = asyncio.Event()
        self._is_listening = False
        bus.watch(self._on_bus)
        self._listen()

    async def run(self) -> None:
        """Until cancelled: each time the bus has come online, look at what is retained."""
        while True:
            await self._online.wait()
            self._online.clear()
            await asyncio.sleep(LISTEN_S)
            self._is_listening = False
            self._bus.unsubscribe(self._filters)
            if self._withdrawn:
                log.info("withdrawn, as they are not configured any more: %s", ", ".join(sorted(self._withdrawn)))
                self._withdrawn.clear()

    def _on_bus(self, online: bool) -> None:
        if online:
            self._online.set()
        else:
            self._listen()

    def _listen(self) -> None:
        """Before the connection is there: so it is heard before anything of ours takes its place."""
        if not self._is_listening:
            self._is_listening = True
            # QoS 0: nothing of it may wait in the session for a later run.
            self._bus.subscribe(self._filters, self._on_message, qos=0)

    def _on_message(self, topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        device = topic.rpartition("/")[2]
        if not retained or not payload:
            return
        if not self._field.reads(device):
            if device not in self._withdrawn:
                self._withdrawn.add(device)
                self._bus.forget(device)
        elif topic.startswith(self._state):
            try:
                self._field.recall(device, decode_state(payload)[0])
            except BadValue as error:
                log.warning("the state of %s says nothing: %s", device, error)

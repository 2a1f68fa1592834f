"""What stands on the bus from before: withdrawn where nobody is left to tell it, taken over where nobody could hear it anew.

Devices and tags are deleted and renamed while their owner does not run; a broker that was killed may bring back what was
emptied; and the value of a setpoint that is never read is known to the broker only.
"""

import asyncio
import logging
from collections.abc import Callable, Collection

from links.bus import Bus
from scada.bus_messages import decode_state
from scada.topics import BusTopics
from scada.values import BadValue, Sample

log = logging.getLogger(__name__)

LISTEN_S = 2.0
"""The broker sends what it has retained right after the subscription."""

Told = Callable[[str], Collection[str] | None]
"""The tags that their owner tells of a device; None: the device is none of its own."""
Recall = Callable[[str, list[Sample]], None]
"""Takes the last state that an earlier run told of a device."""


class Leftovers:
    """Of one owner. To be made before the bus is started, and the bus to be started when the configuration is in force."""

    def __init__(self, bus: Bus, topics: BusTopics, owner: str, told: Told, recall: Recall | None = None) -> None:
        """`recall` is called on the first look only: afterwards nobody knows more than the owner itself."""
        self._bus = bus
        self._told = told
        self._recall = recall
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
            if not self._bus.online or self._online.is_set():
                continue  # the connection ended meanwhile, and the broker says all of it again with the next one
            self._is_listening = False
            self._bus.unsubscribe(self._filters)
            self._recall = None
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
        told = self._told(device)
        if told is None:
            if device not in self._withdrawn:
                self._withdrawn.add(device)
                self._bus.forget(device)
        elif topic.startswith(self._state):
            self._take_state(device, payload, told)

    def _take_state(self, device: str, payload: bytes, told: Collection[str]) -> None:
        try:
            samples, _ = decode_state(payload)
        except BadValue as error:
            log.warning("the state of %s says nothing: %s", device, error)
            return
        if self._recall is not None:
            self._recall(device, [sample for sample in samples if sample.tag in told])
        gone = [sample.tag for sample in samples if sample.tag not in told]
        if gone:
            self._bus.forget(device, gone)

"""What the gateway hears on the bus: changes and states of tags that it passes on, who is there, and its own last words."""

import asyncio
import logging

import orjson

from links.bus import Bus
from mqtt_server.commands import FindPlan, MqttCommands
from mqtt_server.feeds import Feeds
from mqtt_server.samples import Samples
from scada.bus_messages import decode_data, decode_state
from scada.topics import BusTopics
from scada.values import Sample

log = logging.getLogger(__name__)

LOOK_S = 0.5
ASKED_S = 3.0
"""So long after the bus is online every retained state has come; those that come later say what the changes say too."""


class Intake:
    """Subscribes to few, wide filters, and only to what is needed. Its methods are called in the loop of the bus."""

    def __init__(
        self,
        bus: Bus,
        topics: BusTopics,
        owner: str,
        find: FindPlan,
        parts: tuple[Samples, Feeds, MqttCommands],
    ) -> None:
        self._bus = bus
        self._topics = topics
        self._owner = owner
        self._find = find
        self._samples, self._feeds, self._commands = parts
        self._changes = [topics.data("+", "+")]
        self._servers = [topics.server("+")]
        self._states = [topics.state("+", "+")]
        self._follows: bool | None = None
        self._asked_s = -1.0

    def told(self, device: str) -> set[str] | None:
        """The tags of a device that we tell of: those heard, and those set over MQTT; None: there are none."""
        plan = self._find(device)
        names = set() if plan is None else {tag.name for tag in plan.tags} | plan.setpoints.keys()
        return names or None

    def recall(self, device: str, samples: list[Sample]) -> None:
        """What an earlier run has told of a device."""
        plan = self._find(device)
        if plan is not None:
            self._samples.recall(device, samples)
            self._commands.recall(plan, samples)

    def configure(self, ask: bool) -> None:
        """A new configuration is in force; `ask` for states: there are tags whose value is not known."""
        follows = bool(self._feeds)
        if follows != self._follows:
            self._follows = follows
            if follows:
                self._bus.subscribe(self._changes, self._on_data)
                self._bus.subscribe(self._servers, self._on_server, retained=True)
            else:  # an earlier run's session may still hold them
                self._bus.unsubscribe(self._changes + self._servers)
        if ask:
            if self._asked_s > 0:
                self._bus.ask_again(self._states)
            else:
                self._bus.subscribe(self._states, self._on_state, qos=0, retained=True)
            self._asked_s = ASKED_S

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            online = self._bus.online
            self._feeds.bus(online)
            if online and self._asked_s > 0:
                self._asked_s -= LOOK_S
                if self._asked_s <= 0:
                    self._bus.unsubscribe(self._states)

    def _on_data(self, topic: str, payload: bytes, _retained: bool, repeat: bool) -> None:
        parts = self._topics.split(topic)
        if parts is None or parts.owner == self._owner or not self._feeds.feeds(parts.device):
            return
        samples, faults = decode_data(payload)
        for fault in faults:
            log.warning("%s: %s", topic, fault)
        self._feeds.take(parts.owner, parts.device, samples, repeat=repeat, is_state=False)

    def _on_state(self, topic: str, payload: bytes, _retained: bool, _repeat: bool) -> None:
        parts = self._topics.split(topic)
        if parts is None or not payload:
            return
        if parts.owner == self._owner or not self._feeds.feeds(parts.device):
            return
        samples, _ = decode_state(payload)
        self._feeds.take(parts.owner, parts.device, samples, repeat=False, is_state=True)

    def _on_server(self, topic: str, payload: bytes, _retained: bool, _repeat: bool) -> None:
        parts = self._topics.split(topic)
        if parts is None or not payload:
            return
        report = orjson.loads(payload)
        if isinstance(report, dict) and isinstance(report.get("online"), bool):
            self._feeds.owner(parts.owner, report["online"])

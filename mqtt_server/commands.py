"""Carries out commands for tags that are set by a message: it is sent, and the broker's acknowledgement is the end of it."""

import time
from collections.abc import Callable, Iterable

import orjson

from links.command_desk import Report
from links.mqtt import MqttLink
from mqtt_server.samples import Samples, Sink
from scada.commands import Call, Command, CommandState
from scada.config import DeviceConfig
from scada.errors import ConfigError
from scada.mapping import DevicePlan
from scada.outputs import compose
from scada.values import Quality, Sample, Value

FindPlan = Callable[[str], DevicePlan | None]
OnSet = Callable[[str, list[Sample]], None]


class MqttCommands:
    """The gateway behind its command desk (`links.command_desk.Performer`)."""

    def __init__(self, find: FindPlan, link: MqttLink, sink: Sink, samples: Samples, on_set: OnSet) -> None:
        """`on_set(device, samples)` is told what was set, for other bindings of the tags."""
        self._find = find
        self._link = link
        self._sink = sink
        self._samples = samples
        self._on_set = on_set
        self._told: dict[str, dict[str, Sample]] = {}

    def device(self, name: str) -> DeviceConfig | None:
        """The configuration of a device that the gateway has a part in."""
        plan = self._find(name)
        return None if plan is None else plan.config

    def is_mine(self, owner: str) -> bool:
        """Tags that are read from MQTT (to say that they are read only), and those that are set over MQTT."""
        return owner == "mqtt_server"

    def last_value(self, device: str, tag: str) -> Value | None:
        """The value told last."""
        sample = self._told.get(device, {}).get(tag) or self._samples.told(device).get(tag)
        return None if sample is None else sample.value

    async def carry_out(self, command: Command, report: Report, seconds: float) -> None:
        """One message with all values."""
        plan = self._find(command.device)
        if plan is None:
            raise ConfigError(f"device {command.device!r} was taken out of the configuration")
        values = {}
        for name, value in command.values.items():
            publication = plan.setpoints.get(name)
            if publication is None:
                raise ConfigError(f"{command.device}@{name} is not set over MQTT")
            values[publication.keys] = publication.encode(value)
        if not report(CommandState.SENT):
            return
        payload = orjson.dumps(compose(values))
        await self._link.publish(plan.out_topic, payload, retain=plan.out_retain, timeout_s=seconds)
        time_ms = time.time_ns() // 1_000_000
        samples = [Sample(name, value, Quality.GOOD, time_ms) for name, value in command.values.items()]
        self._tell(command.device, samples)
        self._on_set(command.device, samples)
        report(CommandState.ACKNOWLEDGED, final=True)

    async def read(self, call: Call) -> tuple[Sample, ...]:
        """What was heard or set last: a device that speaks MQTT cannot be asked."""
        told = self._samples.told(call.device) | self._told.get(call.device, {})
        found = tuple(told[tag] for tag in call.tags or told if tag in told)
        if not found:
            names = ", ".join(call.tags) or call.device
            raise ConfigError(f"{names}: nothing was heard or set yet, and a device cannot be asked over MQTT")
        return found

    def recall(self, plan: DevicePlan, samples: Iterable[Sample]) -> None:
        """What an earlier run has set."""
        known = self._told.get(plan.name, {})
        self._tell(plan.name, [each for each in samples if each.tag in plan.setpoints and each.tag not in known])

    def forget(self, device: str, kept: Iterable[str] = ()) -> None:
        """Tags of a device that are gone: all but `kept`."""
        told = self._told.get(device, {})
        gone = told.keys() - set(kept)
        if gone:
            self._told[device] = {tag: sample for tag, sample in told.items() if tag not in gone}
            self._sink.forget(device, gone)

    def _tell(self, device: str, samples: list[Sample]) -> None:
        if samples:
            self._told.setdefault(device, {}).update((sample.tag, sample) for sample in samples)
            self._sink.publish(device, samples)

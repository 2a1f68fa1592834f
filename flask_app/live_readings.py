"""Values as the API shows them: the last sample of a tag, and how good it can be by what is known of its owner and link."""

from collections.abc import Iterable, Mapping
from typing import Any

from flask_app.live import Live
from scada.registry import PROTOCOLS
from scada.values import Quality, Reason, Sample

_ORDER = list(PROTOCOLS)
_MISSING = Sample("", None, Quality.BAD, 0, Reason.NOT_CONNECTED)


class Readings:
    """The values of the tags of some devices, at this moment. `devices`: name and whether it is enabled, by id."""

    def __init__(self, live: Live, devices: Mapping[int, tuple[str, bool]]) -> None:
        self._live = live
        self._devices = devices
        self._online = live.online
        self._samples: dict[str, dict[str, dict[str, Sample]]] = {}
        self._unreachable: dict[str, set[str]] = {}

    def document(self, tag: Mapping[str, Any]) -> dict[str, Any]:
        """A stored tag's value; `time_ms` is null before the first sample."""
        device, enabled = self._devices.get(tag["device_id"], ("", False))
        sample = self._judged(device, tag) if enabled else _MISSING
        return reading(tag["id"], device, tag["name"], sample)

    def _judged(self, device: str, tag: Mapping[str, Any]) -> Sample:
        if device not in self._samples:
            self._samples[device] = self._live.values.samples(device)
            self._unreachable[device] = {
                each.owner for each in self._live.values.links(device) if not each.report.online
            }
        found = [
            (owner, samples[tag["name"]])
            for owner, samples in self._samples[device].items()
            if tag["name"] in samples and is_of(owner, source_owner(tag["bindings"]))
        ]
        if not found:
            return _MISSING
        # Two only while a tag moves from one copy of a program to another.
        known = self._live.values
        owner, sample = max(found, key=lambda each: (known.is_running(each[0]) is True, each[1].time_ms))
        if not self._online or known.is_running(owner) is False:
            return sample._replace(quality=Quality.BAD, reason=Reason.NOT_CONNECTED)
        if owner in self._unreachable[device] and sample.quality is not Quality.BAD:
            return sample._replace(quality=Quality.BAD, reason=Reason.COMM_FAILURE)
        if sample.quality is Quality.GOOD and known.is_silent(owner):
            return sample._replace(quality=Quality.UNCERTAIN, reason=Reason.STALE)
        return sample


def reading(tag_id: int, device: str, tag: str, sample: Sample) -> dict[str, Any]:
    """A sample as the API shows it."""
    return {
        "tag": tag_id,
        "name": f"{device}@{tag}",
        "value": sample.value,
        "quality": sample.quality.value,
        "reason": sample.reason.value,
        "time_ms": sample.time_ms or None,
    }


def source_owner(bindings: Iterable[Mapping[str, Any]]) -> str:
    """The program that publishes a tag with these bindings; "" when it has none."""
    bindings = sorted(bindings, key=lambda each: _ORDER.index(each["protocol"]))
    source = next((each for each in bindings if each["direction"] != "out"), bindings[0] if bindings else None)
    return "" if source is None else PROTOCOLS[source["protocol"]].owner


def is_of(owner: str, program: str) -> bool:
    """Whether an owner on the bus is a program or one of its copies (`mqtt_server-2of8`); any is, of a tag without bindings."""
    return not program or owner == program or owner.startswith(f"{program}-")

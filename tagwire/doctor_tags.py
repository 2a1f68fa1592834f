"""The doctor on tags: bad for long, from the future, never heard of. Pure."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from scada.config import DeviceConfig, Direction
from scada.protocols.mqtt import MqttNetwork
from scada.values import Quality, Reason
from tagwire.doctor_broker import BusFacts
from tagwire.doctor_findings import Finding, ago, fault, first_few, ok, warning

CHECK = "tags"
LONG_MS = 60_000
SKEW_MS = 5_000
_ADVICE = {
    Reason.CONFIG_ERROR: "The device does not have it so: correct address, type or table",
    Reason.OUT_OF_RANGE: "See the limits, scaling and type of the tag, and the sensor",
    Reason.STALE: "Its source is silent",
}


def check_tags(facts: BusFacts, devices: Sequence[DeviceConfig], offline: Collection[str]) -> list[Finding]:
    """Findings on samples; `offline` devices have theirs already."""
    findings = [*_bad(facts, offline), *_skewed(facts), *_unheard(facts, devices, offline)]
    return findings or [ok(CHECK, "", f"{len(facts.samples):,} tags have values, none is bad for long")]


def _bad(facts: BusFacts, offline: Collection[str]) -> list[Finding]:
    groups: dict[tuple[str, Reason], list[tuple[str, int]]] = defaultdict(list)
    for name, sample in facts.samples.items():
        device = name.partition("@")[0]
        if sample.quality is Quality.BAD and device not in offline:
            groups[device, sample.reason].append((name, sample.time_ms))
    findings = []
    for (_, reason), tags in groups.items():
        oldest = min(time_ms for _, time_ms in tags)
        is_long = facts.heard_ms - oldest >= LONG_MS
        # What the device does not have will not come by waiting.
        make = fault if is_long or reason is Reason.CONFIG_ERROR else warning
        what = "is bad" if len(tags) == 1 else f"({len(tags):,} tags) are bad"
        message = f"{what} ({reason or 'no reason given'}) since {ago(oldest, facts.heard_ms)}"
        findings.append(make(CHECK, first_few([name for name, _ in tags]), message, _ADVICE.get(reason, "")))
    return findings


def _skewed(facts: BusFacts) -> list[Finding]:
    """A clock that is behind cannot be told from values that are old."""
    ahead: dict[str, tuple[int, str]] = {}
    for name, sample in facts.samples.items():
        device = name.partition("@")[0]
        by_ms = sample.time_ms - facts.heard_ms
        if by_ms > SKEW_MS and by_ms > ahead.get(device, (0, ""))[0]:
            ahead[device] = by_ms, name
    advice = "Set the clocks: of the device, where it sends times of its own, else of the computers (this one's too)"
    return [
        fault("clock", name, f"its time is {by_ms / 1000:,.0f} s ahead of this computer's clock", advice)
        for by_ms, name in ahead.values()
    ]


def _unheard(facts: BusFacts, devices: Sequence[DeviceConfig], offline: Collection[str]) -> list[Finding]:
    if not any(owner.startswith("mqtt_server") and online for owner, online in facts.servers.items()):
        return []
    findings = []
    for device in devices:
        network = device.networks.get("mqtt")
        is_source = any(
            binding.protocol == "mqtt" and binding.direction is not Direction.OUT
            for tag in device.tags
            for binding in tag.bindings
        )
        if is_source and isinstance(network, MqttNetwork) and device.name not in facts.state_devices | set(offline):
            message = f"nothing was ever heard of it on topic {network.topic}"
            advice = "See whether it publishes, and there; what cannot be used is at /api/v1/rejects"
            findings.append(warning("devices", device.name, message, advice))
    return findings

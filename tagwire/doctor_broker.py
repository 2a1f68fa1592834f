"""The doctor on the broker: reached, lets us in, passes messages on; and what it holds of the bus."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import time_ns

from links.environment import MqttSettings
from scada.bus_messages import LinkReport, decode_counters, decode_link
from scada.errors import LinkError
from scada.topics import BusTopics
from scada.values import BadValue, Sample
from tagwire.bus_visit import BusVisit, reach
from tagwire.console_reading import document_of
from tagwire.console_values import picture
from tagwire.doctor_findings import Finding, fault, ok, warning

CHECK = "broker"
WINDOW = 50
"""What the embedded broker allows a subscription; Mosquitto's own 20 slows the gateway down."""
_WINDOW_S = 1.0
_SLOW_S = 0.5


@dataclass(frozen=True, slots=True)
class BusFacts:
    """What the bus tells. `servers` by owner; `links` by owner and device; `samples` by full name.

    `instances`: by owner, the programs whose heartbeats were heard under that name; `changes`: how often each owner's presence
    changed meanwhile. `heard_ms`: the clock when the samples were fetched. `counters`: by owner, those in its last heartbeat.
    """

    servers: Mapping[str, bool]
    links: Mapping[tuple[str, str], LinkReport]
    samples: Mapping[str, Sample]
    state_devices: frozenset[str]
    instances: Mapping[str, set[bytes]] = field(default_factory=dict)
    changes: Mapping[str, int] = field(default_factory=dict)
    heard_ms: int = 0
    counters: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def link_of(self, device: str, program: str) -> tuple[str, LinkReport] | None:
        """What a program (any shard of it) tells of a device, by whom: the newest report of one that is there, else of any."""
        reports = [
            (owner, report)
            for (owner, name), report in self.links.items()
            if name == device and owner.split("-")[0] == program
        ]
        reports.sort(key=lambda each: (self.servers.get(each[0], False), each[1].since_ms))
        return reports[-1] if reports else None


async def check_broker(settings: MqttSettings, root: str, listen_s: float) -> tuple[BusFacts | None, list[Finding]]:
    """What the bus tells, None when it cannot be read, and what is wrong with the broker."""
    where = f"{settings.host}:{settings.port}"
    try:
        await reach(settings.host, settings.port)
    except LinkError as error:
        advice = "Start it (`tagwire up`, or your own), or correct MQTT_HOST and MQTT_PORT"
        return None, [fault(CHECK, where, str(error), advice)]
    try:
        visit = BusVisit(settings, BusTopics(root), "doctor")
    except OSError as error:
        return None, [fault(CHECK, "MQTT_TLS_CA", f"or MQTT_TLS_CERT cannot be used: {error}")]
    visit.start()
    try:
        try:
            await visit.connected()
        except LinkError as error:
            text = str(error).removeprefix(f"{visit.where}: ")
            return None, [fault(CHECK, where, text, _advice(text, settings))]
        try:
            return await _look(visit, where, listen_s)
        except LinkError as error:
            advice = f"The user that the programs use must be allowed to read and write {root}/#"
            return None, [fault(CHECK, where, str(error).removeprefix(f"{visit.where}: "), advice)]
    finally:
        await visit.close()


def _advice(text: str, settings: MqttSettings) -> str:
    if "uthori" in text or "password" in text.lower():
        user = f"user {settings.username!r}" if settings.username else "no user name is set"
        return f"Correct MQTT_USERNAME and MQTT_PASSWORD ({user})"
    if "CONNACK" in text or "onnection" in text:
        return "What listens there does not speak MQTT as it is set up (MQTT_PROTOCOL, MQTT_TLS), or hangs"
    if "certificate" in text.lower() or "ssl" in text.lower():
        return "Correct MQTT_TLS_CA; the name in MQTT_HOST must be one in the broker's certificate"
    return "See the broker's log"


async def _look(visit: BusVisit, where: str, listen_s: float) -> tuple[BusFacts, list[Finding]]:
    findings: list[Finding] = []
    topics = visit.topics
    took_s = await visit.round_trip()
    if took_s > _SLOW_S:
        findings.append(
            warning(CHECK, where, f"a message takes {took_s:.1f} s there and back", "See what keeps it busy")
        )
    window = await visit.window(WINDOW, _WINDOW_S)
    if window < WINDOW:
        advice = "Mosquitto: max_inflight_messages 0 (docs/mosquitto.md)"
        message = (
            f"gives a program only {window} messages before it wants one acknowledged, which slows the gateway down"
        )
        findings.append(warning(CHECK, f"{where} max_inflight", message, advice))
    kinds = ("server", "state", "link", "set", "call")
    held = await visit.retained(f"{topics.root}/{kind}/+{'/+' if kind in ('state', 'link') else ''}" for kind in kinds)
    heard_ms = time_ns() // 1_000_000
    servers: dict[str, bool] = {}
    links: dict[tuple[str, str], LinkReport] = {}
    for topic, payload in held.items():
        parts = topics.split(topic)
        if parts is None:
            continue
        if parts.kind == "server":
            servers[parts.owner] = document_of(payload).get("online") is True
        elif parts.kind == "link":
            try:
                links[parts.owner, parts.device] = decode_link(payload)
            except BadValue as error:
                findings.append(fault("bus", topic, f"is no link message: {error}"))
        elif parts.kind in ("set", "call"):
            message = "holds a retained command; programs refuse it, anything else that listens there would act again and again"
            findings.append(fault("commands", topic, message, f"Clear it: tagwire publish {topic} '' --retain"))
    samples, wrong = picture(topics, held)
    findings += (fault("bus", "", f"not understood: {each}") for each in wrong)
    devices = frozenset(parts.device for topic in held if (parts := topics.split(topic)) and parts.kind == "state")
    instances, changes, counters = await _listen(visit, listen_s)
    facts = BusFacts(servers, links, samples, devices, instances, changes, heard_ms, counters)
    return facts, findings or [ok(CHECK, where, f"passes messages on within {1000 * took_s:.0f} ms")]


async def _listen(
    visit: BusVisit, listen_s: float
) -> tuple[dict[str, set[bytes]], dict[str, int], dict[str, Mapping[str, int]]]:
    """Who is there under which name, and what it counts: each program sends a heartbeat every 3 s."""
    counters: dict[str, Mapping[str, int]] = {}
    instances: dict[str, set[bytes]] = defaultdict(set)
    changes: dict[str, int] = defaultdict(int)

    def heard(kind: str) -> Callable[[str, bytes, bool, bool], None]:
        def take(topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
            parts = visit.topics.split(topic)
            if parts is None or retained:
                return
            if kind == "heartbeat":
                instances[parts.owner].add(payload.partition(b" ")[0])
                if (counted := decode_counters(payload)) is not None:
                    counters[parts.owner] = counted
            else:
                changes[parts.owner] += 1

        return take

    for kind, topic in (("heartbeat", visit.topics.heartbeat("+")), ("server", visit.topics.server("+"))):
        visit.follow([topic], heard(kind))
    await visit.round_trip()
    await asyncio.sleep(listen_s)
    return dict(instances), dict(changes), counters

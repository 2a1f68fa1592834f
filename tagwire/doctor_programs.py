"""The doctor on programs: which should be there and are not, and which are there twice. Pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from scada.config import DeviceConfig, Direction
from scada.registry import PROTOCOLS
from tagwire.doctor_broker import BusFacts
from tagwire.doctor_findings import Finding, Level, fault, ok, warning

CHECK = "programs"
_ON_THE_WAY = 1_000
"""Fewer samples than this that wait are those of the last milliseconds, in a plant that changes a lot."""
_SHARD = re.compile(r"(.+)-([0-9]+)of([0-9]+)")


def check_programs(facts: BusFacts, devices: Sequence[DeviceConfig]) -> list[Finding]:
    """What the bus tells of programs, against what the configuration needs."""
    findings = []
    needs = _needs(devices)
    owners: dict[str, list[str]] = defaultdict(list)
    for owner in facts.servers:
        owners[_program(owner)].append(owner)
    for program in sorted({*owners, *needs}):
        present = [owner for owner in owners[program] if facts.servers[owner]]
        need = needs.get(program, "")
        if not present:
            state = "is offline: it was stopped, or it died" if owners[program] else "has never been on this bus"
            if need:
                message = f"{state}; {need} need it"
                findings.append(fault(CHECK, program, message, f"Start it: tagwire up --only {program}; see its log"))
            else:
                findings.append(warning(CHECK, program, state))
        else:
            findings += _shards(program, present)
    for owner, instances in facts.instances.items():
        if len(instances) > 1 and owner in facts.servers:
            message = f"{len(instances)} programs call themselves so and do everything twice"
            findings.append(fault(CHECK, owner, message, "Stop all but one, or share the devices by TAGWIRE_SHARD"))
    for owner, count in facts.changes.items():
        if count > 1 and len(facts.instances.get(owner, ())) < 2:
            message = f"came and went {count} times while we listened: it restarts, or two use one client id"
            findings.append(fault(CHECK, owner, message, "See its log; stop all but one"))
    for owner, counters in sorted(facts.counters.items()):
        findings += _counted(owner, counters)
    online = sorted(owner for owner, is_online in facts.servers.items() if is_online)
    if all(finding.level is Level.OK for finding in findings):
        findings.append(ok(CHECK, "", f"online: {', '.join(online) or 'none'}"))
    return findings


def _counted(owner: str, counters: Mapping[str, int]) -> list[Finding]:
    """What a program's heartbeat says of its samples, where that is something to know about."""
    findings = []
    if counters["dropped"]:
        message = (
            f"{counters['dropped']:,} samples are lost since it was started: its buffer was full, or the disk failed"
        )
        advice = "See its log for when; TAGWIRE_BUS_BUFFER_ROWS is how many are kept while there is no broker"
        findings.append(warning(CHECK, owner, message, advice))
    if counters["poisoned"]:
        message = f"{counters['poisoned']:,} messages could not be dealt with since it was started"
        findings.append(warning(CHECK, owner, message, "See its log for which"))
    if counters["buffered"]:
        message = f"{counters['buffered']:,} samples wait to be sent to the broker"
        advice = (
            "Run this again: if it does not get less, the broker is too slow for them, or refuses them; see its log"
        )
        few = counters["buffered"] < _ON_THE_WAY
        findings.append(ok(CHECK, owner, message) if few else warning(CHECK, owner, message, advice))
    return findings


def _needs(devices: Sequence[DeviceConfig]) -> dict[str, str]:
    """By program, what of the configuration needs it, for people."""
    counts: Counter[tuple[str, str]] = Counter()
    for device in devices:
        for tag in device.tags:
            for binding in tag.bindings:
                # Values that come by MQTT go on to Modbus in the gateway itself.
                is_sink = binding.protocol == "modbus" and binding.direction is Direction.OUT
                if not (is_sink and any(each.protocol == "mqtt" for each in tag.bindings)):
                    counts[PROTOCOLS[binding.protocol].owner, binding.protocol] += 1
    needs: dict[str, str] = {}
    for (program, protocol), count in counts.items():
        text = f"{count:,} bindings of protocol {protocol}"
        needs[program] = f"{needs[program]} and {text}" if program in needs else text
    return needs


def _shards(program: str, present: Sequence[str]) -> list[Finding]:
    shards = [found for owner in present if (found := _SHARD.fullmatch(owner))]
    if not shards:
        return []
    counts = {int(found[3]) for found in shards}
    if len(shards) < len(present) or len(counts) > 1:
        message = f"is there as {', '.join(sorted(present))}: devices belong to two of them"
        return [fault(CHECK, program, message, "Give all of them the same TAGWIRE_SHARD count, and stop the others")]
    (count,) = counts
    missing = sorted(set(range(1, count + 1)) - {int(found[2]) for found in shards})
    if not missing:
        return []
    names = ", ".join(f"{number}/{count}" for number in missing)
    return [
        fault(CHECK, program, f"shard {names} is not there: its devices have no program", "Start it (TAGWIRE_SHARD)")
    ]


def _program(owner: str) -> str:
    found = _SHARD.fullmatch(owner)
    return found[1] if found else owner

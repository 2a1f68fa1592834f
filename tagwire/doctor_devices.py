"""The doctor on devices: what programs tell of their links, and, where they tell nothing good, one careful look of our own.

A device whose program reaches it is left alone: some allow one connection only. A serial line is looked at, not opened.
"""

import asyncio
import dataclasses
import os
import stat
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from time import time_ns

from links.modbus_client import ModbusClient
from scada.config import DeviceConfig, Direction
from scada.errors import DeviceRefused, LinkError, ProtocolError
from scada.modbus.endpoint import Endpoint, Transport
from scada.modbus.limits import Table
from scada.modbus.registers import codec
from scada.protocols.modbus import ModbusAddress, ModbusNetwork
from scada.registry import PROTOCOLS
from tagwire.bus_visit import reach
from tagwire.doctor_broker import BusFacts
from tagwire.doctor_findings import Finding, ago, fault, first_few, ok

CHECK = "devices"
REACHED = ""
AT_ONCE = 16
PATIENCE_S = 30.0
"""For all looks together: what has not had its turn by then is said not to have been looked at."""
MOST_S = 3.0
"""For one step of one look, whatever the device's own patience."""
_STREAMS = frozenset({Transport.TCP, Transport.TLS, Transport.RTU_OVER_TCP})
_MEANINGS = {
    1: "does not know this function: another table?",
    2: "has no such address",
    3: "does not take this quantity",
    4: "has failed internally",
    6: "is busy",
    10: "is a gateway without a way to this unit: its configuration, or the unit id",
    11: "is a gateway whose unit does not answer: switched off, or another unit id?",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """One device to be looked at: one unit of it, one place to read."""

    device: str
    told: str
    unit_id: int
    table: Table
    address: int
    count: int
    is_read: bool
    """A program reads there. What is only written may refuse to be read."""


async def check_devices(facts: BusFacts | None, devices: Sequence[DeviceConfig]) -> tuple[list[Finding], set[str]]:
    """Findings, and the names of the devices that cannot be reached."""
    now_ms = time_ns() // 1_000_000
    findings: list[Finding] = []
    online: list[str] = []
    looks: dict[Endpoint, list[Look]] = defaultdict(list)
    for device in devices:
        told = {protocol: _told_by(facts, device, protocol, now_ms) for protocol in device.networks}
        look = _look_at(device, told.get("modbus") or "")
        network = device.networks.get("modbus")
        if look is not None and isinstance(network, ModbusNetwork) and told.get("modbus") is not REACHED:
            looks[network.endpoint].append(look)
            told["modbus"] = None
        findings += (fault(CHECK, device.name, text) for text in told.values() if text)
        if REACHED in told.values():
            online.append(device.name)
    findings += _unconfigured(facts, devices, now_ms)
    if online:
        findings.append(ok(CHECK, first_few(online), "reached by their programs" if len(online) > 1 else "reached"))
    findings += await _look_at_all(looks)
    return findings, {finding.where.partition(" ")[0] for finding in findings if finding.level == "FAULT"}


def _told_by(facts: BusFacts | None, device: DeviceConfig, protocol: str, now_ms: int) -> str | None:
    """What the program that speaks a protocol tells of the device: REACHED, why not, or None for nothing."""
    program = PROTOCOLS[protocol].owner
    if protocol == "modbus" and not _is_polled(device):
        return None  # the gateway writes there, and tells only of the other side
    link = facts.link_of(device.name, program) if facts is not None else None
    if link is None or facts is None:
        return None
    owner, report = link
    if report.online:
        return REACHED if facts.servers.get(owner, False) else None
    return f"{owner}: offline since {ago(report.since_ms, now_ms)}: {report.error or 'no reason given'}"


def _is_polled(device: DeviceConfig) -> bool:
    """Whether field_server has to do with its Modbus side: anything that does not come by MQTT."""
    return any(
        binding.protocol == "modbus" and not any(each.protocol == "mqtt" for each in tag.bindings)
        for tag in device.tags
        for binding in tag.bindings
    )


def _unconfigured(facts: BusFacts | None, devices: Sequence[DeviceConfig], now_ms: int) -> list[Finding]:
    """Without the configuration there is what programs say."""
    if facts is None or devices:
        return []
    return [
        fault(
            CHECK, device, f"{owner}: offline since {ago(report.since_ms, now_ms)}: {report.error or 'no reason given'}"
        )
        for (owner, device), report in facts.links.items()
        if not report.online
    ]


def _look_at(device: DeviceConfig, told: str) -> Look | None:
    """Where to look: preferably where a program reads."""
    looks = [
        Look(
            device.name, told, address.unit_id or 0, address.table, address.register, _size(address),
            binding.direction is not Direction.OUT,
        )
        for tag in device.tags
        for binding in tag.bindings
        if binding.protocol == "modbus" and isinstance(address := binding.address, ModbusAddress)
    ]  # fmt: skip
    return max(looks, key=lambda look: look.is_read) if looks else None


def _size(address: ModbusAddress) -> int:
    return (
        1
        if address.table.is_bits
        else codec(address.type, address.order, length=address.length, bit=address.bit).registers
    )


async def _look_at_all(looks: dict[Endpoint, list[Look]]) -> list[Finding]:
    turns = asyncio.Semaphore(AT_ONCE)
    findings: list[Finding] = []
    unseen = {look.device for group in looks.values() for look in group}

    async def examine(endpoint: Endpoint, group: list[Look]) -> None:
        async with turns:
            found = await _examine(endpoint, group)
        findings.extend(found)
        unseen.difference_update(look.device for look in group)

    try:
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
            for endpoint, group in looks.items():
                tasks.create_task(examine(endpoint, group), name=f"look at {endpoint}")
    except TimeoutError:
        names = first_few(sorted(unseen))
        findings.append(
            fault(CHECK, names, f"not looked at: the others took more than {PATIENCE_S:g} s, most are silent")
        )
    return findings


async def _examine(endpoint: Endpoint, group: list[Look]) -> list[Finding]:
    quick = dataclasses.replace(
        endpoint, timeout_s=min(endpoint.timeout_s, MOST_S), connect_timeout_s=min(endpoint.connect_timeout_s, MOST_S)
    )
    if endpoint.transport is Transport.SERIAL:
        reason, advice = _serial_line(endpoint.serial_port)
        if reason:
            return [_told(look, f"{endpoint}: {reason}", advice) for look in group]
        # Somebody may be using the line: it is not opened.
        return [fault(CHECK, look.device, look.told, "The device file is in order: see cable, power and line settings")
                if look.told else ok(CHECK, look.device, f"{endpoint} is there; it was not opened")
                for look in group]  # fmt: skip
    if endpoint.transport in _STREAMS:
        try:
            await reach(endpoint.host, endpoint.port, quick.connect_timeout_s)
        except LinkError as error:
            advice = (
                "See address, cable, power and firewall"
                if "known" not in str(error)
                else "Correct the host name, or DNS"
            )
            return [_told(look, f"{endpoint}: {error}", advice) for look in group]
    client = ModbusClient(quick)
    return [await _ask(client, look, endpoint) for look in group]


async def _ask(client: ModbusClient, look: Look, endpoint: Endpoint) -> Finding:
    """One request. No tries: what a device does not answer now is what an operator has to know."""
    place = f"{endpoint} unit {look.unit_id}"
    try:
        await client.connect()
        await client.read(look.unit_id, look.table, look.address, look.count)
    except DeviceRefused as error:
        meaning = _MEANINGS.get(error.code, "has refused")
        if look.is_read or error.code not in (1, 2, 3):
            text = f"{place} refuses {look.table} {look.address} with exception {error.code}: it {meaning}"
            return _told(
                look, text, "Correct table, address or unit id of its tags" if error.code < 4 else "See the device"
            )
    except ProtocolError as error:
        unit = (
            "answers for another unit: wrong unit id"
            if "reply of unit" in str(error)
            else "does not speak Modbus properly"
        )
        return _told(look, f"{place} {unit} ({error})", "Correct unit id and transport")
    except LinkError as error:
        if "no connection" in str(error):
            return _told(look, str(error), "See address, cable, power and firewall")
        text = f"{place} is connected, but does not answer: {error}"
        return _told(look, text, "Correct the unit id, or see whether the device is on")
    finally:
        await client.close()
    if look.told:
        return fault(CHECK, look.device, look.told, "It answers now: see whether that stays so, and the program's log")
    return ok(CHECK, look.device, f"{place} answers")


def _told(look: Look, text: str, advice: str) -> Finding:
    return fault(CHECK, look.device, f"{text} ({look.told})" if look.told else text, advice)


def _serial_line(name: str) -> tuple[str, str]:
    """What is wrong with a device file, and what to do about it."""
    path = Path(name)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return (
            f"{name}: {error.strerror}",
            "Plug the adapter in, or correct serial_port; /dev/serial/by-id has names that stay",
        )
    if not stat.S_ISCHR(mode):
        return f"{name} is no serial line", "Correct serial_port"
    if not os.access(path, os.R_OK | os.W_OK):
        return f"{name}: this user may not use it", "Add the programs' user to its group (dialout)"
    return "", ""

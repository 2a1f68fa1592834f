"""The doctor on the configuration: parts that programs leave out, and tags that write over one another. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from scada.config import BindingConfig, DeviceConfig, Direction
from scada.modbus.registers import codec
from scada.protocols.mailbox import MailboxAddress
from scada.protocols.modbus import ModbusAddress, ModbusNetwork
from tagwire.doctor_findings import Finding, fault, first_few, ok

CHECK = "config"


class _Place(NamedTuple):
    """Where a tag is written: addresses from `first` to before `end`, or one bit of a register."""

    first: int
    end: int
    bit: int | None
    name: str


def check_config(devices: Sequence[DeviceConfig]) -> list[Finding]:
    """One finding for each fault of a device, and for each pair of tags on the same registers."""
    findings = [
        fault(CHECK, f"{device.name} {each.field}", f"{each.message}; programs leave it out", "Correct it over REST")
        for device in devices
        for each in device.faults
    ]
    findings += _overlaps(devices)
    tags = sum(len(device.tags) for device in devices)
    return findings or [ok(CHECK, "", f"{len(devices):,} devices, {tags:,} tags")]


def _overlaps(devices: Sequence[DeviceConfig]) -> Iterator[Finding]:
    places: dict[tuple[object, ...], list[_Place]] = defaultdict(list)
    for device in devices:
        for tag in device.tags:
            for binding in tag.bindings:
                if binding.direction is not Direction.IN and (found := _place(device, binding, tag.name)) is not None:
                    places[found[0]].append(found[1])
    for key, group in places.items():
        group.sort(key=lambda place: (place.first, place.end))
        reported = 0
        for index, one in enumerate(group):
            others = []
            for other in group[index + 1 :]:
                if other.first >= one.end:
                    break
                if one.bit is None or other.bit is None or one.bit == other.bit:
                    others.append(other)
            if others and reported < 10:
                reported += 1
                names = first_few([other.name for other in others])
                where = f"{key[0]} unit {key[-2]} {key[-1]} {others[0].first}"
                yield fault(
                    CHECK, where, f"is written by {one.name} and by {names}", "Give one of them another register"
                )


def _place(device: DeviceConfig, binding: BindingConfig, tag: str) -> tuple[tuple[object, ...], _Place] | None:
    network, address = device.networks.get(binding.protocol), binding.address
    if isinstance(network, ModbusNetwork) and isinstance(address, ModbusAddress):
        endpoint: tuple[object, ...] = (str(network.endpoint), *network.endpoint.address)
    elif isinstance(address, MailboxAddress):
        endpoint = ("our Modbus server",)
    else:
        return None
    count = 1
    if not address.table.is_bits:
        count = codec(address.type, address.order, length=address.length, bit=address.bit).registers
    place = _Place(address.register, address.register + count, address.bit, f"{device.name}@{tag}")
    return (*endpoint, address.unit_id, str(address.table)), place

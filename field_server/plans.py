"""What a device's configuration means for this program: its tags to read, link by link. Pure."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from drivers.contract import Driver, Point
from field_server.samples import Source
from scada.config import BindingConfig, DeviceConfig, Direction, ScanClass, TagConfig
from scada.conversion import compile_engineering, compile_limits
from scada.errors import Fault


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What of a device stands behind one link. `sources` are the tags that are read."""

    device_id: int
    device: str
    driver: Driver
    key: Hashable
    network: Any
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True, eq=False)
class DevicePlan:
    """A device as this program sees it, without parts when it speaks no protocol of ours.

    `faults` are the parts of its configuration that were left out.
    """

    device_id: int
    name: str
    revision: int
    config: DeviceConfig
    parts: tuple[Part, ...]
    faults: tuple[Fault, ...]


def compile_device(
    device: DeviceConfig, drivers: Mapping[str, Driver], periods_ms: Mapping[ScanClass, int]
) -> DevicePlan:
    """The plan of a device. Those of other programs have one too: who knows every device can say that one does not exist."""
    parts = []
    for protocol, network in device.networks.items():
        driver = drivers.get(protocol)
        if driver is None:
            continue
        sources = [
            _source(tag, binding, network, driver, periods_ms)
            for tag in device.tags
            for binding in tag.bindings
            if binding.protocol == protocol and binding.direction is not Direction.OUT
        ]
        key = (protocol, None if driver.shared else device.id, driver.key(network))
        parts.append(Part(device.id, device.name, driver, key, network, tuple(sources)))
    return DevicePlan(device.id, device.name, device.revision, device, tuple(parts), device.faults)


def point(tag: TagConfig, binding: BindingConfig, network: object, driver: Driver) -> Point:
    """A binding as its driver takes it."""
    return Point(binding.id, tag.name, driver.unit(binding.address), network, binding.address, binding.options)


def _source(
    tag: TagConfig,
    binding: BindingConfig,
    network: object,
    driver: Driver,
    periods_ms: Mapping[ScanClass, int],
) -> Source:
    period_ms = binding.period_ms or periods_ms[binding.scan or ScanClass.NORMAL]
    return Source(
        tag.name,
        compile_engineering(tag, binding),
        compile_limits(tag, binding),
        tag.deadband,
        point(tag, binding, network, driver),
        period_ms,
    )

"""A field of devices in the test's own loop: what the field server reads of them, and what it tells."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from drivers.registry import load_drivers
from field_server.field import Field
from field_server.plans import compile_device
from scada.config import BindingConfig, DeviceConfig, Direction, ScanClass, TagConfig
from scada.protocols.modbus import ModbusAddress, ModbusNetwork, ModbusOptions
from scada.values import DataType, Quality, Sample
from storage.config_watch import Change

PERIODS_MS = {ScanClass.FAST: 50, ScanClass.NORMAL: 100, ScanClass.SLOW: 1000}


class Told:
    """A sink that keeps everything, with the monotonic time at which it was told."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, str, Sample]] = []
        self.links: list[tuple[str, bool, str | None]] = []
        self.plans: dict[str, Mapping[str, Any]] = {}
        self.forgotten: list[tuple[str, frozenset[str] | None]] = []

    def publish(self, device: str, samples: Sequence[Sample]) -> None:
        now = time.monotonic()
        self.samples += [(now, device, sample) for sample in samples]

    def link(self, device: str, online: bool, error: str | None) -> None:
        self.links.append((device, online, error))

    def plan(self, device: str, document: Mapping[str, Any] | None) -> None:
        self.plans[device] = document or {}

    def forget(self, device: str, tags: Iterable[str] | None = None) -> None:
        self.forgotten.append((device, None if tags is None else frozenset(tags)))

    def requests(self, device: str) -> list[Any]:
        """The requests of a device's plan; none before it was told."""
        return list(self.plans.get(device, {}).get("requests", ()))

    def last(self, device: str, tag: str) -> Sample | None:
        """The newest sample of a tag."""
        return next((each for _, name, each in reversed(self.samples) if (name, each.tag) == (device, tag)), None)

    def quality(self, device: str, tag: str) -> Quality | None:
        """The newest quality of a tag."""
        sample = self.last(device, tag)
        return None if sample is None else sample.quality


class Plant:
    """A Field over `told`, configured by the test."""

    def __init__(self, told: Told, connects_per_s: float) -> None:
        self.told = told
        self.field = Field(told, connects_per_s)
        self._revision = 0

    def put(self, *devices: DeviceConfig, removed: Iterable[int] = ()) -> None:
        """Change the configuration."""
        drivers = load_drivers()
        plans = [compile_device(device, drivers, PERIODS_MS) for device in devices]
        self._revision += 1
        self.field.apply(Change(self._revision, [plan for plan in plans if plan is not None], set(removed)))

    async def wait(self, condition: Callable[[], object], what: str, timeout_s: float = 5.0) -> float:
        """Until `condition()` is true; how long it took."""
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() - begun < timeout_s, f"not within {timeout_s} s: {what}"
            await asyncio.sleep(0.005)
        return time.monotonic() - begun


@asynccontextmanager
async def build_field(connects_per_s: float = 1000) -> AsyncIterator[Plant]:
    """A field without devices; its links are ended with the block."""
    plant = Plant(Told(), connects_per_s)
    try:
        yield plant
    finally:
        await plant.field.close()


def modbus_tag(number: int, name: str, register: int, **more: Any) -> TagConfig:
    """A polled tag of type uint16; `more` goes to the address, or to the binding (period_ms, scan, direction), or the tag."""
    binding = {key: more.pop(key) for key in ("period_ms", "scan") if key in more}
    direction = more.pop("direction", Direction.IN)
    options = more.pop("options", ModbusOptions())
    data_type = more.pop("data_type", DataType.FLOAT)
    deadband, scaling, limits = more.pop("deadband", 0.0), more.pop("scaling", None), more.pop("limits", None)
    address = ModbusAddress(register, **more)
    own = BindingConfig(number, "modbus", direction, address, options, None, None, **binding)
    return TagConfig(number, name, data_type, scaling, limits, deadband, (own,))


def modbus_device(number: int, name: str, port: int, *tags: TagConfig, **network: Any) -> DeviceConfig:
    """A device on a loopback port, with short timeouts."""
    settings = {"host": "127.0.0.1", "port": port, "timeout_s": 0.2, "connect_timeout_s": 0.3, "retries": 1, **network}
    return DeviceConfig(number, name, 1, {"modbus": ModbusNetwork(**settings)}, tags)

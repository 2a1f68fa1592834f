"""Configurations with registers of our own server, compiled without a database, and images to put them into."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modbus_server.mailbox.layout import Layout, lay_out
from modbus_server.mailbox.plans import MailboxPlan, compile_device
from scada.config import BindingConfig, DeviceConfig, Direction, TagConfig
from scada.modbus.image import IMAGE_SIZE, Image
from scada.protocols.mailbox import MailboxAddress, MailboxNetwork, MailboxOptions, MailboxTerm
from scada.protocols.simulated import SimulatedAddress, SimulatedNetwork, SimulatedOptions
from scada.values import DataType


class PlainMemory(bytearray):
    """Memory whose slices are bytes, as those of mmap are."""

    def __getitem__(self, part: slice) -> bytes:  # type: ignore[override]
        return bytes(super().__getitem__(part))


def shared_image() -> tuple[Image, Mapping[int, Image]]:
    """One image, behind every unit id."""
    image = Image(PlainMemory(IMAGE_SIZE))
    return image, dict.fromkeys(range(256), image)


def bound(number: int, name: str, register: int, direction: str = "in", **more: Any) -> TagConfig:
    """A tag; `more` goes to the address, or to the tag (data_type, scaling, limits, deadband), `own_scaling` to the binding.
    `fed`: its value comes from a simulated device.
    """
    data_type = more.pop("data_type", DataType.FLOAT)
    scaling, limits, deadband = more.pop("scaling", None), more.pop("limits", None), more.pop("deadband", 0.0)
    own_scaling, own_limits = more.pop("own_scaling", None), more.pop("own_limits", None)
    fed = more.pop("fed", False)
    options = more.pop("options", MailboxOptions())
    address = MailboxAddress(register, **{"unit_id": 1, **more})
    bindings = [BindingConfig(number, "modbus_server", Direction(direction), address, options, own_scaling, own_limits)]
    if fed:
        point = SimulatedAddress("level")
        bindings.append(
            BindingConfig(number + 10_000, "simulated", Direction.IN, point, SimulatedOptions(), None, None)
        )
    return TagConfig(number, name, data_type, scaling, limits, deadband, tuple(bindings))


def mailbox_device(
    number: int, name: str, *tags: TagConfig, terms: Sequence[MailboxTerm] = (), **network: Any
) -> DeviceConfig:
    """A device with registers here; `terms` are what its terms say of units."""
    networks = {"modbus_server": MailboxNetwork(**network), "simulated": SimulatedNetwork("tank")}  # type: ignore[arg-type]
    return DeviceConfig(number, name, 1, networks, tags, (), {"modbus_server": tuple(terms)})


def plans(*devices: DeviceConfig) -> list[MailboxPlan]:
    """The devices' plans."""
    return [plan for plan in map(compile_device, devices) if plan is not None]


def laid_out(images: Mapping[int, Image], *devices: DeviceConfig) -> Layout:
    """Their layout."""
    return lay_out(plans(*devices), images)


def fault_texts(layout: Layout) -> list[str]:
    """What was left out, and why."""
    return [str(fault) for faults in layout.faults.values() for fault in faults]


def names(tags: Iterable[Any]) -> list[str]:
    """Full names."""
    return [tag.full_name for tag in tags]

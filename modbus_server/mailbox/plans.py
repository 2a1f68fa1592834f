"""What a device's configuration means for the registers: its tags with a binding of ours, compiled. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from modbus_server.mailbox.places import DEFAULT_UNIT_ID, Place, place_of_address
from scada.claims import Claim, claims_of
from scada.config import BindingConfig, DeviceConfig, Direction, TagConfig
from scada.conversion import compile_encode, encode_coil
from scada.errors import ConfigError, Fault
from scada.protocols.mailbox import MailboxAddress, MailboxNetwork, MailboxOptions, MailboxTerm, NotGood
from scada.registry import PROTOCOLS
from scada.setpoints import command_route
from scada.sources import TagSource, compile_source
from scada.values import DataType, Value

PROTOCOL = "modbus_server"
"""Of the bindings; also this program's name on the bus."""


class Role(StrEnum):
    """Who writes a tag's registers."""

    WRITTEN = "written"
    """Clients; and commands, where it can be set. The tag has its value from here."""
    SETPOINT = "setpoint"
    """Commands only, which are ours to carry out: nothing else is the tag's source."""
    SHOWN = "shown"
    """The bus: another program owns the tag."""


@dataclass(frozen=True, slots=True, eq=False)
class BoundTag:
    """A tag and its registers. `claims`: the addresses that it takes, the value's first.

    `source` makes samples of them (None when shown). `encode` makes their bytes of an engineering value (None when only
    clients write them). `owner` is the program whose samples are shown. `binding` has the scaling that is in force.
    """

    device: str
    name: str
    role: Role
    place: Place
    claims: tuple[Claim, ...]
    status: int | None
    not_good: NotGood
    stale_after_s: float
    owner: str
    binding: BindingConfig
    source: TagSource | None
    encode: Callable[[Value], bytes] | None

    @property
    def full_name(self) -> str:
        """Device@Tag."""
        return f"{self.device}@{self.name}"

    @property
    def is_read_only(self) -> bool:
        """Clients must not write it."""
        return self.role is not Role.WRITTEN

    @property
    def is_guarded(self) -> bool:
        """Clients must not read it while it is not good."""
        return self.role is Role.SHOWN and self.not_good is NotGood.EXCEPTION


@dataclass(frozen=True, slots=True, eq=False)
class MailboxPlan:
    """A device with registers here. `faults` are the parts of its configuration that were left out.

    `choices`: what its terms say that clients see of a unit, by the order of the terms.
    """

    device_id: int
    name: str
    revision: int
    config: DeviceConfig
    tags: tuple[BoundTag, ...]
    faults: tuple[Fault, ...]
    choices: tuple[tuple[int, NotGood], ...] = ()


def compile_device(device: DeviceConfig) -> MailboxPlan | None:
    """The plan of a device, or None when it has no registers here."""
    network = device.networks.get(PROTOCOL)
    if not isinstance(network, MailboxNetwork):
        return None
    tags: list[BoundTag] = []
    faults = list(device.faults)
    for tag in device.tags:
        for binding in tag.bindings:
            if binding.protocol != PROTOCOL:
                continue
            try:
                tags.append(_bound(device, tag, binding, network))
            except ConfigError as error:
                faults.extend(Fault(f"{device.name}@{tag.name}", str(fault)) for fault in error.faults)
    return MailboxPlan(device.id, device.name, device.revision, device, tuple(tags), tuple(faults), _choices(device))


def _choices(device: DeviceConfig) -> tuple[tuple[int, NotGood], ...]:
    return tuple(
        (DEFAULT_UNIT_ID if term.unit_id is None else term.unit_id, term.not_good)
        for term in device.terms.get(PROTOCOL, ())
        if isinstance(term, MailboxTerm) and term.not_good is not None
    )


def _bound(device: DeviceConfig, tag: TagConfig, binding: BindingConfig, network: MailboxNetwork) -> BoundTag:
    address = binding.address
    assert isinstance(address, MailboxAddress)
    faults = list(address.directed(binding.direction))
    if faults:
        raise ConfigError(faults)
    role, owner = _role(device, tag, binding)
    if binding.direction is not Direction.IN and role is not Role.SHOWN:
        binding = command_route(device, tag).binding
    place = place_of_address(address)
    return BoundTag(
        device=device.name,
        name=tag.name,
        role=role,
        place=place,
        claims=claims_of(address, binding.direction, f"{device.name}@{tag.name}"),
        status=address.status,
        not_good=network.not_good,
        stale_after_s=network.stale_after_s,
        owner=owner,
        binding=binding,
        source=None if role is Role.SHOWN else compile_source(tag, binding),
        encode=None if binding.direction is Direction.IN else _encoder(tag.data_type, address, binding, place),
    )


def _role(device: DeviceConfig, tag: TagConfig, binding: BindingConfig) -> tuple[Role, str]:
    if binding.direction is not Direction.OUT:
        return Role.WRITTEN, PROTOCOL
    source = next((each for each in tag.bindings if each.direction is not Direction.OUT), None)
    owner = command_route(device, tag).owner if source is None else PROTOCOLS[source.protocol].owner
    return (Role.SETPOINT if owner == PROTOCOL else Role.SHOWN), owner


def _encoder(
    data_type: DataType, address: MailboxAddress, binding: BindingConfig, place: Place
) -> Callable[[Value], bytes]:
    options = binding.options
    assert isinstance(options, MailboxOptions)
    encode = encode_coil if place.codec is None else place.codec.encode
    return compile_encode(data_type, address, options, binding, encode)

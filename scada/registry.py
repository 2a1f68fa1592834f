"""The protocols: which network, address and options records belong to each, and what each can do."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from scada.config import Direction
from scada.errors import ConfigError, Fault
from scada.protocols.mailbox import MailboxAddress, MailboxNetwork, MailboxOptions, MailboxTerm
from scada.protocols.modbus import ModbusAddress, ModbusNetwork, ModbusOptions, ModbusTerm
from scada.protocols.mqtt import MqttAddress, MqttNetwork, MqttOptions
from scada.protocols.simulated import SimulatedAddress, SimulatedNetwork, SimulatedOptions


@dataclass(frozen=True, slots=True)
class Protocol:
    """One field protocol as the configuration knows it. `term` is None where units behind a device have no address.

    The first of `directions` is meant where a table names none. `owner` is the program that speaks the protocol: it reads
    the tags of its bindings in, and carries out the commands for them. `directed` gives the faults of an address in a binding
    of a direction, `belongs` those of an address behind a network, where not every address fits every network.
    """

    name: str
    title: str
    directions: tuple[Direction, ...]
    network: type
    address: type
    options: type
    owner: str
    term: type | None = None
    directed: Callable[[Any, Direction], Iterable[Fault]] | None = None
    belongs: Callable[[Any, Any, Direction], Iterable[Fault]] | None = None


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                "mqtt",
                "MQTT, JSON payloads",
                (Direction.IN, Direction.OUT),
                MqttNetwork,
                MqttAddress,
                MqttOptions,
                "mqtt_server",
                directed=MqttAddress.directed,
            ),
            Protocol(
                "modbus",
                "Modbus TCP, UDP, RTU",
                (Direction.OUT, Direction.IN, Direction.INOUT),
                ModbusNetwork,
                ModbusAddress,
                ModbusOptions,
                "field_server",
                ModbusTerm,
                directed=ModbusAddress.directed,
                belongs=ModbusNetwork.misplaced,
            ),
            Protocol(
                "modbus_server",
                "Registers of our own Modbus server",
                (Direction.OUT, Direction.IN, Direction.INOUT),
                MailboxNetwork,
                MailboxAddress,
                MailboxOptions,
                "modbus_server",
                MailboxTerm,
                directed=MailboxAddress.directed,
            ),
            Protocol(
                "simulated",
                "Simulated devices",
                tuple(Direction),
                SimulatedNetwork,
                SimulatedAddress,
                SimulatedOptions,
                "field_server",
                belongs=SimulatedNetwork.misplaced,
            ),
        )
    }
)


def protocol(name: object, path: str = "protocol") -> Protocol:
    """The protocol called `name`; ConfigError with `path` when there is none."""
    found = PROTOCOLS.get(name) if isinstance(name, str) else None
    if found is None:
        raise ConfigError([Fault(path, f"must be one of {', '.join(PROTOCOLS)}, not {name!r}")])
    return found

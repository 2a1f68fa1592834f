"""The protocols: which network, address and options records belong to each, and what each can do."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from scada.config import (
    Direction,
    ModbusAddress,
    ModbusNetwork,
    ModbusOptions,
    ModbusTerm,
    MqttAddress,
    MqttNetwork,
    MqttOptions,
)
from scada.errors import ConfigError, Fault


@dataclass(frozen=True, slots=True)
class Protocol:
    """One field protocol as the configuration knows it. `term` is None where units behind a device have no address."""

    name: str
    title: str
    directions: tuple[Direction, ...]
    network: type
    address: type
    options: type
    term: type | None = None


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol("mqtt", "MQTT, JSON payloads", (Direction.IN,), MqttNetwork, MqttAddress, MqttOptions),
            Protocol(
                "modbus",
                "Modbus TCP, UDP, RTU",
                (Direction.OUT,),
                ModbusNetwork,
                ModbusAddress,
                ModbusOptions,
                ModbusTerm,
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

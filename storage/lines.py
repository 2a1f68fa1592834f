"""Serial lines of which two devices say different things.

Looked for at the end of a change, when everything stands as it will: so one change can set a line anew for all its devices.
Only what the change has put there is judged, and devices that are disabled use no line.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, select

from scada.errors import ConfigError, Fault
from scada.modbus.endpoint import Endpoint, Transport
from scada.protocols.modbus import ModbusNetwork
from scada.schema import join, parse
from storage.shapes import DEVICE, NETWORK

PROTOCOL = "modbus"
SETTINGS = ("baudrate", "parity", "stopbits", "bytesize")
"""One line has one of each. Times are each device's own."""


@dataclass(slots=True)
class Lines:
    """What a change says of serial lines, each with the place in the document that says so, by the device's id.

    `networks`: the settings themselves; `devices` were enabled.
    """

    networks: dict[int, str] = field(default_factory=dict)
    devices: dict[int, str] = field(default_factory=dict)

    def refuse_contradictions(self, connection: Connection) -> None:
        """Raise ConfigError for settings of a line that another device has otherwise; it is named."""
        if self.networks or self.devices:
            faults = list(self._contradicting(connection))
            if faults:
                raise ConfigError(faults)

    def _contradicting(self, connection: Connection) -> Iterable[Fault]:
        query = (
            select(DEVICE.c.id, DEVICE.c.name, NETWORK.c.settings)
            .join(DEVICE, DEVICE.c.id == NETWORK.c.device_id)
            .where(
                NETWORK.c.protocol == PROTOCOL,
                NETWORK.c.settings["transport"].as_string() == Transport.SERIAL.value,
                DEVICE.c.enabled,
            )
            .order_by(DEVICE.c.id)
        )
        users = list(_users(connection, query))
        first: dict[str, tuple[str, Endpoint]] = {}
        for mine in (False, True):
            for device_id, name, line in users:
                if (device_id in self.networks or device_id in self.devices) is not mine:
                    continue
                other, known = first.setdefault(line.serial_port, (name, line))
                for each in SETTINGS if mine else ():
                    if getattr(line, each) != (theirs := getattr(known, each)):
                        message = f"device {other!r} has {theirs!r} for the same line, {line.serial_port}"
                        yield Fault(self._path(device_id, each), message)

    def _path(self, device_id: int, name: str) -> str:
        if device_id in self.networks:
            return join(self.networks[device_id], name)
        return self.devices[device_id]


def _users(connection: Connection, query: Select[Any]) -> Iterable[tuple[int, str, Endpoint]]:
    for row in connection.execute(query):
        try:
            yield row.id, row.name, parse(ModbusNetwork, row.settings).endpoint
        except ConfigError:
            continue  # a row of another program's: no program of ours uses it

"""The demo fleet: twenty machines, and the configuration that brings their readings into registers."""

import random
from dataclasses import dataclass
from typing import Any

from scada.values import DataType
from tagwire.physics import Boiler, Machine, Meter, Pump, Room, Tank

FIRST_REGISTER = 1000
REGISTERS_PER_DEVICE = 10
PERIOD_S = 0.5

_PER_KIND = 4
_KINDS: tuple[tuple[str, type[Tank] | type[Boiler] | type[Pump] | type[Room] | type[Meter]], ...] = (
    ("tank", Tank),
    ("boiler", Boiler),
    ("pump", Pump),
    ("room", Room),
    ("meter", Meter),
)
_UNITS = {
    "level": "%",
    "inflow": "l/min",
    "outflow": "l/min",
    "temperature": "°C",
    "pressure": "bar",
    "setpoint": "°C",
    "power": "W",
    "speed": "1/min",
    "flow": "m³/h",
    "motor_temperature": "°C",
    "humidity": "%",
    "co2": "ppm",
    "light": "lx",
    "voltage": "V",
    "current": "A",
    "frequency": "Hz",
    "energy": "Wh",
}
_TYPES = {bool: (DataType.BOOL, "bool"), int: (DataType.INT, "uint32"), float: (DataType.FLOAT, "float32")}


@dataclass(frozen=True, slots=True)
class Unit:
    """One machine of the fleet with its name on the bus and its first register."""

    name: str
    topic: str
    register: int
    machine: Machine


def make_fleet(seed: int = 1) -> tuple[Unit, ...]:
    """Twenty machines; the same seed gives the same readings."""
    names = [(f"{kind}-{number}", make) for kind, make in _KINDS for number in range(1, _PER_KIND + 1)]
    return tuple(
        Unit(
            f"demo-{name}",
            f"demo/{name}",
            FIRST_REGISTER + index * REGISTERS_PER_DEVICE,
            make(random.Random(seed * 1000 + index)),
        )
        for index, (name, make) in enumerate(names)
    )


def device_document(unit: Unit, host: str, port: int) -> dict[str, Any]:
    """The device as POST /api/v1/devices takes it: each reading from the topic into two registers of its own."""
    readings = unit.machine.step(0)
    tags = []
    for index, (name, value) in enumerate(readings.items()):
        data_type, register_type = _TYPES[type(value)]
        register = unit.register + 2 * index
        tags.append(
            {
                "name": name,
                "data_type": data_type,
                "unit": "kW" if unit.name.startswith("demo-boiler") and name == "power" else _UNITS.get(name, ""),
                "bindings": [
                    {"protocol": "mqtt", "direction": "in", "address": {"path": name}},
                    {
                        "protocol": "modbus",
                        "direction": "out",
                        "address": {
                            "unit_id": 1,
                            "table": "holding_register",
                            "register": register,
                            "type": register_type,
                            "order": "ABCD",
                        },
                    },
                ],
            }
        )
    return {
        "name": unit.name,
        "description": "simulated by tagwire demo",
        "network": {"mqtt": {"topic": unit.topic}, "modbus": {"host": host, "port": port}},
        "tags": tags,
    }

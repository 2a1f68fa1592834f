"""What the interactive page offers to send. A test sends each."""

from typing import Any, Final

MQTT_BINDING: Final[dict[str, Any]] = {"protocol": "mqtt", "direction": "in", "address": {"path": "temperature"}}
BINDING: Final[dict[str, Any]] = {
    "protocol": "modbus",
    "direction": "out",
    "address": {"unit_id": 1, "table": "holding_register", "register": 10, "type": "float32", "order": "ABCD"},
}
TAG: Final[dict[str, Any]] = {
    "name": "temperature",
    "data_type": "float",
    "unit": "°C",
    "bindings": [MQTT_BINDING, BINDING],
}
DEVICE: Final[dict[str, Any]] = {
    "name": "boiler",
    "network": {"mqtt": {"topic": "plant/boiler"}, "modbus": {"host": "127.0.0.1", "port": 8502}},
    "tags": [TAG],
}
TERM: Final[dict[str, Any]] = {"name": "meter", "settings": {"modbus": {"unit_id": 7}}}
ITEM: Final[dict[str, Any]] = {"name": "flow", "data_type": "float", "unit": "m³/h", "limits": {"low": 0}}
BULK: Final[dict[str, Any]] = {"tags": [{"device": "boiler", **TAG}]}
WRITE: Final[dict[str, Any]] = {"device": "boiler", "register": 10, "type": "float32", "values": [21.5]}
COMMAND: Final[dict[str, Any]] = {"value": 21.5}
DEVICE_COMMAND: Final[dict[str, Any]] = {"device": "boiler", "values": {"setpoint": 60, "pump": True}}
DEVICE_CALL: Final[dict[str, Any]] = {"device": "boiler", "tag": "temperature"}

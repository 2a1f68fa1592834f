from typing import Any

import pytest

from scada.config import LimitsConfig, ScalingConfig
from scada.errors import ConfigError
from scada.protocols.modbus import ModbusAddress, ModbusNetwork, ModbusOptions
from scada.protocols.mqtt import MqttAddress, MqttNetwork
from scada.registry import PROTOCOLS, protocol
from scada.schema import fields, parse


def faults(record: type, data: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as error:
        parse(record, data)
    return [fault.field for fault in error.value.faults]


@pytest.mark.parametrize(
    ("record", "data", "field"),
    [
        (ScalingConfig, {"gain": 0}, "gain"),
        (LimitsConfig, {"low": 2, "high": 1}, "low"),
        (MqttNetwork, {"topic": "a/b+"}, "topic"),
        (MqttNetwork, {"topic": "a/$x#"}, "topic"),
        (MqttNetwork, {"time": "a["}, "time"),
        (MqttAddress, {}, ""),
        (MqttAddress, {"path": "a", "bits": ["b"]}, ""),
        (MqttAddress, {"bits": []}, "bits"),
        (MqttAddress, {"bits": ["a"] * 17}, "bits"),
        (MqttAddress, {"bits": ["a", "b["]}, "bits.1"),
        (ModbusNetwork, {}, "host"),
        (ModbusNetwork, {"host": "a b"}, "host"),
        (ModbusNetwork, {"host": "h", "port": 65536}, "port"),
        (ModbusNetwork, {"host": "h", "parity": "X"}, "parity"),
        (ModbusNetwork, {"transport": "serial"}, "serial_port"),
        (ModbusAddress, {"register": 65536}, "register"),
        (ModbusAddress, {"register": 65535, "type": "float32"}, "register"),
        (ModbusAddress, {"register": 1, "table": "coil", "type": "int16"}, "type"),
        (ModbusAddress, {"register": 1, "unit_id": 256}, "unit_id"),
        (ModbusOptions, {"rewrite_s": 0.05}, "rewrite_s"),
        (ModbusOptions, {"every_value": True, "deadband": 1}, "every_value"),
        (ModbusOptions, {"failsafe": {"value": 1}}, "failsafe.after_s"),
    ],
)
def test_what_contradicts_itself_is_named(record: type, data: dict[str, Any], field: str) -> None:
    assert faults(record, data) == [field]


def test_sixteen_long_paths_are_accepted() -> None:
    assert len(parse(MqttAddress, {"bits": [f"machine.inputs.channel{n}" for n in range(16)]}).bits or ()) == 16


def test_the_last_register_can_be_addressed() -> None:
    assert parse(ModbusAddress, {"register": 65534, "type": "float32"}).register == 65534


def test_equal_endpoints_share_a_link_and_timing_or_speed_matters() -> None:
    one = parse(ModbusNetwork, {"host": "h", "max_write_registers": 10})
    assert one.endpoint == parse(ModbusNetwork, {"host": "h"}).endpoint
    assert one.endpoint != parse(ModbusNetwork, {"host": "h", "port": 503}).endpoint
    serial = {"transport": "serial", "serial_port": "/dev/ttyS0"}
    assert parse(ModbusNetwork, {**serial, "port": 1}).endpoint == parse(ModbusNetwork, serial).endpoint
    assert parse(ModbusNetwork, {**serial, "baudrate": 19200}).endpoint != parse(ModbusNetwork, serial).endpoint


def test_every_field_says_what_it_means() -> None:
    for each in PROTOCOLS.values():
        for record in (each.network, each.address, each.options, each.term):
            for field in fields(record) if record is not None else ():
                assert field.spec.doc, f"{each.name}.{field.name}"


@pytest.mark.parametrize("name", ["smoke", 7, None, [], "MQTT"])
def test_an_unknown_protocol_is_named(name: object) -> None:
    with pytest.raises(ConfigError) as error:
        protocol(name, "bindings.0.protocol")
    assert error.value.faults[0].field == "bindings.0.protocol"

"""A value that would come back to its tag is found, and a chain that only looks like it is left alone."""

from typing import Any

from scada.config import BindingConfig, DeviceConfig, Direction, TagConfig
from scada.loops import find_loops, may_loop
from scada.mapping import DevicePlan, compile_device
from scada.protocols.modbus import ModbusAddress, ModbusNetwork, ModbusOptions
from scada.protocols.mqtt import MqttAddress, MqttNetwork, MqttOptions
from scada.values import DataType


def polled(number: int, register: int, *, host: str = "plc", out_topic: str = "site/x", path: str = "v") -> DevicePlan:
    """A tag that is polled from a register and sent on a topic."""
    source = BindingConfig(1, "modbus", Direction.IN, ModbusAddress(register), ModbusOptions(), None, None)
    sink = BindingConfig(2, "mqtt", Direction.OUT, MqttAddress(path=path), MqttOptions(), None, None)
    return device(number, host, (source, sink), out_topic=out_topic)


def heard(number: int, register: int, *, host: str = "plc", topic: str = "site/x", path: str = "v") -> DevicePlan:
    """A tag that is read from a topic and written to a register."""
    source = BindingConfig(3, "mqtt", Direction.IN, MqttAddress(path=path), MqttOptions(), None, None)
    sink = BindingConfig(4, "modbus", Direction.OUT, ModbusAddress(register), ModbusOptions(), None, None)
    return device(number, host, (source, sink), topic=topic)


def device(number: int, host: str, bindings: tuple[BindingConfig, ...], **mqtt: Any) -> DevicePlan:
    networks = {"modbus": ModbusNetwork(host=host), "mqtt": MqttNetwork(**mqtt)}
    tag = TagConfig(number, "t", DataType.FLOAT, None, None, 0.0, bindings)
    plan = compile_device(DeviceConfig(number, f"d{number}", 1, networks, (tag,)))
    assert plan is not None
    assert plan.faults == ()
    return plan


def test_a_value_that_is_written_where_it_was_read() -> None:
    plans = [polled(1, 5), heard(2, 5)]
    assert may_loop(plans)
    assert find_loops(plans) == {(1, "t")}


def test_over_two_devices_and_wildcards() -> None:
    plans = [
        polled(1, 5, out_topic="a/x"),
        heard(2, 6, topic="a/+"),
        polled(3, 6, out_topic="b/y"),
        heard(4, 5, topic="b/#"),
    ]
    assert find_loops(plans) == {(1, "t"), (3, "t")}


def test_chains_that_end_somewhere_else() -> None:
    assert not may_loop([polled(1, 5), heard(2, 5, topic="site/other")])
    for other in (heard(2, 6), heard(2, 5, host="other"), heard(2, 5, path="w"), heard(2, 5, path="v2.v")):
        plans = [polled(1, 5), other]
        assert may_loop(plans)
        assert find_loops(plans) == set()


def test_a_part_of_the_message_is_enough() -> None:
    assert find_loops([polled(1, 5, path="a.b"), heard(2, 5, path="a.b")]) == {(1, "t")}
    assert find_loops([polled(1, 5, path="a"), heard(2, 5, path="a")]) == {(1, "t")}

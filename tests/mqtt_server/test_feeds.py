"""Which values that come over the bus go out, and when a source counts as silent."""

from collections.abc import Mapping
from typing import Any

import pytest

from mqtt_server.feeds import Feeds
from scada.config import BindingConfig, DeviceConfig, Direction, TagConfig
from scada.mapping import DevicePlan, compile_device
from scada.outputs import OutPlan
from scada.protocols.modbus import ModbusAddress, ModbusNetwork, ModbusOptions
from scada.protocols.mqtt import MqttAddress, MqttNetwork, MqttOptions
from scada.protocols.simulated import SimulatedAddress, SimulatedNetwork, SimulatedOptions
from scada.values import DataType, Quality, Reason, Sample, Value


class Notebook:
    def __init__(self) -> None:
        self.written: list[Value] = []
        self.well: list[bool] = []
        self.sent: list[Mapping[str, Value]] = []
        self.failsafe = False

    def write(self, out: OutPlan, value: Value, time_ms: int) -> None:
        self.written.append(value)

    def source(self, out: OutPlan, well: bool) -> bool:
        self.well.append(well)
        return self.failsafe

    def send(self, device_id: int, values: Mapping[str, Value]) -> None:
        self.sent.append(dict(values))


def device(**options: Any) -> DevicePlan:
    bindings = (
        BindingConfig(1, "simulated", Direction.IN, SimulatedAddress("level"), SimulatedOptions(), None, None),
        BindingConfig(2, "modbus", Direction.OUT, ModbusAddress(10), ModbusOptions(**options), None, None),
        BindingConfig(3, "mqtt", Direction.OUT, MqttAddress(path="tank.level"), MqttOptions(), None, None),
    )
    networks = {"simulated": SimulatedNetwork("tank"), "modbus": ModbusNetwork(host="h"), "mqtt": MqttNetwork()}
    plan = compile_device(
        DeviceConfig(7, "tank", 1, networks, (TagConfig(1, "level", DataType.FLOAT, None, None, 0.0, bindings),))
    )
    assert plan is not None
    assert plan.faults == ()
    assert plan.topic is None
    return plan


def good(value: Value, time_ms: int, late: bool = False) -> Sample:
    return Sample("level", value, Quality.GOOD, time_ms, Reason.NONE, late)


def bad(time_ms: int, quality: Quality = Quality.BAD) -> Sample:
    return Sample("level", 1, quality, time_ms, Reason.COMM_FAILURE)


class Rig:
    def __init__(self, **options: Any) -> None:
        self.out = Notebook()
        self.feeds = Feeds(self.out)
        assert self.feeds.put(device(**options))

    def take(self, *samples: Sample, repeat: bool = False, is_state: bool = False, owner: str = "field_server") -> None:
        self.feeds.take(owner, "tank", samples, repeat=repeat, is_state=is_state)


def test_good_values_go_out_and_others_do_not() -> None:
    rig = Rig()
    rig.take(good(1, 100), bad(200), good(2, 300), bad(400, Quality.UNCERTAIN))
    assert rig.out.written == [1, 2]
    assert rig.out.sent == [{"level": 2}]
    assert rig.out.well == [True, False, True, False]


def test_late_values_and_repeats_do_not_replace_newer_ones() -> None:
    rig = Rig()
    rig.take(good(5, 500))
    rig.take(good(3, 300, late=True))
    rig.take(good(4, 400), repeat=True)
    rig.take(good(2, 200), is_state=True)
    assert rig.out.written == [5]
    rig.take(good(6, 600, late=True))
    rig.take(good(0, 100))  # a clock that was set back is no reason to stop
    assert rig.out.written == [5, 6, 0]


def test_what_led_to_a_known_state_is_not_written_over_it() -> None:
    rig = Rig()
    rig.take(good(3, 300), is_state=True)
    rig.take(good(1, 100), good(2, 200), good(3, 300), good(4, 400))
    assert rig.out.written == [3, 4]


def test_every_value_takes_what_happened_and_no_states() -> None:
    rig = Rig(every_value=True)
    rig.take(good(3, 300), is_state=True)
    rig.take(good(1, 100, late=True), good(2, 200, late=True), good(3, 300), good(4, 400))
    rig.take(good(2, 200), repeat=True)
    assert rig.out.written == [1, 2, 3, 4]


def test_a_source_is_well_while_its_owner_and_the_bus_are_there() -> None:
    rig = Rig()
    rig.take(good(1, 100))
    rig.feeds.owner("somebody", False)
    rig.feeds.owner("field_server", False)
    rig.feeds.bus(False)
    rig.feeds.owner("field_server", True)
    assert rig.out.well == [True, False]
    rig.feeds.bus(True)
    assert rig.out.well == [True, False, True]
    assert rig.out.written == [1]


def test_a_value_is_written_again_where_the_fail_safe_stands() -> None:
    rig = Rig()
    rig.take(good(1, 100))
    rig.feeds.owner("field_server", False)
    rig.out.failsafe = True
    rig.feeds.owner("field_server", True)
    assert rig.out.written == [1, 1]


def test_a_device_that_is_gone_or_changed() -> None:
    rig = Rig()
    rig.take(good(1, 100))
    assert not rig.feeds.put(device()), "the same places: nothing to ask for"
    rig.take(good(1, 100), is_state=True)
    assert rig.out.written == [1]
    assert rig.feeds.put(device(rewrite_s=5.0))
    rig.take(good(1, 100), is_state=True)
    assert rig.out.written == [1, 1]
    rig.feeds.remove(7)
    assert not rig.feeds
    rig.take(good(2, 200))
    assert rig.out.written == [1, 1]


@pytest.mark.parametrize("out_topic", ["plant/x", "plant/+", "plant/#"])
def test_a_device_that_would_hear_itself_is_sent_nothing(out_topic: str) -> None:
    source = BindingConfig(1, "mqtt", Direction.IN, MqttAddress(path="a"), MqttOptions(), None, None)
    sink = BindingConfig(2, "mqtt", Direction.OUT, MqttAddress(path="b"), MqttOptions(), None, None)
    tags = (
        TagConfig(1, "a", DataType.FLOAT, None, None, 0.0, (source,)),
        TagConfig(2, "b", DataType.FLOAT, None, None, 0.0, (sink,)),
    )
    network = MqttNetwork(topic="device/7/#" if out_topic == "plant/x" else "device/+/out")
    plan = compile_device(DeviceConfig(7, "d", 1, {"mqtt": network}, tags))
    assert plan is not None
    assert plan.setpoints == {}
    assert "would read what it is sent" in str(plan.faults)
    assert [fault.field for fault in MqttNetwork(topic=out_topic, out_topic="plant/x").faults()] == ["out_topic"]

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.config import BindingConfig, DeviceConfig, Direction, LimitsConfig, ScalingConfig, TagConfig
from scada.conversion import compile_raw
from scada.errors import Conflict
from scada.modbus.limits import Table
from scada.modbus.registers import RegisterType, codec
from scada.protocols.mailbox import MailboxAddress, MailboxOptions
from scada.protocols.modbus import ModbusAddress, ModbusOptions
from scada.protocols.mqtt import MqttAddress, MqttOptions
from scada.protocols.simulated import SimulatedAddress, SimulatedOptions
from scada.scaling import OutOfLimits, Scaling, round_half_away
from scada.setpoints import Verification, check_command, command_route, is_reached, verification
from scada.values import BadValue, DataType, RejectCode, Value


def modbus(direction: Direction = Direction.INOUT, options: Any = None, **more: Any) -> BindingConfig:
    parts = {"scaling": None, "limits": None} | {name: more.pop(name) for name in ("scaling", "limits") if name in more}
    address = ModbusAddress(register=10, unit_id=1, **more)
    return BindingConfig(1, "modbus", direction, address, options or ModbusOptions(), **parts)


def mqtt(direction: Direction, **options: Any) -> BindingConfig:
    return BindingConfig(2, "mqtt", direction, MqttAddress(path="a"), MqttOptions(**options), None, None)


SIMULATED = BindingConfig(3, "simulated", Direction.OUT, SimulatedAddress("level"), SimulatedOptions(), None, None)
MAILBOX = BindingConfig(
    4, "modbus_server", Direction.INOUT, MailboxAddress(register=1), MailboxOptions(), None, None
)  # fmt: skip


def tag(*bindings: BindingConfig, data_type: DataType = DataType.FLOAT, **more: Any) -> TagConfig:
    return TagConfig(1, "level", data_type, more.get("scaling"), more.get("limits"), 0.0, bindings)


def device(found: TagConfig) -> DeviceConfig:
    return DeviceConfig(1, "boiler", 1, {}, (found,))


@pytest.mark.parametrize(
    ("bindings", "owner", "protocol"),
    [
        ((modbus(),), "field_server", "modbus"),
        ((mqtt(Direction.OUT), modbus()), "field_server", "modbus"),
        ((MAILBOX,), "modbus_server", "modbus_server"),
        ((SIMULATED, modbus(Direction.OUT)), "field_server", "modbus"),
        ((modbus(Direction.OUT), mqtt(Direction.OUT)), "mqtt_server", "mqtt"),
        ((SIMULATED,), "field_server", "simulated"),
    ],
)
def test_the_owner_of_the_source_or_of_the_first_output_sets_a_tag(
    bindings: tuple[BindingConfig, ...], owner: str, protocol: str
) -> None:
    found = tag(*bindings)
    route = command_route(device(found), found)
    assert (route.owner, route.binding.protocol) == (owner, protocol)


@pytest.mark.parametrize(
    ("bindings", "reason"),
    [
        ((mqtt(Direction.IN), modbus(Direction.OUT)), "boiler@level is read only: it is read from mqtt"),
        ((modbus(Direction.IN),), "read from modbus"),
        ((), "no binding that writes it"),
        ((modbus(table=Table.INPUT_REGISTER),), "a input_register cannot be written"),
    ],
)
def test_what_nobody_sets_is_read_only(bindings: tuple[BindingConfig, ...], reason: str) -> None:
    found = tag(*bindings)
    with pytest.raises(Conflict, match=reason):
        command_route(device(found), found)


def test_a_tag_is_written_with_the_scaling_that_it_is_read_with() -> None:
    scaled = ScalingConfig(0.1)
    found = tag(modbus(), scaling=scaled)
    assert command_route(device(found), found).binding.scaling == scaled
    own = tag(modbus(scaling=ScalingConfig(2)), scaling=scaled)
    assert command_route(device(own), own).binding.scaling == ScalingConfig(2)
    out = tag(modbus(Direction.OUT), scaling=scaled)
    assert command_route(device(out), out).binding.scaling == scaled


@pytest.mark.parametrize(
    ("data_type", "value", "result"),
    [
        (DataType.FLOAT, 5, 5.0),
        (DataType.FLOAT, 2**53 + 1, 2**53 + 1),
        (DataType.INT, 5.0, 5),
        (DataType.INT, -(2**63), -(2**63)),
        (DataType.BOOL, 1, True),
        (DataType.BOOL, 0.0, False),
        (DataType.BOOL, True, True),
        (DataType.STRING, "on", "on"),
    ],
)
def test_a_value_becomes_one_of_the_tags_type(data_type: DataType, value: Value, result: Value) -> None:
    found = check_command(tag(data_type=data_type), value)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("data_type", "value", "code"),
    [
        (DataType.FLOAT, math.nan, RejectCode.OUT_OF_RANGE),
        (DataType.FLOAT, math.inf, RejectCode.OUT_OF_RANGE),
        (DataType.FLOAT, "5", RejectCode.WRONG_TYPE),
        (DataType.FLOAT, True, RejectCode.WRONG_TYPE),
        (DataType.FLOAT, None, RejectCode.WRONG_TYPE),
        (DataType.FLOAT, [5], RejectCode.WRONG_TYPE),
        (DataType.INT, 5.5, RejectCode.NOT_INTEGER),
        (DataType.INT, 1e300, RejectCode.OUT_OF_RANGE),
        (DataType.INT, 2**64, RejectCode.OUT_OF_RANGE),
        (DataType.INT, math.nan, RejectCode.OUT_OF_RANGE),
        (DataType.BOOL, 2, RejectCode.WRONG_TYPE),
        (DataType.BOOL, "true", RejectCode.WRONG_TYPE),
        (DataType.STRING, 5, RejectCode.WRONG_TYPE),
    ],
)
def test_a_value_of_another_type_is_refused(data_type: DataType, value: object, code: RejectCode) -> None:
    with pytest.raises(BadValue) as caught:
        check_command(tag(data_type=data_type), value)
    assert caught.value.code is code


@pytest.mark.parametrize("action", OutOfLimits)
def test_a_command_outside_limits_is_refused_and_never_clamped(action: OutOfLimits) -> None:
    limits = LimitsConfig(0, 100, action)
    for value, message in (
        (100.5, "100.5 is above the tag's limit high, 100"),
        (-1, "-1 is below the tag's limit low, 0"),
    ):
        with pytest.raises(BadValue, match=message):
            check_command(tag(limits=limits), value)
    assert check_command(tag(limits=limits), 100) == 100.0
    binding = modbus(limits=LimitsConfig(10, 20, action), type=RegisterType.FLOAT32)
    with pytest.raises(BadValue, match="21 is above the binding's limit high, 20"):
        check_command(tag(binding, limits=limits), 21, binding)


@pytest.mark.parametrize(
    ("binding", "value"),
    [
        (modbus(), 70_000),
        (modbus(), 5.5),
        (modbus(type=RegisterType.FLOAT32), 1e39),
        (modbus(type=RegisterType.INT16, scaling=ScalingConfig(0.1)), 4_000),
        (modbus(table=Table.COIL), 2),
    ],
)
def test_a_value_that_the_registers_cannot_hold_is_refused(binding: BindingConfig, value: Value) -> None:
    with pytest.raises(BadValue):
        check_command(tag(binding), value, binding)


def test_a_truth_value_is_a_number_to_a_number_type() -> None:
    for type in (RegisterType.UINT16, RegisterType.FLOAT64):
        binding = modbus(type=type)
        config = tag(binding, data_type=DataType.BOOL)
        assert check_command(config, True, binding) is True
        raw = compile_raw(config, binding)(True)
        assert raw == 1
        assert not isinstance(raw, bool), "the driver encodes it as it is"


def test_a_text_of_the_enum_is_its_value() -> None:
    binding = mqtt(Direction.OUT, enum={"open": 1, "closed": 0})
    assert check_command(tag(binding, data_type=DataType.INT), "open", binding) == 1
    assert check_command(tag(binding, data_type=DataType.INT), 1, binding) == 1
    with pytest.raises(BadValue, match="integer 7 is none of the values 1, 0"):
        check_command(tag(binding, data_type=DataType.INT), 7, binding)
    with pytest.raises(BadValue, match="'ajar' is none of the texts open, closed"):
        check_command(tag(binding, data_type=DataType.INT), "ajar", binding)


def test_commands_are_read_back_unless_the_options_say_otherwise() -> None:
    assert verification(modbus()) == Verification(True)
    assert verification(modbus(options=ModbusOptions(verify=False))) == Verification(False)
    assert verification(modbus(options=ModbusOptions(tolerance=0.5))) == Verification(True, 0.5)
    assert verification(modbus(options=ModbusOptions(feedback="is"))) == Verification(False, 0.0, "is")
    assert verification(SIMULATED) == Verification(True)
    assert verification(MAILBOX) == Verification(True)
    assert verification(mqtt(Direction.OUT)) == Verification(False)


@given(
    st.sampled_from([RegisterType.INT16, RegisterType.INT32, RegisterType.FLOAT32, RegisterType.FLOAT64]),
    st.floats(-1e3, 1e3).filter(lambda gain: abs(gain) > 1e-3),
    st.floats(-1e3, 1e3),
    st.floats(-1e6, 1e6),
)
def test_what_a_device_took_is_found_again(type: RegisterType, gain: float, offset: float, value: float) -> None:
    """Scaled, rounded and coded as for writing, then back as for reading."""
    binding = modbus(type=type, scaling=ScalingConfig(gain, offset))
    scaling, coder = Scaling(gain, offset), codec(type)
    raw = scaling.to_raw(value)
    try:
        data = coder.encode(raw if type in (RegisterType.FLOAT32, RegisterType.FLOAT64) else round_half_away(raw))
    except BadValue:
        return
    found: Any = coder.decode(data)
    assert is_reached(binding, value, scaling.to_engineering(found))
    if type in (RegisterType.INT16, RegisterType.INT32):
        assert not is_reached(binding, value, scaling.to_engineering(found + 2))


@pytest.mark.parametrize(
    ("binding", "wanted", "found", "reached"),
    [
        (modbus(type=RegisterType.FLOAT32), 0.1, 0.10000000149011612, True),
        (modbus(type=RegisterType.FLOAT64), 0.1, 0.10000000149011612, False),
        (modbus(type=RegisterType.FLOAT32, options=ModbusOptions(tolerance=0.5)), 20.0, 20.5, True),
        (modbus(type=RegisterType.FLOAT32, options=ModbusOptions(tolerance=0.5)), 20.0, 20.6, False),
        (modbus(), 5, 6, False),
        (modbus(), 5, 5.0, True),
        (modbus(), True, 1, True),
        (modbus(), False, 1, False),
        (modbus(), "on", "on", True),
        (modbus(), "on", 1, False),
        (modbus(), 5, None, False),
        (modbus(), 5.0, math.nan, False),
        (SIMULATED, 0.1 + 0.2, 0.3, True),
        (SIMULATED, 0.3, 0.31, False),
    ],
)
def test_a_value_is_reached_within_what_the_place_can_hold(
    binding: BindingConfig, wanted: Value, found: object, reached: bool
) -> None:
    assert is_reached(binding, wanted, found) is reached


def test_a_coarser_feedback_tag_counts_in_its_own_steps() -> None:
    written = modbus(type=RegisterType.FLOAT32)
    coarse = modbus(Direction.IN, type=RegisterType.INT16, scaling=ScalingConfig(0.5), table=Table.INPUT_REGISTER)
    assert not is_reached(written, 20.2, 20.0)
    assert is_reached(written, 20.2, 20.0, coarse)

"""What may be set: who carries a tag's commands out, whether it takes a value, and whether the value was reached. Pure."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

from scada.config import BindingConfig, DeviceConfig, Direction, LimitsConfig, TagConfig
from scada.conversion import INTEGER_TYPES, compile_encode, encode_coil
from scada.errors import Conflict, Fault
from scada.modbus.registers import EXACT_FLOAT, RegisterType, codec
from scada.protocols.modbus import ModbusAddress
from scada.registry import PROTOCOLS
from scada.scaling import Scaling, round_half_away
from scada.values import TYPE_NAMES, BadValue, DataType, RejectCode, Value

# IEEE 754: half a unit in the last place, relative to the number; a whole one, as scaling rounds once more.
_FLOAT32_STEP = 2.0**-23
_FLOAT64_STEP = 2.0**-48


class Route(NamedTuple):
    """The program that carries out a tag's commands, and the binding it does so by, with the scaling that is in force."""

    owner: str
    binding: BindingConfig


@dataclass(frozen=True, slots=True)
class Verification:
    """How an owner knows that a value was taken.

    `read_back`: read the binding's own place again. `feedback`: another tag of the device must reach the value, before the
    command expires. Neither: the device's acknowledgement is final. `tolerance` is in engineering units.
    """

    read_back: bool
    tolerance: float = 0.0
    feedback: str | None = None


def command_route(device: DeviceConfig, tag: TagConfig) -> Route:
    """Who sets a tag of a device; raises Conflict with the reason why nobody does.

    A tag with a source is set by its source, which must be `inout`. One without is a setpoint: its first binding `out`, in the
    order of `scada.registry`, sets it. Where that binding has no scaling of its own, the tag's is in force, as for reading.
    """
    name = f"{device.name}@{tag.name}"
    source = next((each for each in tag.bindings if each.direction is not Direction.OUT), None)
    if source is not None:
        if source.direction is Direction.IN:
            raise _read_only(f"{name} is read only: it is read from {source.protocol} (direction in, not inout)")
        binding = source
    else:
        order = list(PROTOCOLS)
        outs = sorted(tag.bindings, key=lambda each: order.index(each.protocol))
        if not outs:
            raise _read_only(f"{name} is read only: it has no binding that writes it anywhere")
        binding = outs[0]
    address = binding.address
    if binding.protocol == "modbus" and isinstance(address, ModbusAddress) and not address.table.is_writable:
        raise _read_only(f"{name} is read only: a {address.table} cannot be written")
    if binding.scaling is None and tag.scaling is not None:
        binding = dataclasses.replace(binding, scaling=tag.scaling)
    return Route(PROTOCOLS[binding.protocol].owner, binding)


def check_command(tag: TagConfig, value: object, binding: BindingConfig | None = None) -> Value:
    """The value as the tag has it: 1 is true for a bool, 5.0 is 5 for an int, a text of the binding's `enum` is its number.

    Raises BadValue that names the type or the limit. A command outside limits is refused even where measured values are
    clamped: nobody asked for the limit. With the binding of its route it is also checked whether the registers can hold it.
    Raises ConfigError for a binding that cannot be used.
    """
    result = _typed(tag.data_type, _translated(tag, value, binding))
    if isinstance(result, int | float) and not isinstance(result, bool):
        _check_limits(tag.limits, result, "the tag's")
        _check_limits(None if binding is None else binding.limits, result, "the binding's")
    if binding is not None and isinstance(binding.address, ModbusAddress):
        _encoded(tag.data_type, binding, binding.address, result)
    return result


def verification(binding: BindingConfig) -> Verification:
    """How a command over this binding is verified.

    Commands are read back unless the options say otherwise (`verify: false`); over MQTT there is nothing to read.
    """
    if binding.protocol == "mqtt":
        return Verification(read_back=False)
    options: Any = binding.options
    feedback = getattr(options, "feedback", None)
    wanted = getattr(options, "verify", None) is not False
    return Verification(wanted and feedback is None, getattr(options, "tolerance", 0.0), feedback)


def is_reached(binding: BindingConfig, wanted: Value, found: object, source: BindingConfig | None = None) -> bool:
    """Whether `found` is what `wanted` became on the device, both in engineering units.

    Numbers may differ by the binding's `tolerance`, or by what its registers cannot tell apart: what becomes the same integer, a
    float32's rounding. `source` is the binding of the feedback tag where that is another one: half a step of a scaled integer.
    """
    if isinstance(wanted, str) or isinstance(found, str):
        return wanted == found
    if not isinstance(found, bool | int | float):
        return False
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted == found
    if not isfinite(found):
        return False
    tolerance = verification(binding).tolerance
    address = binding.address
    is_whole = isinstance(address, ModbusAddress) and not address.table.is_bits and address.type in INTEGER_TYPES
    if source is None and is_whole:
        return abs(found - wanted) <= tolerance or _whole(binding, found) == _whole(binding, wanted)
    allowed = max(tolerance, _resolution(binding, wanted))
    if source is not None:
        allowed = max(allowed, _resolution(source, wanted))
    return abs(found - wanted) <= allowed


def _read_only(message: str) -> Conflict:
    return Conflict([Fault("", message)])


def _translated(tag: TagConfig, value: object, binding: BindingConfig | None) -> object:
    texts = None if binding is None else getattr(binding.options, "enum", None)
    if texts is None or tag.data_type is DataType.STRING:
        return value
    if not isinstance(value, str):
        if value not in texts.values():
            message = f"{_shown(value)} is none of the values {', '.join(map(repr, texts.values()))}"
            raise BadValue(RejectCode.UNKNOWN_TEXT, message[:300])
        return value
    if value not in texts:
        message = f"{_shown(value)} is none of the texts {', '.join(texts)}"
        raise BadValue(RejectCode.UNKNOWN_TEXT, message[:300])
    found: object = texts[value]
    return found


def _typed(data_type: DataType, value: object) -> Value:
    if data_type is DataType.STRING:
        if isinstance(value, str):
            return value
        raise _wrong_type("text", value)
    if data_type is DataType.BOOL:
        if isinstance(value, bool):
            return value
        if isinstance(value, int | float) and value in (0, 1):
            return bool(value)
        raise _wrong_type("true, false, 1 or 0", value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type("a number" if data_type is DataType.FLOAT else "an integer", value)
    if isinstance(value, float) and not isfinite(value):
        raise BadValue(RejectCode.OUT_OF_RANGE, f"must be a finite number, not {value}")
    if data_type is DataType.FLOAT:
        # An integer that a float cannot tell from its neighbour stays what it is.
        return float(value) if abs(value) < EXACT_FLOAT else value
    if isinstance(value, float):
        if not value.is_integer():
            raise BadValue(RejectCode.NOT_INTEGER, f"must be an integer, not {value!r}")
        if abs(value) >= EXACT_FLOAT:
            raise BadValue(RejectCode.OUT_OF_RANGE, f"must be an integer, or a number below 2**53, not {value!r}")
    whole = int(value)
    if not -(2**63) <= whole < 2**64:
        raise BadValue(RejectCode.OUT_OF_RANGE, "must be an integer of 64 bits")
    return whole


def _check_limits(limits: LimitsConfig | None, value: float, whose: str) -> None:
    if limits is None:
        return
    if limits.low is not None and value < limits.low:
        raise BadValue(RejectCode.OUT_OF_RANGE, f"{value:.17g} is below {whose} limit low, {limits.low:.17g}")
    if limits.high is not None and value > limits.high:
        raise BadValue(RejectCode.OUT_OF_RANGE, f"{value:.17g} is above {whose} limit high, {limits.high:.17g}")


def _encoded(data_type: DataType, binding: BindingConfig, address: ModbusAddress, value: Value) -> bytes:
    encode: Callable[[Value], bytes] = encode_coil
    if not address.table.is_bits:
        encode = codec(address.type, address.order, length=address.length, bit=address.bit).encode
    options: Any = binding.options
    return compile_encode(data_type, address, options, binding, encode)(value)


def _whole(binding: BindingConfig, value: float) -> int:
    """The integer in the registers of a binding that stands for an engineering value."""
    scaling = binding.scaling
    return round_half_away(value if scaling is None else Scaling(scaling.gain, scaling.offset).to_raw(value))


def _resolution(binding: BindingConfig, value: float) -> float:
    """What the place of a binding cannot tell apart around an engineering value."""
    scaling, address = binding.scaling, binding.address
    gain, offset = (1.0, 0.0) if scaling is None else (abs(scaling.gain), scaling.offset)
    rounding = _FLOAT64_STEP * (abs(value) + abs(offset))
    if not isinstance(address, ModbusAddress) or address.table.is_bits:
        return rounding
    if address.type in INTEGER_TYPES:
        return gain / 2 + rounding
    if address.type is RegisterType.FLOAT32:
        # Below 2**-126 a float32 has steps of 2**-149 (IEEE 754, subnormal numbers).
        return max(_FLOAT32_STEP * abs(value - offset), gain * 2.0**-149) + rounding
    return rounding


def _wrong_type(wanted: str, value: object) -> BadValue:
    return BadValue(RejectCode.WRONG_TYPE, f"must be {wanted}, not {_shown(value)}")


def _shown(value: object) -> str:
    kind = TYPE_NAMES.get(type(value), type(value).__name__)
    if isinstance(value, str | int | float):
        text = repr(value)
        return f"{kind} {text if len(text) <= 60 else text[:57] + '...'}"
    return kind

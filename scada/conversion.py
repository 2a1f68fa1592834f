"""The steps between a payload's value and register bytes, chained into one closure per binding.

In: pick, translate texts, check the type, scale to engineering units, apply limits. Out: limits, scale to raw, round, encode.
Every step raises BadValue for a value that it cannot take.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

from scada.config import BindingConfig, LimitsConfig, ScalingConfig, TagConfig
from scada.modbus.registers import EXACT_FLOAT, RegisterType
from scada.paths import compile_path
from scada.payload import decode_payload
from scada.protocols.modbus import ModbusAddress
from scada.protocols.mqtt import MqttAddress, MqttOptions
from scada.scaling import Limits, Scaling, round_half_away
from scada.values import TYPE_NAMES, BadValue, DataType, RejectCode, Value

Step = Callable[[Any], Any]

INTEGER_TYPES = frozenset(RegisterType) - {
    RegisterType.FLOAT32,
    RegisterType.FLOAT64,
    RegisterType.BOOL,
    RegisterType.STRING,
}


def compile_read(tag: TagConfig, source: BindingConfig, limits: Sequence[Limits]) -> Callable[[Any], Value]:
    """A closure from a decoded payload to the tag's engineering value: pick, type, scale, limit."""
    address = cast(MqttAddress, source.address)
    options = cast(MqttOptions, source.options)
    get = _compile_bits(address.bits) if address.bits is not None else compile_path(address.path or "").get
    steps: list[Step] = []
    if options.enum is not None:
        steps.append(_compile_enum(options.enum, options.numeric_text))
    steps += _engineering_steps(tag, source, options.numeric_text)
    steps += [each.apply for each in limits]
    return _chain(get, steps)


def compile_engineering(tag: TagConfig, source: BindingConfig) -> Callable[[Value], Value]:
    """A closure from a driver's raw value to the tag's engineering value: type, scale. A bit counts as 0 or 1 for a number."""
    steps = _engineering_steps(tag, source, False)
    if steps == [_number]:
        return _number_or_bit
    if tag.data_type in (DataType.FLOAT, DataType.INT):
        return _chain(_bit_as_number, steps)
    return _chain(steps[0], steps[1:])


def compile_raw(tag: TagConfig, binding: BindingConfig) -> Callable[[Value], Value]:
    """A closure from an engineering value to the raw value that a driver writes, scaled by the binding's own scaling only."""
    scaling = binding.scaling
    if _is_numbered(tag.data_type, binding.address):
        return _bit_as_number
    if tag.data_type not in (DataType.FLOAT, DataType.INT) or scaling is None or _is_identity(scaling):
        return lambda value: value
    to_raw = Scaling(scaling.gain, scaling.offset).to_raw
    if getattr(binding.address, "type", None) in INTEGER_TYPES:
        return lambda value: round_half_away(to_raw(_number(value)))
    return lambda value: to_raw(_number(value))


def compile_limits(tag: TagConfig, source: BindingConfig) -> tuple[Limits, ...]:
    """The limits of a tag's value, the binding's first; none for text and truth values."""
    if tag.data_type not in (DataType.FLOAT, DataType.INT):
        return ()
    found = (source.limits, tag.limits)
    return tuple(make_limits(tag.data_type, limits) for limits in found if limits is not None)


def make_limits(data_type: DataType, limits: LimitsConfig) -> Limits:
    """Limits of a value of a tag of that type."""
    return Limits(limits.low, limits.high, limits.action, whole=data_type is DataType.INT)


def _engineering_steps(tag: TagConfig, source: BindingConfig, numeric_text: bool) -> list[Step]:
    scaling = source.scaling or tag.scaling
    if tag.data_type not in (DataType.FLOAT, DataType.INT) or scaling is None or _is_identity(scaling):
        return [_compile_type(tag.data_type, numeric_text)]
    # The raw value of a scaled integer may be a fraction; the engineering value is rounded to one.
    steps = [_compile_type(DataType.FLOAT, numeric_text), Scaling(scaling.gain, scaling.offset).to_engineering]
    return [*steps, _whole] if tag.data_type is DataType.INT else steps


def _bit_as_number(value: Any) -> Any:
    return int(value) if value is True or value is False else value


class Rounding(Protocol):
    """Options that say whether a fraction is rounded for an integer type; None: only when the binding scales."""

    @property
    def round(self) -> bool | None: ...


def compile_encode(
    data_type: DataType,
    address: ModbusAddress,
    options: Rounding,
    binding: BindingConfig,
    encode: Callable[[Value], bytes],
) -> Callable[[Value], bytes]:
    """A closure from an engineering value of a tag's type to register bytes: limit, scale, round, encode.

    Text and truth values have no limits and no scaling; true is 1 to a type of numbers, false 0.
    """
    if data_type not in (DataType.FLOAT, DataType.INT):
        return _chain(_bit_as_number, [encode]) if _is_numbered(data_type, address) else encode
    steps: list[Step] = []
    if binding.limits is not None:
        steps.append(_number)
        steps.append(cast(Step, make_limits(data_type, binding.limits).apply))
    scaled = binding.scaling is not None and not _is_identity(binding.scaling)
    if scaled:
        scaling = cast(ScalingConfig, binding.scaling)
        steps.append(_number)
        steps.append(Scaling(scaling.gain, scaling.offset).to_raw)
    wants_round = scaled if options.round is None else options.round
    if wants_round and not address.table.is_bits and address.type in INTEGER_TYPES:
        steps.append(_rounded)
    if not steps:
        return encode
    return _chain(steps[0], [*steps[1:], encode])


def _chain(first: Step, steps: Sequence[Step]) -> Step:
    """`first`, then each step; two at a time, because every call counts for every value."""
    if not steps:
        return first
    one = steps[0]
    if len(steps) == 1:
        return lambda x: one(first(x))
    two = steps[1]
    return _chain(lambda x: two(one(first(x))), steps[2:])


def _is_numbered(data_type: DataType, address: object) -> bool:
    """Whether truth values stand as the numbers 0 and 1 in the registers of an address."""
    if data_type is not DataType.BOOL or not isinstance(address, ModbusAddress) or address.table.is_bits:
        return False
    return address.type not in (RegisterType.BOOL, RegisterType.STRING)


def _is_identity(scaling: ScalingConfig) -> bool:
    return scaling.gain == 1.0 and scaling.offset == 0.0


def _rounded(value: Any) -> Any:
    return round_half_away(value) if type(value) is float else value


def _whole(value: Any) -> Any:
    """An integer that every part can hold: JSON, and with it the outbox, ends at 64 bits."""
    whole = _rounded(value)
    if not -(2**63) <= whole < 2**64:
        raise BadValue(RejectCode.OUT_OF_RANGE, f"must be an integer of 64 bits after scaling, not {value!r}")
    return whole


def encode_coil(value: Value) -> bytes:
    """A coil takes a bool, or the numbers 0 and 1."""
    if value in (0, 1):  # no text equals either
        return b"\x01" if value else b"\x00"
    raise BadValue(RejectCode.WRONG_TYPE, f"a coil takes true, false, 1 or 0, not {_shown(value)}")


def _compile_bits(paths: tuple[str, ...]) -> Callable[[Any], int]:
    getters = tuple((index, compile_path(path).get) for index, path in enumerate(paths))

    def pack(document: Any) -> int:
        result = 0
        for index, get in getters:
            if _as_bool(get(document)):
                result |= 1 << index
        return result

    return pack


def _compile_enum(texts: Mapping[str, object], numeric_text: bool) -> Step:
    def translate(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value in texts:
            return texts[value]
        if numeric_text:
            with suppress(BadValue):
                return _numeric_text(value)
        raise BadValue(RejectCode.UNKNOWN_TEXT, f"{_shown(value)} is none of the texts {', '.join(texts)}"[:300])

    return translate


def _compile_type(data_type: DataType, numeric_text: bool) -> Step:
    plain = {DataType.FLOAT: _number, DataType.INT: _integer, DataType.BOOL: _as_bool, DataType.STRING: _text}[
        data_type
    ]
    if not numeric_text or data_type not in (DataType.FLOAT, DataType.INT):
        return plain
    return lambda value: plain(_numeric_text(value) if isinstance(value, str) else value)


def _number(value: Any) -> Any:
    kind = type(value)
    if kind is float or kind is int:
        return value
    raise BadValue(RejectCode.WRONG_TYPE, f"must be a number, not {_shown(value)}")


def _number_or_bit(value: Any) -> Any:
    kind = type(value)
    return value if kind is float or kind is int else _number(_bit_as_number(value))


def _integer(value: Any) -> int:
    kind = type(value)
    if kind is int:
        return cast(int, value)
    if kind is float:
        if abs(value) >= EXACT_FLOAT:  # JSON's -2**63-1 arrives as the float -2**63, which is another integer
            raise BadValue(
                RejectCode.OUT_OF_RANGE, f"must be an integer of 64 bits, or a number below 2**53, not {value!r}"
            )
        if value.is_integer():
            return int(value)
        raise BadValue(RejectCode.NOT_INTEGER, f"must be an integer, not {value!r}")
    raise BadValue(RejectCode.WRONG_TYPE, f"must be an integer, not {_shown(value)}")


def _as_bool(value: Any) -> bool:
    if value is True or value is False:
        return value
    if type(value) in (int, float) and value in (0, 1):
        return bool(value)
    raise BadValue(RejectCode.WRONG_TYPE, f"must be true, false, 1 or 0, not {_shown(value)}")


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise BadValue(RejectCode.WRONG_TYPE, f"must be text, not {_shown(value)}")


def _numeric_text(text: str) -> int | float:
    """The number in a text, as JSON writes numbers; spaces around it are allowed, "nan", "inf" and "1_000" are not."""
    try:
        value = decode_payload(text.strip().encode())
    except BadValue:
        value = None
    if type(value) is int or type(value) is float:
        return value
    raise BadValue(RejectCode.WRONG_TYPE, f"must be a number, not the {_shown(text)}")


def kind_of(value: object) -> str:
    return TYPE_NAMES.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    """A value as a message may quote it: its kind, and its text when that is short."""
    if isinstance(value, dict | list) or value is None:
        return kind_of(value)
    text = repr(value)
    return f"{kind_of(value)} {text if len(text) <= 60 else text[:57] + '...'}"

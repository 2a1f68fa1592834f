"""From a message to register writes: plans compiled once per device, then applied to each message.

Pure: the plan of a device holds closures; mapping a message touches no clock, no network, no log.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from scada.config import (
    BindingConfig,
    DeviceConfig,
    Direction,
    LimitsConfig,
    ModbusAddress,
    ModbusNetwork,
    ModbusOptions,
    MqttAddress,
    MqttNetwork,
    MqttOptions,
    ScalingConfig,
    TagConfig,
)
from scada.errors import ConfigError, Fault
from scada.modbus.endpoint import Endpoint
from scada.modbus.limits import Table
from scada.modbus.registers import RegisterType, codec
from scada.paths import compile_path
from scada.payload import decode_payload
from scada.scaling import Limits, Scaling, round_half_away
from scada.timestamps import compile_time
from scada.values import TYPE_NAMES, BadValue, DataType, RejectCode, Value

MAX_SAMPLES = 10_000
"""Most samples taken from one message; the payload's own size limit keeps real messages far below."""

INTEGER_TYPES = frozenset(RegisterType) - {
    RegisterType.FLOAT32,
    RegisterType.FLOAT64,
    RegisterType.BOOL,
    RegisterType.STRING,
}


@dataclass(frozen=True, slots=True)
class OutPlan:
    """One place a tag is written to. `encode` turns an engineering value into register bytes (a coil: one byte, 0 or 1).

    `count` is registers, or 1 for a coil. `mask` marks the one bit that the binding owns of its register.
    """

    binding_id: int
    device: str
    tag: str
    endpoint: Endpoint
    network: ModbusNetwork
    unit_id: int
    table: Table
    address: int
    count: int
    bit: int | None
    options: ModbusOptions
    config: BindingConfig
    encode: Callable[[Value], bytes]

    @property
    def place(self) -> str:
        """Where the value goes, for messages."""
        bit = "" if self.bit is None else f" bit {self.bit}"
        return f"{self.endpoint} unit {self.unit_id} {self.table} {self.address}{bit}"


@dataclass(frozen=True, slots=True)
class TagPlan:
    """One tag of a device: how its value is read from a decoded payload (raises BadValue), and where it goes."""

    tag_id: int
    name: str
    read: Callable[[Any], Value]
    outs: tuple[OutPlan, ...]


class Write(NamedTuple):
    """One value for one binding: `data` are its register bytes, `value` the engineering value, `time_ms` the source time."""

    out: OutPlan
    data: bytes
    value: Value
    time_ms: int


class Reject(NamedTuple):
    """Why a message (tag None) or a tag's value was not written."""

    code: RejectCode
    reason: str
    tag: str | None


class Mapped(NamedTuple):
    """What a message came to."""

    writes: list[Write]
    rejects: list[Reject]


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A device that publishes over MQTT, compiled. `faults` are the parts of its configuration that were left out."""

    device_id: int
    name: str
    revision: int
    topic: str
    tags: tuple[TagPlan, ...]
    samples: Callable[[Any], Any] | None
    time: Callable[[Any], int] | None
    faults: tuple[Fault, ...]

    def map(self, payload: bytes, now_ms: int) -> Mapped:
        """Map one message's payload; never raises for what the payload holds. `now_ms` serves where it has no time stamp."""
        writes: list[Write] = []
        rejects: list[Reject] = []
        try:
            document = decode_payload(payload)
            documents = (document,) if self.samples is None else self._samples(document)
        except BadValue as error:
            rejects.append(Reject(error.code, str(error), None))
            return Mapped(writes, rejects)
        for document in documents:
            time_ms = now_ms
            if self.time is not None:
                try:
                    time_ms = self.time(document)
                except BadValue as error:
                    rejects.append(Reject(error.code, str(error), None))
                    continue
            for tag in self.tags:
                try:
                    value = tag.read(document)
                except BadValue as error:
                    rejects.append(Reject(error.code, str(error), tag.name))
                    continue
                for out in tag.outs:
                    try:
                        writes.append(Write(out, out.encode(value), value, time_ms))
                    except BadValue as error:
                        rejects.append(Reject(error.code, f"{out.place}: {error}", tag.name))
        return Mapped(writes, rejects)

    def _samples(self, document: Any) -> list[Any]:
        samples = cast("Callable[[Any], Any]", self.samples)(document)
        if not isinstance(samples, list):
            raise BadValue(RejectCode.WRONG_TYPE, f"samples must be an array, not {_kind(samples)}")
        if len(samples) > MAX_SAMPLES:
            raise BadValue(
                RejectCode.TOO_LARGE, f"{len(samples)} samples in one message, at most {MAX_SAMPLES} are taken"
            )
        return samples


def default_topic(device_id: int) -> str:
    """The topic of a device whose configuration names none."""
    return f"device/{device_id}"


def compile_device(device: DeviceConfig) -> DevicePlan | None:
    """The plan of a device, or None when it has no MQTT network. What cannot be compiled is left out and listed in `faults`."""
    network = device.networks.get("mqtt")
    if not isinstance(network, MqttNetwork):
        return None
    faults = list(device.faults)
    tags: list[TagPlan] = []
    modbus = device.networks.get("modbus")
    field_side = modbus if isinstance(modbus, ModbusNetwork) else None
    endpoint = None if field_side is None else field_side.endpoint
    for tag in device.tags:
        try:
            plan = _compile_tag(device, tag, field_side, endpoint)
        except ConfigError as error:
            faults.extend(Fault(f"{device.name}@{tag.name}", str(fault)) for fault in error.faults)
            continue
        if plan is not None:
            tags.append(plan)
    samples = None if network.samples is None else compile_path(network.samples).get
    topic = network.topic or default_topic(device.id)
    return DevicePlan(
        device.id, device.name, device.revision, topic, tuple(tags), samples, _compile_time(network), tuple(faults)
    )


def _compile_out(
    device: DeviceConfig,
    tag: TagConfig,
    binding: BindingConfig,
    network: ModbusNetwork | None,
    endpoint: Endpoint | None,
) -> OutPlan:
    """One Modbus `out` binding."""
    if network is None or endpoint is None:
        raise ConfigError("has a modbus binding, but the device has no modbus network")
    address = cast(ModbusAddress, binding.address)
    options = cast(ModbusOptions, binding.options)
    coil = address.table is Table.COIL
    if not coil and address.table is not Table.HOLDING_REGISTER:
        raise ConfigError(f"a {address.table} cannot be written")
    encoding = None if coil else codec(address.type, address.order, length=address.length, bit=address.bit)
    encode = _compile_encode(address, options, binding, _encode_coil if encoding is None else encoding.encode)
    return OutPlan(
        binding_id=binding.id,
        device=device.name,
        tag=tag.name,
        endpoint=endpoint,
        network=network,
        unit_id=1 if address.unit_id is None else address.unit_id,
        table=address.table,
        address=address.register,
        count=1 if encoding is None else encoding.registers,
        bit=address.bit,
        options=options,
        config=binding,
        encode=encode,
    )


def _compile_tag(
    device: DeviceConfig, tag: TagConfig, network: ModbusNetwork | None, endpoint: Endpoint | None
) -> TagPlan | None:
    read: Callable[[Any], Value] | None = None
    outs: list[OutPlan] = []
    for binding in tag.bindings:
        if binding.protocol == "mqtt" and binding.direction is not Direction.OUT:
            read = _compile_read(tag, binding)
        elif binding.protocol == "modbus" and binding.direction is not Direction.IN:
            outs.append(_compile_out(device, tag, binding, network, endpoint))
    return None if read is None else TagPlan(tag.id, tag.name, read, tuple(outs))


def _compile_time(network: MqttNetwork) -> Callable[[Any], int] | None:
    if network.time is None:
        return None
    get, convert = compile_path(network.time).get, compile_time(network.time_format)
    return lambda document: convert(get(document))


def _compile_read(tag: TagConfig, source: BindingConfig) -> Callable[[Any], Value]:
    """A closure from a decoded payload to the tag's engineering value: pick, type, scale, limit."""
    address = cast(MqttAddress, source.address)
    options = cast(MqttOptions, source.options)
    get = _compile_bits(address.bits) if address.bits is not None else compile_path(address.path or "").get
    steps: list[Callable[[Any], Any]] = []
    if options.enum is not None:
        steps.append(_compile_enum(options.enum))
    steps.append(_compile_type(tag.data_type, options.numeric_text))
    numeric = tag.data_type in (DataType.FLOAT, DataType.INT)
    scaling = source.scaling or tag.scaling
    if numeric and scaling is not None and not _is_identity(scaling):
        steps.append(Scaling(scaling.gain, scaling.offset).to_engineering)
        if tag.data_type is DataType.INT:
            steps.append(round_half_away)
    if numeric:
        steps.extend(_limit_step(limits) for limits in (source.limits, tag.limits) if limits is not None)
    return _chain(get, steps)


def _compile_encode(
    address: ModbusAddress, options: ModbusOptions, binding: BindingConfig, encode: Callable[[Value], bytes]
) -> Callable[[Value], bytes]:
    """A closure from an engineering value to register bytes: limit, scale, round, encode."""
    steps: list[Callable[[Any], Any]] = []
    if binding.limits is not None:
        steps.append(_number)
        steps.append(_limit_step(binding.limits))
    scaled = binding.scaling is not None and not _is_identity(binding.scaling)
    if scaled:
        scaling = cast(ScalingConfig, binding.scaling)
        steps.append(_number)
        steps.append(Scaling(scaling.gain, scaling.offset).to_raw)
    wants_round = scaled if options.round is None else options.round
    if wants_round and address.table is Table.HOLDING_REGISTER and address.type in INTEGER_TYPES:
        steps.append(_rounded)
    if not steps:
        return encode
    return _chain(steps[0], [*steps[1:], encode])


def _chain(first: Callable[[Any], Any], steps: Iterable[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """`first`, then each step; unrolled for the common lengths because this runs for every value."""
    one, two, *rest = [*steps, None, None]
    if one is None:
        return first
    if two is None:
        return lambda x: one(first(x))
    return _chain(lambda x: two(one(first(x))), [step for step in rest if step is not None])


def _limit_step(limits: LimitsConfig) -> Callable[[Any], Any]:
    return Limits(limits.low, limits.high, limits.action).apply


def _is_identity(scaling: ScalingConfig) -> bool:
    return scaling.gain == 1.0 and scaling.offset == 0.0


def _rounded(value: Any) -> Any:
    return round_half_away(value) if type(value) is float else value


def _encode_coil(value: Value) -> bytes:
    """A coil takes a bool, or the numbers 0 and 1."""
    if value in (0, 1) and not isinstance(value, str):
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


def _compile_enum(texts: Mapping[str, object]) -> Callable[[Any], Any]:
    def translate(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in texts:
            raise BadValue(RejectCode.UNKNOWN_TEXT, f"{_shown(value)} is none of the texts {', '.join(texts)}"[:300])
        return texts[value]

    return translate


def _compile_type(data_type: DataType, numeric_text: bool) -> Callable[[Any], Any]:
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


def _integer(value: Any) -> int:
    kind = type(value)
    if kind is int:
        return cast(int, value)
    if kind is float:
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
    except (BadValue, UnicodeEncodeError):
        value = None
    if type(value) not in (int, float):
        raise BadValue(RejectCode.WRONG_TYPE, f"must be a number, not the text {_shown(text)}")
    return cast(int | float, value)


def _kind(value: object) -> str:
    return TYPE_NAMES.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    """A value as a message may quote it: its kind, and its text when that is short."""
    if isinstance(value, dict | list) or value is None:
        return _kind(value)
    text = repr(value)
    return f"{_kind(value)} {text if len(text) <= 60 else text[:57] + '...'}"

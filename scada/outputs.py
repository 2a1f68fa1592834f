"""Where values go: bindings `out` compiled once, to registers of a Modbus device or to names in an MQTT message. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from scada.config import BindingConfig, DeviceConfig, TagConfig
from scada.conversion import compile_encode, compile_raw, encode_coil, make_limits
from scada.errors import ConfigError
from scada.modbus.endpoint import Endpoint
from scada.modbus.limits import Table
from scada.modbus.registers import RegisterType, codec
from scada.paths import compile_path
from scada.protocols.modbus import ModbusAddress, ModbusNetwork, ModbusOptions
from scada.protocols.mqtt import MqttAddress, MqttOptions
from scada.values import BadValue, DataType, RejectCode, Value


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
class Publication:
    """One value in a device's messages, and the keys to it. `encode` makes it of an engineering value; raises BadValue."""

    binding_id: int
    keys: tuple[str, ...]
    encode: Callable[[Value], Value]


class Write(NamedTuple):
    """One value for one binding: `data` are its register bytes, `value` the engineering value, `time_ms` the source time."""

    out: OutPlan
    data: bytes
    value: Value
    time_ms: int


def flag_plan(out: OutPlan) -> OutPlan | None:
    """Where the stale flag of a binding stands, under the binding's negated id; None when it has none."""
    failsafe = out.options.failsafe
    if failsafe is None or failsafe.flag is None:
        return None
    return replace(
        out,
        binding_id=-out.binding_id,
        table=Table.HOLDING_REGISTER,
        address=failsafe.flag,
        count=1,
        bit=None,
        options=ModbusOptions(rewrite_s=out.options.rewrite_s),
        encode=codec(RegisterType.UINT16).encode,
    )


def compile_cells(data_type: DataType, binding: BindingConfig) -> tuple[int, Callable[[Value], bytes]]:
    """How many registers (a coil: 1) a Modbus binding writes, and what turns a tag's value into their bytes."""
    address, options = cast(ModbusAddress, binding.address), cast(ModbusOptions, binding.options)
    if address.table is Table.COIL:
        return 1, compile_encode(data_type, address, options, binding, encode_coil)
    encoding = codec(address.type, address.order, length=address.length, bit=address.bit)
    return encoding.registers, compile_encode(data_type, address, options, binding, encoding.encode)


def compile_out(device: DeviceConfig, tag: TagConfig, binding: BindingConfig, endpoint: Endpoint | None) -> OutPlan:
    """A Modbus binding `out`; raises ConfigError. `endpoint` is that of the device's network, made once for all its bindings."""
    network = device.networks.get("modbus")
    if not isinstance(network, ModbusNetwork) or endpoint is None:
        raise ConfigError("has a modbus binding, but the device has no modbus network")
    address = cast(ModbusAddress, binding.address)
    options = cast(ModbusOptions, binding.options)
    if address.table not in (Table.COIL, Table.HOLDING_REGISTER):
        raise ConfigError(f"a {address.table} cannot be written")
    count, encode = compile_cells(tag.data_type, binding)
    return OutPlan(
        binding_id=binding.id,
        device=device.name,
        tag=tag.name,
        endpoint=endpoint,
        network=network,
        unit_id=1 if address.unit_id is None else address.unit_id,
        table=address.table,
        address=address.register,
        count=count,
        bit=address.bit,
        options=options,
        config=binding,
        encode=encode,
    )


def compile_publication(tag: TagConfig, binding: BindingConfig) -> Publication:
    """An MQTT binding `out`: limits, scaling backwards, the texts of `enum` for their values. Raises ConfigError."""
    address, options = cast(MqttAddress, binding.address), cast(MqttOptions, binding.options)
    keys = tuple(str(part) for part in compile_path(address.path or "").parts)
    if not keys:
        raise ConfigError("a binding out needs a path of names")
    is_number = tag.data_type in (DataType.FLOAT, DataType.INT)
    limits = None if binding.limits is None else make_limits(tag.data_type, binding.limits)
    to_raw = compile_raw(tag, binding)
    texts: dict[Any, str] = {}
    for text, value in (options.enum or {}).items():
        texts.setdefault(value, text)

    def encode(value: Value) -> Value:
        if is_number and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise BadValue(RejectCode.WRONG_TYPE, f"must be a number, not {value!r:.60}")
        if limits is not None and is_number:
            value = limits.apply(value)  # type: ignore[arg-type]  # a number, as was just checked
        raw = to_raw(value)
        return texts.get(raw, raw)

    return Publication(binding.id, keys, encode)


def compose(values: Mapping[tuple[str, ...], Value]) -> dict[str, Any]:
    """The message that holds `values` at their keys; none of the keys leads through another's value (`clashing` says so)."""
    document: dict[str, Any] = {}
    for keys, value in values.items():
        inner = document
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = value
    return document


def clashing(keys: tuple[str, ...], others: Iterable[tuple[str, ...]]) -> bool:
    """Whether a value at `keys` would stand in the way of another's."""
    return any(keys[: len(each)] == each or each[: len(keys)] == keys for each in others)

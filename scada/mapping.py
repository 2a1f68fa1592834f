"""From a message to register writes: plans compiled once per device, then applied to each message.

Pure: the plan of a device holds closures; mapping a message touches no clock, no network, no log.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from scada.config import (
    BindingConfig,
    DeviceConfig,
    Direction,
    ModbusAddress,
    ModbusNetwork,
    ModbusOptions,
    MqttNetwork,
    TagConfig,
)
from scada.conversion import compile_encode, compile_read, encode_coil, kind_of
from scada.errors import ConfigError, Fault
from scada.modbus.endpoint import Endpoint
from scada.modbus.limits import Table
from scada.modbus.registers import RegisterType, codec
from scada.paths import compile_path
from scada.payload import decode_payload
from scada.timestamps import compile_time
from scada.values import BadValue, RejectCode, Value

MAX_SAMPLES = 10_000
"""Most samples taken from one message; the payload's own size limit keeps real messages far below."""


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
            raise BadValue(RejectCode.WRONG_TYPE, f"samples must be an array, not {kind_of(samples)}")
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
    encode = compile_encode(address, options, binding, encode_coil if encoding is None else encoding.encode)
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
            read = compile_read(tag, binding)
        elif binding.protocol == "modbus" and binding.direction is not Direction.IN:
            outs.append(_compile_out(device, tag, binding, network, endpoint))
    return None if read is None else TagPlan(tag.id, tag.name, read, tuple(outs))


def _compile_time(network: MqttNetwork) -> Callable[[Any], int] | None:
    if network.time is None:
        return None
    get, convert = compile_path(network.time).get, compile_time(network.time_format)
    return lambda document: convert(get(document))

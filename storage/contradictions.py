"""What is right by itself and wrong together: a binding with its direction, its tag, its network, the tag's data type."""

from collections.abc import Iterable
from typing import Any

from scada.config import BindingConfig, Direction, LimitsConfig, ScalingConfig
from scada.errors import ConfigError, Fault
from scada.modbus.limits import Table
from scada.modbus.registers import RegisterType
from scada.outputs import compile_cells
from scada.protocols.modbus import ModbusAddress
from scada.registry import Protocol, protocol
from scada.schema import join, parse
from scada.values import BadValue, DataType
from storage.drafts import BindingDraft
from storage.records import BindingFields
from storage.shapes import Row


def one_source(bindings: Iterable[BindingDraft]) -> Iterable[Fault]:
    """The faults of a tag with two bindings of one protocol, or two that read it."""
    seen: set[str] = set()
    source = False
    for binding in bindings:
        if binding.row["protocol"] in seen:
            yield Fault(join(binding.path, "protocol"), "the tag has another binding of this protocol")
        seen.add(binding.row["protocol"])
        reads = binding.row["direction"] != Direction.OUT
        if reads and source:
            yield Fault(join(binding.path, "direction"), "the tag has another binding that reads it")
        source = source or reads


def misdirected(kind: Protocol, record: BindingFields, address: Any) -> Iterable[Fault]:
    """The faults of a binding whose direction does not go with the rest; `address` is None when it has faults of its own."""
    if record.direction not in kind.directions:
        yield Fault("direction", f"{kind.name} supports {', '.join(kind.directions)} only, not {record.direction}")
    elif address is not None and kind.directed is not None:
        for fault in kind.directed(address, record.direction):
            yield Fault(join("address", fault.field), fault.message)
    if record.direction is Direction.OUT:
        for name in ("period_ms", "scan"):
            if getattr(record, name) is not None:
                yield Fault(name, "says how often a tag is read; a binding out reads nothing")


def misplaced(binding: Row, settings: Row) -> Iterable[Fault]:
    """The faults of a checked binding behind a network of its protocol, whose settings are stored."""
    kind = protocol(binding["protocol"])
    if kind.belongs is None:
        return
    try:
        network: Any = parse(kind.network, settings)
    except ConfigError as error:
        yield Fault("protocol", f"the device's network of this protocol is not usable: {error}")
        return
    address: Any = parse(kind.address, binding["address"])
    for fault in kind.belongs(network, address, Direction(binding["direction"])):
        yield Fault(join("address", fault.field), fault.message)


def unsuited(binding: BindingDraft, data_type: str) -> Iterable[Fault]:
    """The faults of a binding of a tag of this type: constants of another one, registers that can never hold its values."""
    row = binding.row
    wrong = [
        Fault(path, f"{value!r:.60} is no value of type {data_type}")
        for path, value in binding.constants()
        if not fits(value, data_type)
    ]
    if issubclass(protocol(row["protocol"]).address, ModbusAddress):
        address = row["address"]
        kind = address.get("type", RegisterType.UINT16)
        is_bits = Table(address.get("table", Table.HOLDING_REGISTER)).is_bits
        if (data_type == DataType.STRING) != (kind == RegisterType.STRING and not is_bits):
            place = f"a {address['table']}" if is_bits else f"type {kind}"
            wrong.append(
                Fault(join(binding.path, "address.type"), f"{place} holds no value of a tag of type {data_type}")
            )
    yield from wrong or _unwritable(binding, data_type)


def _unwritable(binding: BindingDraft, data_type: str) -> Iterable[Fault]:
    """The fault of a fail-safe value that the binding itself cannot write: it would come out only when it is needed."""
    row = binding.row
    value = ((row["options"] or {}).get("failsafe") or {}).get("value")
    if value is None:
        return
    kind = protocol(row["protocol"])
    config = BindingConfig(
        0,
        kind.name,
        Direction(row["direction"]),
        parse(kind.address, row["address"]),
        parse(kind.options, row["options"]),
        parse(ScalingConfig, row["scaling"]) if row["scaling"] else None,
        parse(LimitsConfig, row["limits"]) if row["limits"] else None,
    )
    try:
        compile_cells(DataType(data_type), config)[1](value)
    except BadValue as error:
        yield Fault(join(binding.path, "options.failsafe.value"), f"can never be written: {error}")


def fits(value: object, data_type: str) -> bool:
    """Whether a constant may stand for a value of a tag of this type; 0 and 1 may stand for false and true."""
    if data_type == DataType.STRING:
        return isinstance(value, str)
    if data_type == DataType.BOOL:
        return isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return data_type == DataType.FLOAT or float(value).is_integer()

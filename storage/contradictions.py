"""What is right by itself and wrong together: a binding with its direction, its tag, its network, the tag's data type."""

from collections.abc import Iterable
from typing import Any

from scada.config import Direction
from scada.errors import ConfigError, Fault
from scada.registry import Protocol, protocol
from scada.schema import join, parse
from scada.values import DataType
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


def fits(value: object, data_type: str) -> bool:
    """Whether a constant may stand for a value of a tag of this type; 0 and 1 may stand for false and true."""
    if data_type == DataType.STRING:
        return isinstance(value, str)
    if data_type == DataType.BOOL:
        return isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return data_type == DataType.FLOAT or float(value).is_integer()

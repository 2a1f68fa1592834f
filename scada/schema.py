"""Typed records out of plain data: one declaration of the fields serves parsing, the REST schemas and the docs.

A record is a frozen dataclass whose fields are made with `spec(...)`. `parse` turns a mapping (a JSON object, a database
column) into such a record or lists every fault; a record's own `faults()` adds what concerns several fields at once.
"""

import dataclasses
import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from scada.errors import ConfigError, Fault
from scada.values import TYPE_NAMES


@dataclass(frozen=True, slots=True)
class Spec:
    """What a field admits beside its type: bounds are inclusive, `check` raises ConfigError.

    `max_length` counts characters, of a field with many values its elements; the other bounds are each element's.
    """

    doc: str
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    check: Callable[[str], object] | None = None


def spec(
    doc: str,
    default: Any = MISSING,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    max_length: int | None = None,
    check: Callable[[str], object] | None = None,
) -> Any:
    """A dataclass field with its meaning and bounds; without `default` the field is required."""
    return dataclasses.field(default=default, metadata={"spec": Spec(doc, minimum, maximum, max_length, check)})


@dataclass(frozen=True, slots=True)
class Field:
    """A field as `parse` and the REST schemas see it. `kind` is its type without None, or that of a tuple's elements."""

    name: str
    kind: type
    many: bool
    optional: bool
    required: bool
    default: Any
    spec: Spec


def fields(record: type) -> tuple[Field, ...]:
    """The fields of a record class, types resolved once."""
    return _fields(cast(Any, record))


@cache
def _fields(record: Any) -> tuple[Field, ...]:
    hints = get_type_hints(record)
    return tuple(_field(item, hints[item.name]) for item in dataclasses.fields(record) if "spec" in item.metadata)


def _field(item: dataclasses.Field[Any], hint: Any) -> Field:
    optional = False
    if get_origin(hint) in (Union, types.UnionType):
        inner = [arg for arg in get_args(hint) if arg is not type(None)]
        optional = len(inner) < len(get_args(hint))
        hint = inner[0] if len(inner) == 1 else object
    many = get_origin(hint) is tuple
    if many:
        hint = get_args(hint)[0]
    kind = get_origin(hint) or hint
    return Field(item.name, kind, many, optional, item.default is MISSING, item.default, item.metadata["spec"])


Record = TypeVar("Record")


def parse(record: type[Record], data: object, path: str = "") -> Record:
    """Return `data` as a `record`; raises ConfigError with every fault, each field's path prefixed by `path`."""
    if not isinstance(data, Mapping):
        raise ConfigError([Fault(path, f"must be an object, not {_type_name(data)}")])
    known = {field.name: field for field in fields(record)}
    faults = [Fault(join(path, _name(name)), "unknown field") for name in data if name not in known]
    values: dict[str, Any] = {}
    for name, field in known.items():
        if name not in data:
            if field.required:
                faults.append(Fault(join(path, name), "is required"))
            continue
        try:
            values[name] = _parse_field(field, data[name], join(path, name))
        except ConfigError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigError(faults)
    result = record(**values)
    cross: Callable[[], Iterable[Fault]] | None = getattr(result, "faults", None)
    if cross is not None:
        faults = [Fault(join(path, fault.field), fault.message) for fault in cross()]
        if faults:
            raise ConfigError(faults)
    return result


def plain(record: object, *, defaults: bool = True) -> dict[str, Any]:
    """The mapping that `parse` would turn into `record`; without `defaults`, only what differs from them."""
    result: dict[str, Any] = {}
    for field in fields(type(record)):
        value = getattr(record, field.name)
        if value is None and not field.required:
            continue
        if not defaults and not field.required and value == field.default:
            continue
        result[field.name] = _plain_value(value)
    return result


def join(path: str, name: str) -> str:
    """`name` below `path`, dotted; either may be empty."""
    return f"{path}.{name}" if path and name else path or name


def _name(key: object) -> str:
    """A key of the input as part of a fault's path: printable and not endless."""
    text = str(key)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain_value(value: object) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_plain_value(each) for each in value]
    if isinstance(value, Mapping):
        return dict(value)
    return plain(value) if dataclasses.is_dataclass(value) else value


def _parse_field(field: Field, value: object, path: str) -> Any:
    if value is None:
        if field.optional:
            return None
        raise ConfigError([Fault(path, "must not be null")])
    if not field.many:
        return _parse_value(field, value, path)
    if not isinstance(value, list | tuple):
        raise ConfigError([Fault(path, f"must be an array, not {_type_name(value)}")])
    most = field.spec.max_length
    if most is not None and len(value) > most:
        raise ConfigError([Fault(path, f"has more than {most} elements ({len(value)})")])
    faults: list[Fault] = []
    result = []
    for index, each in enumerate(value):
        try:
            result.append(_parse_value(field, each, join(path, str(index))))
        except ConfigError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigError(faults)
    return tuple(result)


def _parse_value(field: Field, value: object, path: str) -> Any:
    kind = field.kind
    if dataclasses.is_dataclass(kind):
        return parse(kind, value, path)
    try:
        result = _PARSERS.get(kind, _parse_enum)(kind, value)
        _check_bounds(field.spec, result, field.many)
    except ConfigError as error:
        raise ConfigError([Fault(join(path, fault.field), fault.message) for fault in error.faults]) from None
    return result


def _check_bounds(limits: Spec, value: Any, many: bool) -> None:
    if limits.max_length is not None and not many and len(value) > limits.max_length:
        raise ConfigError(f"is longer than {limits.max_length} (has {len(value)})")
    low, high = limits.minimum, limits.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        if high is None:
            raise ConfigError(f"must be at least {_bound(low)}, not {_quoted(value)}")
        raise ConfigError(
            f"must be at most {_bound(high)}, not {_quoted(value)}"
            if low is None
            else f"must be {_bound(low)} to {_bound(high)}, not {_quoted(value)}"
        )
    if limits.check is not None:
        limits.check(value)


def _parse_text(kind: type, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"must be text, not {_type_name(value)}")
    _check_text(value)
    return value


def _check_text(value: str) -> None:
    """Refuse what UTF-8 or PostgreSQL cannot hold."""
    if "\0" in value or (not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value)):
        raise ConfigError("must not contain U+0000 or half of a surrogate pair")


def _parse_bool(kind: type, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"must be true or false, not {_type_name(value)}")
    return value


def _parse_int(kind: type, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"must be an integer, not {_quoted(value)}")
    return value


def _parse_float(kind: type, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"must be a number, not {_quoted(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError("must be a finite number")
    return number


def _parse_scalar(kind: type, value: object) -> object:
    if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"must be a number, text, true or false, not {_type_name(value)}")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigError("must be an integer of at most 64 bit")
    return value


def _parse_mapping(kind: type, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"must be an object, not {_type_name(value)}")
    faults: list[Fault] = []
    result = {}
    for key, each in value.items():
        try:
            result[_parse_text(str, key)] = _parse_scalar(object, each)
        except ConfigError as error:
            faults.extend(Fault(join(_name(key), fault.field), fault.message) for fault in error.faults)
    if faults:
        raise ConfigError(faults)
    return result


def _parse_enum(kind: type, value: object) -> StrEnum:
    choices = cast(type[StrEnum], kind)
    try:
        return choices(cast(str, value))
    except ValueError:
        names = ", ".join(each.value for each in choices)
        raise ConfigError(f"must be one of {names}, not {_quoted(value)}") from None


def _type_name(value: object) -> str:
    return TYPE_NAMES.get(type(value), type(value).__name__)


def _quoted(value: object) -> str:
    if value is not None and not isinstance(value, str | int | float):
        return _type_name(value)
    if isinstance(value, int) and abs(value) >= 10**60:
        return "an integer of more than 60 digits"
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_PARSERS: dict[type, Callable[[type, object], Any]] = {
    str: _parse_text,
    bool: _parse_bool,
    int: _parse_int,
    float: _parse_float,
    object: _parse_scalar,
    Mapping: _parse_mapping,
}


def _bound(value: float | None) -> str:
    """A limit as people write it: 86400000, not 8.64e+07."""
    if value is None:
        return "anything"
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:g}"

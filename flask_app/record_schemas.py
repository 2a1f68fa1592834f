"""marshmallow schemas made out of records: the configuration's fields are declared once, in the records that check them."""

import dataclasses
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from scada import schema as records
from scada.errors import ConfigError
from scada.registry import PROTOCOLS

_SCALAR = {"type": ["number", "string", "boolean"]}


class StrictSchema(Schema):
    """An unknown field is a fault."""

    class Meta:
        unknown = RAISE


class ByProtocol(fields.Raw):
    """A part of a binding whose fields the protocol declares. `part` is "address" or "options"."""

    def __init__(self, part: str, **kwargs: Any) -> None:
        self.part = part
        super().__init__(**kwargs)

    @property
    def choices(self) -> list[type[Schema]]:
        """One schema per protocol."""
        return [record_schema(getattr(each, self.part)) for each in PROTOCOLS.values()]


class StrictBoolean(fields.Boolean):
    """true or false; marshmallow's own takes 1, "on" and more."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class StrictFloat(fields.Float):
    """A number; marshmallow's own takes a text that looks like one."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class Scalar(fields.Raw):
    """A number, a text, true or false."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool | int | float | str):
            raise ValidationError("Must be a number, text, true or false.")
        return value


def record_fields(record: type, *, partial: bool = False) -> dict[str, fields.Field[Any]]:
    """A record's fields as marshmallow's. `partial`: as a merge patch has them, none required, no defaults."""
    return {field.name: _field(field, partial) for field in records.fields(record)}


@cache
def record_schema(record: type) -> type[Schema]:
    """The schema of a record class, named after it."""
    return make_schema(record.__name__.removesuffix("Config"), record_fields(record))


def make_schema(name: str, members: Mapping[str, Any]) -> type[Schema]:
    """A schema class with these fields; an unknown field is a fault."""
    return type(f"{name}Schema", (StrictSchema,), dict(members))


def _field(field: records.Field, partial: bool) -> fields.Field[Any]:
    limits = field.spec
    options: dict[str, Any] = {"metadata": {"description": limits.doc}}
    inner: list[Callable[[Any], Any]] = []
    if limits.check is not None:
        inner.append(_checked(limits.check))
    if limits.minimum is not None or limits.maximum is not None:
        inner.append(validate.Range(min=limits.minimum, max=limits.maximum))
    if limits.max_length is not None:
        (options.setdefault("validate", []) if field.many else inner).append(validate.Length(max=limits.max_length))
    result = _single(field.kind, {"validate": inner} if field.many else {})
    result = fields.List(result, **options) if field.many else _single(field.kind, options | {"validate": inner})
    # RFC 7396: null removes, so a patch may say it of every field.
    result.allow_none = field.optional or partial
    result.required = field.required and not partial
    if not field.required and not partial:
        result.load_default = field.default
    return result


def _single(kind: Any, options: dict[str, Any]) -> fields.Field[Any]:
    if dataclasses.is_dataclass(kind):
        options.pop("validate", None)
        return fields.Nested(record_schema(kind), **options)  # type: ignore[arg-type]  # keywords of any kind
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return fields.Enum(kind, by_value=True, **options)
    if kind is Mapping:
        return fields.Dict(keys=fields.String(), values=scalar({}), **options)
    if kind is object:
        return scalar(options)
    if kind is int:
        return fields.Integer(strict=True, **options)
    plain: dict[Any, type[fields.Field[Any]]] = {str: fields.String, bool: StrictBoolean, float: StrictFloat}
    return plain[kind](**options)


def scalar(options: dict[str, Any]) -> fields.Field[Any]:
    """A field for a number, a text, true or false."""
    return Scalar(**options | {"metadata": {**options.get("metadata", {}), **_SCALAR}})


def _checked(check: Callable[[str], object]) -> Callable[[Any], None]:
    def validator(value: Any) -> None:
        try:
            check(value)
        except ConfigError as error:
            raise ValidationError([fault.message for fault in error.faults]) from error

    return validator

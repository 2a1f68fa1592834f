"""marshmallow schemas of everything the API takes and gives; the OpenAPI document is generated from them.

The configuration's fields are not declared a second time: `record_schema` makes them out of the records that also check every
document (`scada.config`, `storage.documents`), with their types, bounds, defaults and meanings.
"""

import dataclasses
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from scada import schema as records
from scada.config import ModbusAddress
from scada.errors import ConfigError
from scada.registry import PROTOCOLS
from storage.documents import BindingFields, DeviceFields, ItemFields, TagFields, TermFields

# Pages beyond this are empty anyway; the product with page_size stays far inside 64 bits.
MAX_PAGE = 2**31 - 1
MAX_PAGE_SIZE = 1000
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
    return _schema(record.__name__.removesuffix("Config"), record_fields(record))


def _schema(name: str, members: Mapping[str, Any]) -> type[Schema]:
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
        return fields.Nested(record_schema(kind), **options)  # type: ignore[arg-type]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return fields.Enum(kind, by_value=True, **options)
    if kind is Mapping:
        return fields.Dict(keys=fields.String(), values=_scalar({}), **options)
    if kind is object:
        return _scalar(options)
    if kind is int:
        return fields.Integer(strict=True, **options)
    plain: dict[Any, type[fields.Field[Any]]] = {str: fields.String, bool: StrictBoolean, float: StrictFloat}
    return plain[kind](**options)


def _scalar(options: dict[str, Any]) -> fields.Field[Any]:
    return Scalar(**options | {"metadata": {**options.get("metadata", {}), **_SCALAR}})


def _checked(check: Callable[[str], object]) -> Callable[[Any], None]:
    def validator(value: Any) -> None:
        try:
            check(value)
        except ConfigError as error:
            raise ValidationError([fault.message for fault in error.faults]) from error

    return validator


def _number(text: str) -> fields.Integer:
    return fields.Integer(dump_only=True, metadata={"description": text})


@cache
def _parts(part: str, name: str) -> type[Schema]:
    """An object with one member per protocol that has this part."""
    members = {
        each.name: fields.Nested(record_schema(getattr(each, part)), metadata={"description": each.title})
        for each in PROTOCOLS.values()
        if getattr(each, part) is not None
    }
    return _schema(name, members)


def _reference(what: str) -> dict[str, fields.Field[Any]]:
    return {
        f"{what}_id": fields.Integer(strict=True, allow_none=True, metadata={"description": f"id of its {what}"}),
        what: fields.String(
            allow_none=True, load_only=True, metadata={"description": f"name of its {what}, instead of the id"}
        ),
    }


def _binding(partial: bool) -> dict[str, Any]:
    return {
        "id": _number("given by the store"),
        "tag_id": _number("its tag"),
        **record_fields(BindingFields, partial=partial),
        "protocol": fields.String(
            required=not partial,
            validate=validate.OneOf(list(PROTOCOLS)),
            metadata={"description": "name of the protocol"},
        ),
        "address": ByProtocol("address", required=not partial, metadata={"description": "where the value stands"}),
        "options": ByProtocol(
            "options", allow_none=True, metadata={"description": "how and when it is read or written"}
        ),
    }


def _tag(partial: bool) -> dict[str, Any]:
    return {
        "id": _number("given by the store"),
        "device_id": _number("its device"),
        **record_fields(TagFields, partial=partial),
        **_reference("item"),
        **_reference("term"),
        "bindings": fields.List(fields.Nested(BindingSchema), metadata={"description": "one per protocol"}),
    }


def _term(partial: bool) -> dict[str, Any]:
    return {
        "id": _number("given by the store"),
        "device_id": _number("its device"),
        **record_fields(TermFields, partial=partial),
        "settings": fields.Nested(
            _parts("term", "TermSettings"), metadata={"description": "what addresses the unit, per protocol"}
        ),
    }


def _item(partial: bool) -> dict[str, Any]:
    return {
        "id": _number("given by the store"),
        "revision": _number("revision of its newest change"),
        **record_fields(ItemFields, partial=partial),
    }


def _device(partial: bool) -> dict[str, Any]:
    return {
        "id": _number("given by the store"),
        "revision": _number("revision of the newest change to it or to anything below it"),
        **record_fields(DeviceFields, partial=partial),
        "network": fields.Nested(
            _parts("network", "Networks"), metadata={"description": "how the device speaks each protocol"}
        ),
        "terms": fields.List(fields.Nested(TermSchema), metadata={"description": "units behind the device"}),
        "tags": fields.List(fields.Nested(TagSchema), metadata={"description": "its values"}),
    }


BindingSchema = _schema("Binding", _binding(False))
BindingPatchSchema = _schema("BindingPatch", _binding(True))
TermSchema = _schema("Term", _term(False))
TermPatchSchema = _schema("TermPatch", _term(True))
ItemSchema = _schema("Item", _item(False))
ItemPatchSchema = _schema("ItemPatch", _item(True))
TagSchema = _schema("Tag", _tag(False))
TagPatchSchema = _schema("TagPatch", _tag(True))
DeviceSchema = _schema("Device", _device(False))
DevicePatchSchema = _schema("DevicePatch", _device(True))


# Plain JSON schemas, where marshmallow has no word for "one of": apispec puts references in place of the classes.
NetworkSchema = {"anyOf": [record_schema(each.network) for each in PROTOCOLS.values()]}
NetworkPatchSchema = {"type": "object", "description": "some fields of a network; null for the default"}
NetworksSchema = _parts("network", "Networks")
DeviceTagSchema = {"anyOf": [TagSchema, {"type": "array", "items": TagSchema}]}


class FaultSchema(StrictSchema):
    """One thing wrong with the input."""

    field = fields.String(
        metadata={"description": "dotted path into the input, such as tags.0.name; empty for the whole"}
    )
    message = fields.String(metadata={"description": "what is wrong, with the value"})


class ProblemSchema(StrictSchema):
    """RFC 9457 problem details."""

    type = fields.String(metadata={"description": "urn:tagwire:problem:..., or about:blank"})
    title = fields.String(metadata={"description": "the status in words"})
    status = fields.Integer(metadata={"description": "the HTTP status"})
    detail = fields.String(metadata={"description": "what is wrong this time"})
    errors = fields.List(fields.Nested(FaultSchema), metadata={"description": "every fault found"})
    code = fields.Integer(metadata={"description": "the exception code of a Modbus device that refused"})


@cache
def page_schema(schema: type[Schema]) -> type[Schema]:
    """The schema of one page of a list."""
    return _schema(
        schema.__name__.removesuffix("Schema") + "Page",
        {
            "items": fields.List(fields.Nested(schema), metadata={"description": "this page"}),
            "total": fields.Integer(metadata={"description": "how many there are in all"}),
        },
    )


def query_schema(name: str, *filters: str, sort: str = "") -> type[Schema]:
    """The query of a list: page, page_size, sort, and these fields to filter by. Text may hold * and ?."""
    members: dict[str, Any] = {
        "page": fields.Integer(
            load_default=1, validate=validate.Range(1, MAX_PAGE), metadata={"description": "counts from 1"}
        ),
        "page_size": fields.Integer(
            load_default=100, validate=validate.Range(1, MAX_PAGE_SIZE), metadata={"description": "objects on a page"}
        ),
        "sort": FieldNames(
            load_default=lambda: [sort] if sort else [],
            metadata={"description": "fields, as in -name,id; - is descending"},
        ),
    }
    members |= {
        each: fields.String(metadata={"description": f"only those with this {each}; text may hold * and ?"})
        for each in filters
    }
    return _schema(f"{name}Query", members)


class FieldNames(fields.String):
    """Names with commas between them, as a list."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        return [name for name in text.split(",") if name]


BulkTagSchema = _schema(
    "BulkTag",
    {
        **_tag(False),
        "device_id": fields.Integer(strict=True, metadata={"description": "id of its device"}),
        "device": fields.String(metadata={"description": "name of its device, instead of the id"}),
    },
)
BulkSchema = _schema(
    "Bulk", {"tags": fields.List(fields.Nested(BulkTagSchema), required=True, metadata={"description": "new tags"})}
)


class CreatedTagsSchema(StrictSchema):
    """What a bulk of new tags is answered with."""

    ids = fields.List(fields.Integer(), metadata={"description": "ids of the new tags, in the order they were given"})
    total = fields.Integer(metadata={"description": "how many"})


CreatedTagSchema = {"anyOf": [TagSchema, CreatedTagsSchema]}


class RejectSchema(StrictSchema):
    """A message or value that was not written."""

    id = fields.Integer(metadata={"description": "the higher the newer"})
    time_ms = fields.Integer(metadata={"description": "UTC, milliseconds"})
    topic = fields.String(metadata={"description": "where it was published"})
    payload = fields.String(metadata={"description": "head of what arrived"})
    code = fields.String(metadata={"description": "the reason in one word"})
    reason = fields.String(metadata={"description": "the reason"})
    device = fields.String(allow_none=True, metadata={"description": "name of the device, when it is known"})
    tag = fields.String(allow_none=True, metadata={"description": "name of the tag, when it is known"})


class RejectCountsSchema(StrictSchema):
    """How often values were rejected."""

    counts = fields.Dict(keys=fields.String(), values=fields.Integer(), metadata={"description": "by code"})
    total = fields.Integer(metadata={"description": "all of them"})


class ProtocolSchema(StrictSchema):
    """What a protocol can do."""

    name = fields.String(metadata={"description": "as bindings name it"})
    title = fields.String(metadata={"description": "for people"})
    directions = fields.List(fields.String(), metadata={"description": "what a binding's direction may be"})
    schemas = fields.Dict(
        keys=fields.String(),
        values=fields.Dict(),
        metadata={"description": "JSON schemas of network, address, options, term"},
    )


class ConfigurationSchema(StrictSchema):
    """The whole configuration. Names stand for ids, defaults are left out."""

    format = fields.String(metadata={"description": "tagwire"})
    version = fields.Integer(metadata={"description": "of this format"})
    items = fields.List(fields.Nested(ItemSchema), metadata={"description": "all items"})
    devices = fields.List(
        fields.Nested(DeviceSchema), metadata={"description": "all devices with all that hangs from them"}
    )


class ImportResultSchema(StrictSchema):
    """What an import stored, or would."""

    items = fields.Integer(metadata={"description": "items in the file"})
    devices = fields.Integer(metadata={"description": "devices in the file"})
    tags = fields.Integer(metadata={"description": "tags in the file"})
    dry_run = fields.Boolean(metadata={"description": "nothing was stored"})


def _address_query() -> dict[str, Any]:
    """A Modbus address as a query has it: everything is text there."""
    result = record_fields(ModbusAddress)
    for field in result.values():
        if isinstance(field, fields.Integer):
            field.strict = False
    return result


RegistersQuerySchema = _schema(
    "RegistersQuery",
    {
        "device": fields.String(required=True, metadata={"description": "id or name of a device that speaks Modbus"}),
        **_address_query(),
        "count": fields.Integer(load_default=1, validate=validate.Range(1, 2000), metadata={"description": "values"}),
    },
)
RegisterWriteSchema = _schema(
    "RegisterWrite",
    {
        "device": fields.Raw(
            required=True,
            metadata={"type": ["string", "integer"], "description": "id or name of a device that speaks Modbus"},
        ),
        **record_fields(ModbusAddress),
        "values": fields.List(
            _scalar({}),
            required=True,
            validate=validate.Length(1, 1968),
            metadata={"description": "one after the other from the address on"},
        ),
    },
)
RegistersSchema = _schema(
    "Registers",
    {
        "device": fields.String(metadata={"description": "as it was asked for"}),
        **record_fields(ModbusAddress, partial=True),
        "count": fields.Integer(metadata={"description": "values"}),
        "registers": fields.List(fields.Integer(), metadata={"description": "raw registers, or bits as 0 and 1"}),
        "values": fields.List(
            fields.Raw(metadata={"type": ["number", "string", "boolean", "null"]}),
            metadata={"description": "what they mean; null for a pattern that is no value of the type"},
        ),
    },
)


class ExportQuerySchema(StrictSchema):
    """How the configuration is wanted."""

    format = fields.String(
        validate=validate.OneOf(["json", "yaml"]), metadata={"description": "json or yaml; else Accept decides"}
    )


class ImportQuerySchema(StrictSchema):
    """How a configuration is taken in."""

    mode = fields.String(
        validate=validate.OneOf(["merge", "replace"]),
        metadata={"description": "merge: what the file does not name stays; replace: it is deleted"},
    )
    dry_run = fields.Boolean(load_default=False, metadata={"description": "check everything, store nothing"})


class TableQuerySchema(StrictSchema):
    """Which tags are wanted."""

    device = fields.String(metadata={"description": "id or name of one device; all devices when left out"})


class TableImportSchema(StrictSchema):
    """How a table is taken in."""

    mode = fields.String(
        load_default="merge",
        validate=validate.OneOf(["merge", "create"]),
        metadata={"description": "merge: tags that exist are changed; create: they are a conflict"},
    )
    dry_run = fields.Boolean(load_default=False, metadata={"description": "check everything, store nothing"})


class TableResultSchema(StrictSchema):
    """What an import of a table stored, or would."""

    total = fields.Integer(metadata={"description": "tags in the table"})
    dry_run = fields.Boolean(metadata={"description": "nothing was stored"})

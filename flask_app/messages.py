"""marshmallow schemas of what is asked and answered beside the configuration's objects: queries, problems, reports."""

from functools import cache
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from flask_app.record_schemas import StrictSchema, make_schema, record_fields, scalar
from scada.protocols.modbus import ModbusAddress

# Pages beyond this are empty anyway; the product with page_size stays far inside 64 bits.
MAX_PAGE = 2**31 - 1
MAX_PAGE_SIZE = 1000


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
    return make_schema(
        schema.__name__.removesuffix("Schema") + "Page",
        {
            "items": fields.List(fields.Nested(schema), metadata={"description": "this page"}),
            "total": fields.Integer(metadata={"description": "how many there are in all"}),
        },
    )


def query_schema(name: str, *filters: str, sort: str = "") -> type[Schema]:
    """The query of a list: page, page_size, sort, and these fields to filter by. Text may hold * and ?."""
    members: dict[str, Any] = {
        "page": QueryInteger(
            load_default=1, validate=validate.Range(1, MAX_PAGE), metadata={"description": "counts from 1"}
        ),
        "page_size": QueryInteger(
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
    return make_schema(f"{name}Query", members)


class QueryInteger(fields.Integer):
    """An integer out of a query."""

    def _validated(self, value: Any) -> Any:
        _refuse_odd_digits(value)
        return super()._validated(value)


class QueryFloat(fields.Float):
    """A number out of a query."""

    def _validated(self, value: Any) -> Any:
        _refuse_odd_digits(value)
        return super()._validated(value)


def _refuse_odd_digits(value: Any) -> None:
    # Python also takes 1_000 and the digits of every script.
    if isinstance(value, str) and (not value.isascii() or "_" in value):
        raise ValidationError("must be written with the digits 0 to 9")


class FieldNames(fields.String):
    """Names with commas between them, as a list."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        return [name.strip() for name in text.split(",") if name.strip()]


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


class ImportResultSchema(StrictSchema):
    """What an import stored, or would."""

    items = fields.Integer(metadata={"description": "items in the file"})
    devices = fields.Integer(metadata={"description": "devices in the file"})
    tags = fields.Integer(metadata={"description": "tags in the file"})
    dry_run = fields.Boolean(metadata={"description": "nothing was stored"})


def _address_query() -> dict[str, Any]:
    """A Modbus address as a query has it: everything is text there."""
    return {
        name: QueryInteger(
            required=field.required,
            allow_none=field.allow_none,
            load_default=field.load_default,
            validate=field.validators,
            metadata=field.metadata,
        )
        if isinstance(field, fields.Integer)
        else field
        for name, field in record_fields(ModbusAddress).items()
    }


def _is_reference(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValidationError("must be the id or the name of a device")


RegistersQuerySchema = make_schema(
    "RegistersQuery",
    {
        "device": fields.String(required=True, metadata={"description": "id or name of a device that speaks Modbus"}),
        **_address_query(),
        "count": QueryInteger(load_default=1, validate=validate.Range(1, 2000), metadata={"description": "values"}),
    },
)
RegisterWriteSchema = make_schema(
    "RegisterWrite",
    {
        "device": fields.Raw(
            required=True,
            validate=_is_reference,
            metadata={"type": ["string", "integer"], "description": "id or name of a device that speaks Modbus"},
        ),
        **record_fields(ModbusAddress),
        "values": fields.List(
            scalar({}),
            required=True,
            validate=validate.Length(1, 1968),
            metadata={"description": "one after the other from the address on"},
        ),
    },
)
RegistersSchema = make_schema(
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

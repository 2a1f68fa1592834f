"""marshmallow schemas of the configuration's objects; the OpenAPI document is generated from them.

The fields come from the records that check every document (`storage.records`, and those of the protocols); here stands only
what is put together out of them. Patches have the same fields, none of them required.
"""

from functools import cache
from typing import Any

from marshmallow import Schema, fields, validate

from flask_app.record_schemas import ByProtocol, StrictSchema, make_schema, record_fields, record_schema
from scada.registry import PROTOCOLS
from storage.records import BindingFields, DeviceFields, ItemFields, TagFields, TermFields


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
    return make_schema(name, members)


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


BindingSchema = make_schema("Binding", _binding(False))
BindingPatchSchema = make_schema("BindingPatch", _binding(True))
TermSchema = make_schema("Term", _term(False))
TermPatchSchema = make_schema("TermPatch", _term(True))
ItemSchema = make_schema("Item", _item(False))
ItemPatchSchema = make_schema("ItemPatch", _item(True))
TagSchema = make_schema("Tag", _tag(False))
TagPatchSchema = make_schema("TagPatch", _tag(True))
DeviceSchema = make_schema("Device", _device(False))
DevicePatchSchema = make_schema("DevicePatch", _device(True))


# Plain JSON schemas, where marshmallow has no word for "one of": apispec puts references in place of the classes.
NetworkSchema = {"anyOf": [record_schema(each.network) for each in PROTOCOLS.values()]}
NetworkPatchSchema = {"type": "object", "description": "some fields of a network; null for the default"}
NetworksSchema = _parts("network", "Networks")
DeviceTagSchema = {"anyOf": [TagSchema, {"type": "array", "items": TagSchema}]}


BulkTagSchema = make_schema(
    "BulkTag",
    {
        **_tag(False),
        "device_id": fields.Integer(strict=True, metadata={"description": "id of its device"}),
        "device": fields.String(metadata={"description": "name of its device, instead of the id"}),
    },
)
BulkSchema = make_schema(
    "Bulk", {"tags": fields.List(fields.Nested(BulkTagSchema), required=True, metadata={"description": "new tags"})}
)


class CreatedTagsSchema(StrictSchema):
    """What a bulk of new tags is answered with."""

    ids = fields.List(fields.Integer(), metadata={"description": "ids of the new tags, in the order they were given"})
    total = fields.Integer(metadata={"description": "how many"})


CreatedTagSchema = {"anyOf": [TagSchema, CreatedTagsSchema]}


def _filed(members: dict[str, Any]) -> dict[str, Any]:
    """As it stands in a file: without what the store gives."""
    return {name: each for name, each in members.items() if not each.dump_only}


def _name_of(what: str) -> fields.Field[Any]:
    return fields.String(allow_none=True, metadata={"description": f"name of its {what}"})


FileBindingSchema = make_schema("FileBinding", _filed(_binding(False)))
FileTermSchema = make_schema("FileTerm", _filed(_term(False)))
FileItemSchema = make_schema("FileItem", _filed(_item(False)))
FileTagSchema = make_schema(
    "FileTag",
    {
        **record_fields(TagFields),
        "item": _name_of("item"),
        "term": _name_of("term"),
        "bindings": fields.List(fields.Nested(FileBindingSchema), metadata={"description": "one per protocol"}),
    },
)
FileDeviceSchema = make_schema(
    "FileDevice",
    {
        **_filed(_device(False)),
        "terms": fields.List(fields.Nested(FileTermSchema), metadata={"description": "units behind the device"}),
        "tags": fields.List(fields.Nested(FileTagSchema), metadata={"description": "its values"}),
    },
)


class ConfigurationSchema(StrictSchema):
    """The whole configuration. Names stand for ids, defaults are left out."""

    format = fields.String(metadata={"description": "tagwire"})
    version = fields.Integer(metadata={"description": "of this format"})
    items = fields.List(fields.Nested(FileItemSchema), metadata={"description": "all items"})
    devices = fields.List(
        fields.Nested(FileDeviceSchema), metadata={"description": "all devices with all that hangs from them"}
    )

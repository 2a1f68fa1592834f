"""/tags, /devices/{device}/tags: the values of devices."""

from typing import Any

from flask import Response
from flask.views import MethodView

from flask_app.api import examples, resource
from flask_app.api.blueprint import ApiBlueprint
from flask_app.database import config
from flask_app.messages import query_schema
from flask_app.schemas import (
    BulkSchema,
    CreatedTagSchema,
    CreatedTagsSchema,
    DeviceTagSchema,
    TagPatchSchema,
    TagSchema,
)

blueprint = ApiBlueprint("tags", "One value of a device each. Bindings may be nested in a tag's document.")
_FILTERS = ("id", "term_id", "item_id", "name", "description", "data_type", "unit")
_Query = query_schema("Tag", *_FILTERS, "device_id", "device")
_DeviceQuery = query_schema("DeviceTag", *_FILTERS)


@blueprint.route("/tags")
class Tags(MethodView):
    """The tags of all devices."""

    @blueprint.listing(_Query, TagSchema)
    def get(self, query: dict[str, Any]) -> Response:
        """List tags; `device` filters by the device's id or name."""
        resource.filter_by_device(query)
        return resource.page(config().list_tags, query)


@blueprint.route("/tags/bulk")
class BulkTags(MethodView):
    """Thousands of tags at once."""

    @blueprint.creating(BulkSchema, CreatedTagsSchema, example=examples.BULK)
    def post(self) -> Response:
        """Create tags of any devices in one transaction, all or none; each names its device by `device` or `device_id`."""
        return _created(config().create_tags_bulk(resource.array("tags"), **resource.maker()))


@blueprint.route("/devices/<device>/tags")
class DeviceTags(MethodView):
    """The tags of one device."""

    @blueprint.listing(_DeviceQuery, TagSchema)
    def get(self, query: dict[str, Any], device: str) -> Response:
        """List a device's tags."""
        return resource.page(config().list_tags, query, device_id=resource.existing_device(device))

    @blueprint.creating(DeviceTagSchema, CreatedTagSchema, example=examples.TAG)
    def post(self, device: str) -> Response:
        """Create a tag, or with an array many in one transaction, all or none."""
        device_id, document = resource.existing_device(device), resource.document()
        if isinstance(document, list):
            ids = config().create_tags_bulk(document, device_id=device_id, path="", **resource.maker())
            return _created(ids, f"/api/v1/devices/{device_id}/tags")
        tag = config().create_tag(device_id, document, **resource.maker())
        return resource.created(tag, f"/api/v1/tags/{tag['id']}")


@blueprint.route("/tags/<tag:tag>")
class Tag(MethodView):
    """One tag, by id or full name (`Device@Tag`)."""

    @blueprint.reading(TagSchema)
    def get(self, tag: str) -> Response:
        """Read a tag with its bindings."""
        return resource.shown_part(config().get_tag, resource.tag_id(tag))

    @blueprint.changing(TagSchema)
    def put(self, tag: str) -> Response:
        """Replace a tag. Its bindings stay unless the document names them."""
        return resource.changed(config().replace_tag(resource.tag_id(tag), resource.document(), **resource.guard()))

    @blueprint.patching(TagPatchSchema, TagSchema)
    def patch(self, tag: str) -> Response:
        """Change what a merge patch names."""
        return resource.changed(config().patch_tag(resource.tag_id(tag), resource.patch(), **resource.guard()))

    @blueprint.deleting()
    def delete(self, tag: str) -> Response:
        """Delete a tag with its bindings."""
        config().delete_tag(resource.tag_id(tag), **resource.guard())
        return resource.gone()


def _created(ids: list[int], location: str = "/api/v1/tags") -> Response:
    response = resource.as_json({"ids": ids, "total": len(ids)}, 201)
    response.headers["Location"] = location
    return response

"""/bindings, /tags/{tag}/bindings: how protocols reach tags."""

from typing import Any

from flask import Response
from flask.views import MethodView

from flask_app.api import examples, resource
from flask_app.api.blueprint import ApiBlueprint
from flask_app.database import config
from flask_app.messages import query_schema
from flask_app.schemas import BindingPatchSchema, BindingSchema

blueprint = ApiBlueprint("bindings", "How one protocol reaches one tag; `address` and `options` are the protocol's.")
_Query = query_schema("Binding", "id", "tag_id", "device_id", "device", "protocol", "direction")
_TagQuery = query_schema("TagBinding", "id", "protocol", "direction")


@blueprint.route("/bindings")
class Bindings(MethodView):
    """The bindings of all tags."""

    @blueprint.listing(_Query, BindingSchema)
    def get(self, query: dict[str, Any]) -> Response:
        """List bindings; `device` filters by the device's id or name."""
        resource.filter_by_device(query)
        return resource.page(config().list_bindings, query)


@blueprint.route("/tags/<tag>/bindings")
class TagBindings(MethodView):
    """The bindings of one tag."""

    @blueprint.listing(_TagQuery, BindingSchema)
    def get(self, query: dict[str, Any], tag: str) -> Response:
        """List a tag's bindings."""
        return resource.page(config().list_bindings, query, tag_id=resource.existing_tag(tag))

    @blueprint.creating(BindingSchema, example=examples.BINDING)
    def post(self, tag: str) -> Response:
        """Create a binding."""
        document = config().create_binding(resource.existing_tag(tag), resource.document(), **resource.maker())
        return resource.created(document, f"/api/v1/bindings/{document['id']}")


@blueprint.route("/bindings/<binding>")
class Binding(MethodView):
    """One binding."""

    @blueprint.reading(BindingSchema)
    def get(self, binding: str) -> Response:
        """Read a binding."""
        binding_id = resource.identity(binding, "binding")
        device_id = config().get_tag(config().get_binding(binding_id)["tag_id"])["device_id"]
        return resource.shown_part(config().get_binding, binding_id, device_id)

    @blueprint.changing(BindingSchema)
    def put(self, binding: str) -> Response:
        """Replace a binding."""
        binding_id = resource.identity(binding, "binding")
        return resource.changed(config().replace_binding(binding_id, resource.document(), **resource.guard()))

    @blueprint.patching(BindingPatchSchema, BindingSchema)
    def patch(self, binding: str) -> Response:
        """Change what a merge patch names."""
        binding_id = resource.identity(binding, "binding")
        return resource.changed(config().patch_binding(binding_id, resource.patch(), **resource.guard()))

    @blueprint.deleting()
    def delete(self, binding: str) -> Response:
        """Delete a binding."""
        config().delete_binding(resource.identity(binding, "binding"), **resource.guard())
        return resource.gone()

"""/terms, /devices/{device}/terms: logical units behind a device."""

from typing import Any

from flask import Response
from flask.views import MethodView

from flask_app.api import examples, resource
from flask_app.api.blueprint import ApiBlueprint
from flask_app.database import config
from flask_app.messages import query_schema
from flask_app.schemas import TermPatchSchema, TermSchema

blueprint = ApiBlueprint("terms", "Logical units behind a device, such as a meter with its own Modbus unit id.")
_Query = query_schema("Term", "id", "device_id", "device", "name", "description")
_DeviceQuery = query_schema("DeviceTerm", "id", "name", "description")


@blueprint.route("/terms")
class Terms(MethodView):
    """The terms of all devices."""

    @blueprint.listing(_Query, TermSchema)
    def get(self, query: dict[str, Any]) -> Response:
        """List terms; `device` filters by the device's id or name."""
        resource.filter_by_device(query)
        return resource.page(config().list_terms, query)


@blueprint.route("/devices/<device>/terms")
class DeviceTerms(MethodView):
    """The terms of one device."""

    @blueprint.listing(_DeviceQuery, TermSchema)
    def get(self, query: dict[str, Any], device: str) -> Response:
        """List a device's terms."""
        return resource.page(config().list_terms, query, device_id=resource.existing_device(device))

    @blueprint.creating(TermSchema, example=examples.TERM)
    def post(self, device: str) -> Response:
        """Create a term."""
        document = config().create_term(resource.existing_device(device), resource.document(), **resource.maker())
        return resource.created(document, f"/api/v1/terms/{document['id']}")


@blueprint.route("/terms/<term>")
class Term(MethodView):
    """One term."""

    @blueprint.reading(TermSchema)
    def get(self, term: str) -> Response:
        """Read a term."""
        return resource.shown_part(config().get_term, resource.identity(term, "term"))

    @blueprint.changing(TermSchema)
    def put(self, term: str) -> Response:
        """Replace a term."""
        term_id = resource.identity(term, "term")
        return resource.changed(config().replace_term(term_id, resource.document(), **resource.guard()))

    @blueprint.patching(TermPatchSchema, TermSchema)
    def patch(self, term: str) -> Response:
        """Change what a merge patch names."""
        term_id = resource.identity(term, "term")
        return resource.changed(config().patch_term(term_id, resource.patch(), **resource.guard()))

    @blueprint.deleting()
    def delete(self, term: str) -> Response:
        """Delete a term that no tag is of."""
        config().delete_term(resource.identity(term, "term"), **resource.guard())
        return resource.gone()

"""/protocols: what can be said about each protocol, as JSON schemas."""

from collections.abc import Mapping
from typing import Any

from flask import Response
from flask.views import MethodView

from flask_app.api import resource
from flask_app.api.blueprint import ApiBlueprint
from flask_app.messages import ProtocolSchema, page_schema
from flask_app.record_schemas import record_schema
from scada.errors import NotFound
from scada.registry import PROTOCOLS, Protocol

blueprint = ApiBlueprint("protocols", "The protocols, with the JSON schemas of their parts.")
_PARTS = ("network", "address", "options", "term")


@blueprint.route("/protocols")
class Protocols(MethodView):
    """All protocols."""

    @blueprint.reporting(page_schema(ProtocolSchema))
    def get(self) -> Response:
        """List the protocols."""
        return resource.as_json({"items": [_document(each) for each in PROTOCOLS.values()], "total": len(PROTOCOLS)})


@blueprint.route("/protocols/<protocol>")
class OneProtocol(MethodView):
    """One protocol."""

    @blueprint.reporting(ProtocolSchema, 404)
    def get(self, protocol: str) -> Response:
        """Read a protocol."""
        if protocol not in PROTOCOLS:
            raise NotFound(f"no protocol {protocol[:64]!r}")
        return resource.as_json(_document(PROTOCOLS[protocol]))


def _document(protocol: Protocol) -> dict[str, Any]:
    schemas = {part: getattr(protocol, part) for part in _PARTS if getattr(protocol, part) is not None}
    return {
        "name": protocol.name,
        "title": protocol.title,
        "directions": [each.value for each in protocol.directions],
        "schemas": {part: _json_schema(record) for part, record in schemas.items()},
    }


def _json_schema(record: type) -> dict[str, Any]:
    """The JSON schema (2020-12) of a record, complete in itself: the OpenAPI document's, with its references inside."""
    from apispec import APISpec
    from apispec.ext.marshmallow import MarshmallowPlugin

    spec = APISpec("", "", "3.1.0", plugins=[MarshmallowPlugin()])
    schema = record_schema(record)
    name = schema.__name__.removesuffix("Schema")
    spec.components.schema(name, schema=schema)
    schemas = spec.to_dict()["components"]["schemas"]
    whole: dict[str, Any] = _inside(schemas[name], schemas)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name, **whole}


def _inside(value: Any, schemas: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        if "$ref" in value:
            return _inside(schemas[value["$ref"].rpartition("/")[2]], schemas)
        return {name: _inside(each, schemas) for name, each in value.items()}
    return [_inside(each, schemas) for each in value] if isinstance(value, list) else value

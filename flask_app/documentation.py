"""The OpenAPI 3.1 document, made from the views and their schemas."""

import threading
from typing import Any

import marshmallow
from flask import Flask, Response
from flask_smorest import Api

from flask_app.api import blueprints
from flask_app.api.resource import as_json
from flask_app.messages import ProblemSchema
from flask_app.problems import MEDIA_TYPE
from flask_app.record_schemas import ByProtocol

VERSION = "0.1.0"
_ROOT = "/api/v1"
PATH = f"{_ROOT}/openapi.json"
_ABOUT = """Devices and tags are described here once; from then on any field protocol can feed any other.

Lists answer `{"items": [...], "total": n}` and take `page`, `page_size`, `sort` and filters. Errors are RFC 9457 problem
details that list every fault with its field. Devices may be named by id or name, tags by id or full name (`Device@Tag`).
"""


class Documentation(Api):  # type: ignore[misc]  # flask-smorest has no types
    """flask-smorest's Api with our error shape, and a document that is made when it is first asked for, not at every start."""

    ERROR_SCHEMA = ProblemSchema

    def __init__(self, app: Flask) -> None:
        self._blueprints = blueprints()
        self._making = threading.Lock()
        self._text: bytes | None = None
        options = {
            "info": {"description": _ABOUT, "license": {"name": "MIT", "identifier": "MIT"}},
            "servers": [{"url": "/"}],
        }
        app.config.update(API_TITLE="Tagwire", API_VERSION=VERSION, OPENAPI_VERSION="3.1.0")
        super().__init__(app, spec_kwargs=options)

    def serve(self) -> None:
        """Register every resource, and the document."""
        assert self.ma_plugin.converter is not None
        self.ma_plugin.converter.add_attribute_function(_by_protocol)
        for blueprint in self._blueprints:
            self._app.register_blueprint(blueprint)
        self._app.add_url_rule(PATH, "openapi", self._document)
        for path in (_ROOT, f"{_ROOT}/"):
            self._app.add_url_rule(path, "index", self._index)

    def _register_error_handlers(self) -> None:
        """Errors are answered by flask_app.errors."""

    def _register_responses(self) -> None:
        content = {MEDIA_TYPE: {"schema": ProblemSchema}}
        self.spec.components.response("DEFAULT_ERROR", {"description": "a refusal", "content": content}, lazy=True)

    def _index(self) -> Response:
        """What can be read without knowing a name."""
        rules = [
            rule for rule in self._app.url_map.iter_rules() if "GET" in (rule.methods or ()) and not rule.arguments
        ]
        listed = sorted(rule.rule for rule in rules if rule.rule.startswith(f"{_ROOT}/") and rule.rule != f"{_ROOT}/")
        return as_json({"version": VERSION, "paths": ["/docs/", *listed, "/healthz", "/readyz", "/metrics"]})

    def _document(self) -> Response:
        with self._making:
            if self._text is None:
                for blueprint in self._blueprints:
                    blueprint.register_views_in_doc(self, self._app, self.spec, name=blueprint.name, parameters=None)
                    self.spec.tag({"name": blueprint.name, "description": blueprint.description})
                self._text = self._app.json.dumps(self.spec.to_dict()).encode()
        return Response(self._text, mimetype="application/json")


def _by_protocol(self: Any, field: marshmallow.fields.Field[Any], **_: Any) -> dict[str, Any]:
    """apispec's attribute function for a part of a binding: what one of the protocols declares."""
    if not isinstance(field, ByProtocol):
        return {}
    choices = [self.resolve_nested_schema(choice) for choice in field.choices]
    return {"anyOf": [*choices, {"type": "null"}] if field.allow_none else choices}

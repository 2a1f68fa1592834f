"""/config: the whole configuration as one file, out and in."""

from typing import Any

from flask import Response, request
from flask.views import MethodView

from flask_app.api import resource
from flask_app.api.blueprint import ApiBlueprint
from flask_app.bodies import parse_json, parse_yaml, raw_body, write_yaml
from flask_app.database import config
from flask_app.messages import ExportQuerySchema, ImportQuerySchema, ImportResultSchema
from flask_app.schemas import ConfigurationSchema
from scada.errors import ConfigError

blueprint = ApiBlueprint("configuration", "The whole configuration as one JSON or YAML file.")
# The second is what people wrote before RFC 9512 registered the first.
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml")
_FILE = {"application/json": ConfigurationSchema, YAML_TYPES[0]: ConfigurationSchema}


@blueprint.route("/config")
class Configuration(MethodView):
    """The whole configuration."""

    @blueprint.reporting(ConfigurationSchema, 422)
    @blueprint.answering(ConfigurationSchema, "as it is now", media_type=YAML_TYPES[0])
    @blueprint.asking(ExportQuerySchema)
    def get(self, query: dict[str, Any]) -> Response:
        """Export everything, as JSON unless `format` or Accept says YAML."""
        # First: if somebody changes something in between, the ETag is too old, and If-Match refuses.
        revision = config().revision()
        document = config().export_config()
        wanted = query.get("format") or ("yaml" if _prefers_yaml() else "json")
        response = (
            resource.as_json(document) if wanted == "json" else Response(write_yaml(document), mimetype=YAML_TYPES[0])
        )
        response.set_etag(str(revision))
        response.vary.add("Accept")
        return response

    @blueprint.guarded()
    @blueprint.importing(_FILE, ImportQuerySchema, ImportResultSchema)
    def post(self, query: dict[str, Any]) -> Response:
        """Import a file: what it names is created or changed, the rest stays (or goes, with mode=replace)."""
        return _import(query)

    @blueprint.guarded()
    @blueprint.importing(_FILE, ImportQuerySchema, ImportResultSchema)
    def put(self, query: dict[str, Any]) -> Response:
        """Import a file; the configuration is then what it says (or that and more, with mode=merge)."""
        return _import({"mode": "replace", **query})


def _import(query: dict[str, Any]) -> Response:
    document = _document()
    if not isinstance(document, dict):
        raise ConfigError("the file must be an object with items and devices")
    dry_run = query["dry_run"]
    result = config().import_config(document, query.get("mode", "merge"), dry_run=dry_run, **resource.guard())
    return resource.as_json({**result, "dry_run": dry_run})


def _document() -> Any:
    if request.mimetype in YAML_TYPES:
        return parse_yaml(raw_body(*YAML_TYPES))
    return parse_json(raw_body("application/json", *YAML_TYPES))


def _prefers_yaml() -> bool:
    accepted = request.accept_mimetypes
    return accepted.best_match(["application/json", *YAML_TYPES]) in YAML_TYPES

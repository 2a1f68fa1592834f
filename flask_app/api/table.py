"""/tags.csv: tags as a table, out to a spreadsheet and in again."""

from typing import Any

from flask import Response
from flask.views import MethodView

from flask_app import spreadsheet
from flask_app.api import resource
from flask_app.api.blueprint import ApiBlueprint
from flask_app.bodies import raw_body
from flask_app.database import config
from flask_app.messages import TableImportSchema, TableQuerySchema, TableResultSchema

blueprint = ApiBlueprint("table", "Tags with their bindings as CSV, one line each.")
_MEDIA_TYPE = "text/csv"
_CONTENT = {_MEDIA_TYPE: {"type": "string", "description": "the columns are in the documentation"}}
_PAGE = 10_000


@blueprint.route("/tags.csv")
class Table(MethodView):
    """Tags as a table."""

    @blueprint.problems(404, 422)
    @blueprint.answering({"type": "string"}, "a header line, one line a tag", media_type=_MEDIA_TYPE)
    @blueprint.asking(TableQuerySchema)
    def get(self, query: dict[str, Any]) -> Response:
        """Export tags, all or those of one device."""
        filters = {"device_id": resource.existing_device(query["device"])} if "device" in query else {}
        text = spreadsheet.write(*_everything(filters))
        response = Response(text, mimetype=_MEDIA_TYPE)
        response.headers["Content-Disposition"] = 'attachment; filename="tags.csv"'
        return response

    @blueprint.importing(_CONTENT, TableImportSchema, TableResultSchema)
    def post(self, query: dict[str, Any]) -> Response:
        """Import tags, all lines or none; tags that exist are changed (or a conflict, with mode=create)."""
        table = spreadsheet.read(raw_body(_MEDIA_TYPE))
        with table.named_faults():
            ids = config().create_tags_bulk(
                table.documents,
                path="",
                merge=query["mode"] == "merge",
                # With a line that cannot be read nothing is stored, but what is wrong with the others is told too.
                dry_run=query["dry_run"] or bool(table.faults),
                **resource.maker(),
            )
        return resource.as_json({"total": len(ids), "dry_run": query["dry_run"]})


def _everything(filters: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, dict[int, str]]]:
    """All tags, and the names behind the ids in them."""
    store = config()
    names = {
        "device_id": {each["id"]: each["name"] for each in _all(store.list_devices)},
        "item_id": {each["id"]: each["name"] for each in _all(store.list_items)},
        "term_id": {each["id"]: each["name"] for each in _all(store.list_terms)},
    }
    return _all(store.list_tags, filters), names


def _all(method: Any, filters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    while True:
        items, total = method(len(result) // _PAGE + 1, _PAGE, ["id"], filters)
        result += items
        if len(result) >= total or not items:
            return result

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
from storage.shapes import INHERITED

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
    items = {each["id"]: each for each in _all(store.list_items)}
    terms = {each["id"]: each for each in _all(store.list_terms)}
    names = {
        "device_id": {each["id"]: each["name"] for each in _all(store.list_devices)},
        "item_id": {number: each["name"] for number, each in items.items()},
        "term_id": {number: each["name"] for number, each in terms.items()},
    }
    tags = _all(store.list_tags, filters)
    return [_own(tag, items.get(tag["item_id"]), terms.get(tag["term_id"])) for tag in tags], names


def _own(tag: dict[str, Any], item: dict[str, Any] | None, term: dict[str, Any] | None) -> dict[str, Any]:
    """The tag without what it has from its item and its term: read in again, it is to follow them as before."""
    if item is not None:
        tag = tag | {name: None for name in INHERITED if tag[name] == item[name]}
    if term is not None:
        tag = tag | {"bindings": [_without_unit(binding, term["settings"]) for binding in tag["bindings"]]}
    return tag


def _without_unit(binding: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    unit_id = (settings.get(binding["protocol"]) or {}).get("unit_id")
    if unit_id is None or binding["address"].get("unit_id") != unit_id:
        return binding
    return binding | {"address": binding["address"] | {"unit_id": None}}


def _all(method: Any, filters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    while True:
        items, total = method(len(result) // _PAGE + 1, _PAGE, ["id"], filters)
        result += items
        if len(result) >= total or not items:
            return result

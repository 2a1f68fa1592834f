"""/items: reusable definitions of quantities."""

from typing import Any

from flask import Response
from flask.views import MethodView

from flask_app.api import examples, resource
from flask_app.api.blueprint import ApiBlueprint
from flask_app.database import config
from flask_app.messages import query_schema
from flask_app.schemas import ItemPatchSchema, ItemSchema

blueprint = ApiBlueprint("items", "Reusable definitions of a quantity; a tag made from an item inherits them.")
_Query = query_schema("Item", "id", "name", "description", "data_type", "unit", "revision")


@blueprint.route("/items")
class Items(MethodView):
    """All items."""

    @blueprint.listing(_Query, ItemSchema)
    def get(self, query: dict[str, Any]) -> Response:
        """List items."""
        return resource.page(config().list_items, query)

    @blueprint.creating(ItemSchema, example=examples.ITEM)
    def post(self) -> Response:
        """Create an item."""
        document = config().create_item(resource.document(), **resource.maker())
        return resource.created(document, f"/api/v1/items/{document['id']}")


@blueprint.route("/items/<item>")
class Item(MethodView):
    """One item."""

    @blueprint.reading(ItemSchema)
    def get(self, item: str) -> Response:
        """Read an item."""
        return resource.shown(config().get_item(resource.identity(item, "item")))

    @blueprint.changing(ItemSchema)
    def put(self, item: str) -> Response:
        """Replace an item; its tags follow."""
        item_id = resource.identity(item, "item")
        return resource.changed(config().replace_item(item_id, resource.document(), **resource.guard()))

    @blueprint.patching(ItemPatchSchema, ItemSchema)
    def patch(self, item: str) -> Response:
        """Change what a merge patch names."""
        item_id = resource.identity(item, "item")
        return resource.changed(config().patch_item(item_id, resource.patch(), **resource.guard()))

    @blueprint.deleting()
    def delete(self, item: str) -> Response:
        """Delete an item that no tag is made from."""
        config().delete_item(resource.identity(item, "item"), **resource.guard())
        return resource.gone()

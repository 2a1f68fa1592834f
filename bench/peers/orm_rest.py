"""A list of tags the usual way: ORM objects, a marshmallow schema that dumps each, OFFSET paging. `orm_rest URI PORT`."""

import sys
from typing import Any

from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy
from marshmallow import Schema, fields
from sqlalchemy import func, select

from flask_app.bridge import Limits
from flask_app.server import listen, serve
from storage.models import Binding, Device, Tag


class BindingSchema(Schema):
    """A binding as its row has it."""

    id = fields.Integer()
    tag_id = fields.Integer()
    protocol = fields.String()
    direction = fields.String()
    address = fields.Dict()
    options = fields.Dict()
    scaling = fields.Dict()
    limits = fields.Dict()


class TagSchema(Schema):
    """A tag with its bindings."""

    id = fields.Integer()
    device_id = fields.Integer()
    name = fields.String()
    description = fields.String()
    data_type = fields.String()
    unit = fields.String()
    deadband = fields.Float()
    bindings = fields.List(fields.Nested(BindingSchema))


def create(uri: str) -> Flask:
    """The application."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = uri
    db = SQLAlchemy(app)

    @app.get("/tags")
    def tags() -> dict[str, Any]:
        page, size = int(request.args.get("page", 1)), int(request.args.get("page_size", 100))
        sort = request.args.get("sort", "id")
        column = getattr(Tag, sort.lstrip("-"))
        query = select(Tag)
        if "device" in request.args:
            query = query.join(Device, Tag.device_id == Device.id).where(Device.name == request.args["device"])
        total = db.session.scalar(select(func.count()).select_from(query.subquery()))
        ordered = (
            query.order_by(column.desc() if sort.startswith("-") else column).limit(size).offset((page - 1) * size)
        )
        found = []
        for tag in db.session.scalars(ordered):
            tag.bindings = db.session.scalars(select(Binding).where(Binding.tag_id == tag.id)).all()
            found.append(tag)
        return {"items": TagSchema(many=True).dump(found), "total": total}

    return app


if __name__ == "__main__":
    serve(create(sys.argv[1]), listen("127.0.0.1", int(sys.argv[2])), Limits(body=lambda path: 2**20))

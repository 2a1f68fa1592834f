"""/rejects: messages and values that were not written, and why."""

from typing import Any

from flask import Response
from flask.views import MethodView

from flask_app.api import resource
from flask_app.api.blueprint import ApiBlueprint
from flask_app.database import stores
from flask_app.messages import RejectCountsSchema, RejectSchema, query_schema

blueprint = ApiBlueprint("rejects", "Messages and values that were not written: the newest 1,000, and counts.")
_Query = query_schema("Reject", "id", "topic", "payload", "code", "reason", "device", "tag")


@blueprint.route("/rejects")
class Rejects(MethodView):
    """The newest rejects."""

    @blueprint.listing(_Query, RejectSchema)
    def get(self, query: dict[str, Any]) -> Response:
        """List rejects, newest first."""
        return resource.page(stores().rejects.list, query)


@blueprint.route("/rejects/counts")
class RejectCounts(MethodView):
    """How often each reason occurred."""

    @blueprint.reporting(RejectCountsSchema)
    def get(self) -> Response:
        """Count rejects by code, since the database was made."""
        counts = stores().rejects.counts()
        return resource.as_json({"counts": counts, "total": sum(counts.values())})

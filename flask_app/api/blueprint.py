"""The blueprint of a resource: decorators that say what a view takes and answers, for the document and for the check."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flask import current_app, request
from flask_smorest import Blueprint
from marshmallow import RAISE, Schema

from flask_app.messages import ProblemSchema, page_schema
from scada.errors import ConfigError, Fault

MERGE_PATCH = "application/merge-patch+json"
NOT_WAITED = "Tagwire-Not-Waited"
_LOCATION = {"Location": {"schema": {"type": "string"}, "description": "where the new object is"}}
_WHY_NOT_WAITED = "there with `wait` when the answer came at once, as too many others wait; says how many"
_IF_MATCH = {
    "in": "header",
    "name": "If-Match",
    "schema": {"type": "string"},
    "description": "ETag of the object as it was read; 412 when it was changed since",
}
_IF_NONE_MATCH = {
    "in": "header",
    "name": "If-None-Match",
    "schema": {"type": "string"},
    "description": "304 when the object still has this ETag",
}
_PROBLEMS = {
    400: "the body is not well-formed",
    404: "there is no such object",
    406: "no media type that is accepted can be given",
    409: "it contradicts what is stored",
    412: "it was changed since it was read",
    413: "the body is too long",
    415: "the body is of another media type",
    422: "the input has faults; `errors` lists every one",
    424: "the device did not answer, or refused",
    503: "the database does not answer, or there is no broker where one is needed; try again",
    507: "the database's disk is full",
}
_ASKS = "tagwire_asks"
View = TypeVar("View", bound=Callable[..., Any])


class ApiBlueprint(Blueprint):  # type: ignore[misc]  # flask-smorest has no types
    """A blueprint below /api/v1 whose decorators document what the views here do."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(name, __name__, url_prefix="/api/v1", description=description)
        self.before_request(_refuse_query)

    def problems(self, *statuses: int) -> Callable[[View], View]:
        """Document refusals, and what every operation can answer: 406, 422 to a query that it does not know, and the
        database's trouble."""

        def decorator(view: View) -> View:
            for status in sorted({*statuses, 406, 422, 503}):
                view = self.alt_response(
                    status,
                    schema=ProblemSchema,
                    content_type="application/problem+json",
                    description=_PROBLEMS[status],
                )(view)
            return view

        return decorator

    def listing(self, query: type[Schema], schema: type[Schema]) -> Callable[[View], View]:
        """A GET of one page. The view gets the query's arguments."""
        return _chain(
            self.problems(404, 422),
            self.response(200, page_schema(schema), description="one page, and how many there are in all"),
            self.asking(query),
        )

    def reading(self, schema: Any) -> Callable[[View], View]:
        """A GET of one object."""
        return _chain(
            self.problems(404),
            self.doc(parameters=[_IF_NONE_MATCH]),
            self.alt_response(304, description="not changed"),
            self.response(200, schema, description="the object", headers={"ETag": {"schema": {"type": "string"}}}),
        )

    def reporting(self, schema: Any, *problems: int) -> Callable[[View], View]:
        """A GET of something that is no object of the configuration."""
        return _chain(self.problems(*problems), self.response(200, schema, description="as it is now"))

    def creating(self, schema: Any, result: Any = None, *, example: Any) -> Callable[[View], View]:
        """A POST of one object."""
        return _chain(
            self.problems(400, 404, 409, 412, 413, 415, 422, 507),
            self.taking({"application/json": schema}, example),
            self.response(201, result or schema, description="the whole new object", headers=_LOCATION),
        )

    def changing(self, schema: Any, result: Any = None, *media_types: str) -> Callable[[View], View]:
        """A PUT of one object, or with a schema of its own and a further media type a PATCH."""
        return _chain(
            self.problems(400, 404, 409, 412, 413, 415, 422, 507),
            self.taking(dict.fromkeys(("application/json", *media_types), schema)),
            self.guarded(),
            self.response(200, result or schema, description="the whole object as it is now"),
        )

    def putting(self, schema: Any) -> Callable[[View], View]:
        """A PUT that also creates."""
        return _chain(
            self.changing(schema),
            self.alt_response(201, schema=schema, description="the whole new object", headers=_LOCATION),
        )

    def patching(self, schema: Any, result: Any) -> Callable[[View], View]:
        """A PATCH of one object."""
        return self.changing(schema, result, MERGE_PATCH)

    def deleting(self) -> Callable[[View], View]:
        """A DELETE of one object."""
        return _chain(
            self.problems(404, 409, 412, 507),
            self.guarded(),
            self.response(204, description="it is gone"),
        )

    def guarded(self) -> Callable[[View], View]:
        """Document If-Match."""
        return self.doc(parameters=[_IF_MATCH])  # type: ignore[no-any-return]  # untyped, as above

    def commanding(self, schema: Any, result: Any, *, example: Any) -> Callable[[View], View]:
        """A POST that asks a device for something and can wait for the end."""
        location = {"Location": {"schema": {"type": "string"}, "description": "where its end can be seen"}}
        return _chain(
            self.problems(400, 404, 409, 413, 415, 422),
            self.taking({"application/json": schema}, example),
            self.alt_response(
                202,
                schema=result,
                description="on its way, as far as it is known",
                headers={**location, NOT_WAITED: {"schema": {"type": "string"}, "description": _WHY_NOT_WAITED}},
            ),
            self.response(200, result, description="it has ended", headers=location),
        )

    def importing(self, content: Mapping[str, Any], query: type[Schema], result: Any) -> Callable[[View], View]:
        """A POST or PUT of a whole file. The view gets the query's arguments."""
        return _chain(
            self.problems(400, 409, 412, 413, 415, 422, 507),
            self.taking(content),
            self.answering(result, "what was in the file"),
            self.asking(query),
        )

    def asking(self, query: type[Schema]) -> Callable[[View], View]:
        """Read the query; the view gets its arguments, and what is unknown or wrong is 422."""

        def decorator(view: View) -> View:
            asking: View = self.arguments(query, location="query", unknown=RAISE)(view)
            setattr(asking, _ASKS, True)
            return asking

        return decorator

    def answering(self, schema: Any, text: str, media_type: str = "application/json") -> Callable[[View], View]:
        """Document the answer 200."""
        return self.response(200, schema, description=text, content_type=media_type)  # type: ignore[no-any-return]  # untyped, as above

    def taking(self, content: Mapping[str, Any], example: Any = None) -> Callable[[View], View]:
        """Document the body: media type to schema. The store checks it, all faults at once."""
        shown = {} if example is None else {"example": example}
        body = {media_type: {"schema": schema, **shown} for media_type, schema in content.items()}
        return self.doc(requestBody={"required": True, "content": body})  # type: ignore[no-any-return]  # untyped, as above


def _refuse_query() -> None:
    """Raise ConfigError for the arguments of a view that has not said what it asks for: one rule for all of them."""
    view = getattr(current_app.view_functions.get(request.endpoint or ""), "view_class", None)
    method = getattr(view, "get" if request.method == "HEAD" else request.method.lower(), None)
    if request.args and method is not None and not hasattr(method, _ASKS):
        raise ConfigError([Fault(name[:64], "unknown field") for name in request.args])


def _chain(*decorators: Callable[[Any], Any]) -> Callable[[View], View]:
    def decorator(view: View) -> View:
        for each in reversed(decorators):
            view = each(view)
        return view

    return decorator

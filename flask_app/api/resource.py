"""What the views of every resource share: how objects are named, read, answered and guarded against lost updates."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson
from flask import Response, request
from marshmallow import Schema, ValidationError
from werkzeug.exceptions import BadRequest, PreconditionFailed

from flask_app.api.blueprint import MERGE_PATCH
from flask_app.bodies import json_body
from flask_app.database import config
from flask_app.errors import faults_of
from scada.errors import ConfigError, Fault, NotFound

_ID_DIGITS = 10


def document() -> Any:
    """The request's JSON; the store says what is wrong with it."""
    return json_body()


def patch() -> Any:
    """The request's merge patch."""
    return json_body(MERGE_PATCH)


def array(name: str) -> list[Any]:
    """The array that the request's JSON object consists of."""
    found = document()
    if not isinstance(found, dict):
        raise ConfigError("must be an object")
    faults = [Fault(key, "unknown field") for key in found if key != name]
    if not isinstance(found.get(name), list):
        faults.append(Fault(name, "must be an array" if name in found else "is required"))
    if faults:
        raise ConfigError(faults)
    return list(found[name])


def loaded(schema: type[Schema], data: Any) -> dict[str, Any]:
    """`data` as a schema loads it; ConfigError with every fault."""
    if not isinstance(data, dict):
        raise ConfigError("must be an object")
    try:
        result: dict[str, Any] = schema().load(data)
    except ValidationError as error:
        raise ConfigError(faults_of(error.messages)) from error
    return result


def page(method: Callable[..., tuple[Sequence[Any], int]], query: dict[str, Any], **more: Any) -> Response:
    """One page of what a store's list method gives for the query's arguments; `more` are further filters."""
    number, size, sort = query.pop("page"), query.pop("page_size"), query.pop("sort")
    items, total = method(number, size, sort, {**query, **more})
    return as_json({"items": items, "total": total})


def shown(found: Any, revision: int | None = None) -> Response:
    """An object as the answer to a GET; 304 when the client has it. `revision` is for objects that do not carry their own."""
    response = as_json(found)
    response.set_etag(str(found["revision"] if revision is None else revision))
    response.make_conditional(request)
    return response


def shown_part(get: Callable[[int], Any], part_id: int, device_id: int | None = None) -> Response:
    """A part of a device as the answer to a GET, under the device's revision.

    The revision is read first: if somebody changes the part in between, the ETag is too old, and If-Match refuses.
    """
    owner = get(part_id)["device_id"] if device_id is None else device_id
    revision = config().device_revision(owner)
    return shown(get(part_id), revision)


def changed(found: Any) -> Response:
    """An object as the answer to a PUT or PATCH. It has an ETag where it carries its revision.

    The revision of a part's device, read a moment later, could be that of somebody else's change.
    """
    response = as_json(found)
    if "revision" in found:
        response.set_etag(str(found["revision"]))
    return response


def created(found: Any, location: str) -> Response:
    """A new object, and where it is."""
    response = changed(found)
    response.status_code = 201
    response.headers["Location"] = location
    return response


def gone() -> Response:
    """The answer to a DELETE."""
    return Response(status=204)


def as_json(data: Any, status: int = 200) -> Response:
    """Plain data as it is: what comes out of the store has passed the same records on its way in."""
    return Response(orjson.dumps(data, option=orjson.OPT_APPEND_NEWLINE), status, mimetype="application/json")


def expected_revision() -> int | None:
    """The revision in If-Match; None when the change is wanted whatever there is (no If-Match, or *)."""
    if "If-Match" not in request.headers:
        return None
    tags = request.if_match
    if tags.star_tag:
        return None
    # werkzeug gives None for an empty tag.
    strong = [tag for tag in tags.as_set() if tag]
    if len(strong) > 1:
        raise BadRequest("If-Match takes one ETag")
    if not strong or not strong[0].isascii() or not strong[0].isdigit() or len(strong[0]) > 18:
        raise PreconditionFailed("If-Match holds no ETag of this object")
    return int(strong[0])


def guard() -> dict[str, Any]:
    """What a change of an existing object is told: the revision the client has seen, and who it is."""
    if wanted_new():
        raise PreconditionFailed("If-None-Match: * asks for something new, and this is there")
    return {"expected_revision": expected_revision(), "who": who()}


def maker() -> dict[str, Any]:
    """What a POST to a list is told. A list has no ETag, so an If-Match that names one cannot be kept."""
    if "If-Match" in request.headers and not request.if_match.star_tag:
        raise PreconditionFailed("a list has no ETag that If-Match could name")
    return {"who": who()}


def wanted_new() -> bool:
    """Whether the client wants the object only if it is not there yet (If-None-Match: *)."""
    if "If-None-Match" in request.headers and not request.if_none_match.star_tag:
        raise BadRequest("with a change If-None-Match takes * only")
    return request.if_none_match.star_tag


def who() -> str:
    """Who stands in the audit log."""
    return f"rest {request.remote_addr or ''}".strip()


def device_id(reference: str) -> int:
    """The id of a device given by id or name."""
    return identity(reference, "device") if _is_number(reference) else config().device_id(reference)


def tag_id(reference: str) -> int:
    """The id of a tag given by id or full name (`Device@Tag`)."""
    if _is_number(reference):
        return identity(reference, "tag")
    device, at, name = reference.partition("@")
    if not at:
        raise NotFound(f"no tag {reference[:130]!r}; a tag's full name is Device@Tag")
    if _is_number(device):
        raise NotFound(f"no tag {reference[:130]!r}; give the device by its name")
    return config().tag_id(device, name)


def existing_device(reference: str) -> int:
    """As device_id, but a device that is not there is NotFound also when given by id."""
    found = device_id(reference)
    config().device_revision(found)
    return found


def existing_tag(reference: str) -> int:
    """As tag_id, but a tag that is not there is NotFound also when given by id."""
    found = tag_id(reference)
    config().get_tag(found)
    return found


def filter_by_device(query: dict[str, Any]) -> None:
    """Put the id in the place of the one device that the filter `device` names, by id or name.

    One device's parts come from an index; a pattern has to look at every part, and stays.
    """
    device = query.get("device", "*")
    if "*" in device or "?" in device:
        return
    if "device_id" in query:
        raise ConfigError([Fault("device", "give either device or device_id")])
    try:
        query["device_id"] = device_id(query.pop("device"))
    except NotFound:
        # An id that none has: a filter that nothing passes is no error.
        query["device_id"] = 0


def identity(reference: str, what: str) -> int:
    """An id out of a path; NotFound for what cannot be one."""
    if not _is_number(reference) or len(reference) > _ID_DIGITS:
        raise NotFound(f"no {what} {reference[:64]!r}")
    return int(reference)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()

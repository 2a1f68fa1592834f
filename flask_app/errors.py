"""Which exception becomes which problem: the table of the five kinds of error, and what Flask itself refuses."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, InternalServerError

from flask_app.problems import MEDIA_TYPE, problem_bytes
from scada.errors import ConfigError, Conflict, Fault, LinkError, NotFound

_log = logging.getLogger(__name__)
RETRY_AFTER_S = 2
# These never reach a client as they are: the first would be 500, the body says no more than the status.
_GENERIC = "this is a fault of the program; its log says more"


def register(app: Flask) -> None:
    """Answer every error of this application with a problem."""
    app.register_error_handler(Conflict, _conflict)
    app.register_error_handler(ConfigError, _invalid)
    app.register_error_handler(NotFound, lambda error: respond(404, str(error)))
    app.register_error_handler(LinkError, _unavailable)
    app.register_error_handler(HTTPException, _http)


def respond(
    status: int,
    detail: str = "",
    faults: Iterable[Fault] = (),
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """A problem as a response."""
    response = Response(problem_bytes(status, detail, faults, extra), status, mimetype=MEDIA_TYPE)
    response.headers.update(headers or {})
    return response


def _invalid(error: ConfigError) -> Response:
    return respond(422, _summary(error.faults), error.faults)


def _conflict(error: Conflict) -> Response:
    # The store knows one number that a caller has seen, the revision; it came here in If-Match.
    outdated = "If-Match" in request.headers and any(fault.field == "revision" for fault in error.faults)
    return respond(412 if outdated else 409, _summary(error.faults), error.faults)


def _unavailable(error: LinkError) -> Response:
    # RFC 4918, 11.5: 507 is for a store that has no room; it may be repeated once there is some.
    status = 507 if "disk is full" in str(error) else 503
    _log.error("%s %s: %s", request.method, request.path, error)
    return respond(status, str(error), headers={"Retry-After": str(RETRY_AFTER_S)})


def _http(error: HTTPException) -> Response:
    if isinstance(error, InternalServerError) or error.code is None:
        return respond(500, _GENERIC)
    if error.response is not None or error.code < 400:
        return error.get_response()  # type: ignore[return-value]  # werkzeug types it as the base of its Response
    data: Mapping[str, Any] = getattr(error, "data", None) or {}
    # webargs puts the place that was read ("query", "json") above the fields.
    faults = [fault for place in (data.get("messages") or {}).values() for fault in faults_of(place)]
    response = respond(error.code, _summary(faults) if faults else error.description or "", faults)
    for name, value in error.get_headers(request.environ):
        if name in ("Accept-Encoding", "Allow", "Retry-After", "Content-Range"):
            response.headers[name] = value
    return response


def _summary(faults: Iterable[Fault]) -> str:
    listed = list(faults)
    return str(listed[0]) if len(listed) == 1 else f"{len(listed)} faults"


def faults_of(messages: Any, path: str = "") -> Iterator[Fault]:
    """marshmallow's nested messages as faults with dotted paths."""
    if isinstance(messages, Mapping):
        for name, below in messages.items():
            part = "" if name == "_schema" else str(name)
            yield from faults_of(below, f"{path}.{part}" if path and part else path or part)
    else:
        for message in messages if isinstance(messages, list) else [messages]:
            yield Fault(path, str(message).rstrip(".").replace("Unknown field", "unknown field"))

"""The one shape of every error: RFC 9457 problem details, here with the list `errors` of every fault found."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import orjson

from scada.errors import Fault

MEDIA_TYPE = "application/problem+json"
_TYPES = {
    400: "malformed",
    404: "not-found",
    409: "conflict",
    412: "outdated",
    413: "too-large",
    415: "media-type",
    422: "invalid",
    424: "device",
    503: "unavailable",
    507: "storage-full",
}


def problem(
    status: int, detail: str = "", faults: Iterable[Fault] = (), extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The members of a problem. `type` is `about:blank` where the status says it all (RFC 9457, 4.2.1)."""
    code = _TYPES.get(status)
    result: dict[str, Any] = {
        "type": f"urn:tagwire:problem:{code}" if code else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
    }
    if detail:
        result["detail"] = detail
    errors = [{"field": fault.field, "message": fault.message} for fault in faults]
    if errors:
        result["errors"] = errors
    return result | dict(extra or {})


def problem_bytes(
    status: int, detail: str = "", faults: Iterable[Fault] = (), extra: Mapping[str, Any] | None = None
) -> bytes:
    """A problem as JSON."""
    return orjson.dumps(
        problem(status, _clean(detail), (_clean_fault(fault) for fault in faults), extra),
        option=orjson.OPT_APPEND_NEWLINE,
    )


def _clean(text: str) -> str:
    # What is quoted from a request may hold a half surrogate pair, which is no UTF-8.
    return text.encode("utf-8", "backslashreplace").decode()


def _clean_fault(fault: Fault) -> Fault:
    return Fault(_clean(fault.field), _clean(fault.message))

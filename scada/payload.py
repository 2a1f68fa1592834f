"""The payload of a message: bytes to one JSON value, strictly, or the reason why not.

orjson is pure (bytes in, objects out), which is why the core may import it: docs/decisions/0002-orjson-in-the-core.md.
"""

from typing import Any

import orjson

from scada.values import BadValue, RejectCode

MAX_PAYLOAD_BYTES = 262_144
HEAD_CHARACTERS = 200
HEAD_BYTES = 4 * (HEAD_CHARACTERS + 1)
"""So much of a payload is enough for its head: a character has at most 4 bytes."""


def decode_payload(data: bytes, max_bytes: int = MAX_PAYLOAD_BYTES) -> Any:
    """The JSON value (RFC 8259) that data is: dict, list, str, int, float, bool or None.

    Of duplicate keys the last wins. An integer outside -2**63..2**64-1 becomes the nearest float, as every number with a
    fraction or an exponent does; the register codec takes a float for an integer only below 2**53, so no such number
    turns into another integer. Nesting goes to 1,024: repr() and == of a value that deep raise RecursionError, so report
    payload_head, never the value.

    Raises BadValue: TOO_LARGE (before anything is parsed), EMPTY (nothing, or only white space), NOT_UTF8, NOT_JSON (also
    NaN, Infinity, 1e400, a lone surrogate, a byte order mark, bytes after the value, nesting beyond 1,024).
    """
    if len(data) > max_bytes:
        raise BadValue(RejectCode.TOO_LARGE, f"{len(data)} bytes; at most {max_bytes} are read")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        reason, position = exc.msg, exc.pos
    # raised out here: as its context, the parser's error would keep the whole payload alive in every report
    raise _fault(data, reason, position)


def payload_head(data: bytes, limit: int = HEAD_CHARACTERS) -> str:
    """The beginning of data for reports and logs: printable, one line, at most `limit` characters with a closing … if cut.

    Bytes that are no UTF-8 appear as \\xff, control and invisible characters as \\n, \\u202e; a backslash in the data
    stays as it is, so the head is for reading and not for parsing.
    """
    # a character has at most 4 bytes: what a cut through the last one leaves lies beyond the limit
    text = data[: 4 * (limit + 1)].decode(errors="backslashreplace")
    if not text.isprintable():
        text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _fault(data: bytes, reason: str, position: int) -> BadValue:
    if not data.strip(b" \t\r\n"):
        return BadValue(RejectCode.EMPTY, "empty payload" if not data else f"{len(data)} bytes of white space")
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        return BadValue(RejectCode.NOT_UTF8, f"byte {exc.start} is no UTF-8: {exc.reason}")
    return BadValue(RejectCode.NOT_JSON, f"no JSON at character {position}: {reason}")

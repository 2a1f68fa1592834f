"""Where in a message's JSON a value stands: a path, parsed and compiled once, walked for each message.

    "" or $         the whole payload
    a.b.c           keys of objects; a leading `$.` may be written
    a[0].b  [2]     elements of arrays, [-1] the last
    a["x.y"].b      a key in quotes, double or single; inside them a backslash stands before a quote or a backslash

A key without quotes is one or more characters other than . [ ] " ' \\ and control characters, does not begin or end with a
space, does not begin with $, and is not * (a wildcard elsewhere, a key here only in quotes).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn

from scada.errors import ConfigError, Fault
from scada.values import TYPE_NAMES, BadValue, RejectCode

MAX_PATH_CHARACTERS = 512
MAX_INDEX_DIGITS = 6  # no payload under the size cap has a million elements

_SPECIAL = frozenset(".[]\"'\\")
_ABSENT = object()

Part = str | int


@dataclass(frozen=True, slots=True)
class Path:
    """`text` is the canonical spelling ($ for the whole payload), `parts` keys (str) and indexes (int).

    `get(document)` gives the value there, which may be null, or raises BadValue: MISSING (no such key or element) or
    WRONG_TYPE (no object, or no array, where the path goes on), naming the part that failed.
    """

    text: str
    parts: tuple[Part, ...]
    get: Callable[[Any], Any] = field(compare=False, repr=False)


@lru_cache(maxsize=10_000)
def compile_path(text: str) -> Path:
    """Raises ConfigError, with the position (from 1) and what is wrong there.

    A fleet of equal devices names the same few paths a thousand times: they share one compiled Path.
    """
    if len(text) > MAX_PATH_CHARACTERS:
        raise ConfigError([Fault("", f"a path has at most {MAX_PATH_CHARACTERS} characters, not {len(text)}")])
    parts = _parse(text)
    return Path(_spell(parts) or "$", parts, _getter(parts))


def _parse(text: str) -> tuple[Part, ...]:
    position = 0
    if text.startswith("$"):
        position = 1
        if len(text) > 1 and text[1] not in ".[":
            _refuse(text, 1, "a . or [ after $ was expected; a key that begins with $ is written in quotes")
    parts: list[Part] = []
    while position < len(text):
        if text[position] == "[":
            part, position = _bracket(text, position + 1)
        elif text[position] == "." and (parts or text[0] == "$"):
            part, position = _bare_key(text, position + 1)
        elif position == 0:
            part, position = _bare_key(text, 0)
        else:
            _refuse(text, position, "a . or [ was expected")
        parts.append(part)
    return tuple(parts)


def _bare_key(text: str, start: int) -> tuple[str, int]:
    end = start
    while end < len(text) and text[end] not in _SPECIAL and not _is_control(text[end]):
        end += 1
    key = text[start:end]
    if end < len(text) and text[end] not in ".[":
        _refuse(text, end, 'this character is written in quotes, as in a["x]y"]')
    if not key:
        _refuse(text, start, "a key was expected")
    if key != key.strip() or key == "*" or key[0] == "$":
        _refuse(text, start, f"the key {key!r} is written in quotes: [{key!r}]")
    return key, end


def _bracket(text: str, start: int) -> tuple[Part, int]:
    part: Part
    if text[start : start + 1] in ('"', "'"):
        part, end = _quoted_key(text, start)
    else:
        end = text.find("]", start)
        digits = text[start:end].removeprefix("-") if end > start else ""
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= MAX_INDEX_DIGITS):
            _refuse(text, start, "an index (0, 1, ... or from the end -1, -2, ...) or a key in quotes was expected")
        part = int(text[start:end])
        if str(part) != text[start:end]:
            _refuse(text, start, f"the index is written {part}")
    if text[end : end + 1] != "]":
        _refuse(text, end, "a ] was expected")
    return part, end + 1


def _quoted_key(text: str, start: int) -> tuple[str, int]:
    quote = text[start]
    key: list[str] = []
    position = start + 1
    while position < len(text) and text[position] != quote:
        if text[position] == "\\":
            position += 1
            if text[position : position + 1] not in ("\\", '"', "'"):
                _refuse(text, position, "after a backslash a quote or a backslash was expected")
        elif _is_control(text[position]):
            _refuse(text, position, "control characters and lone surrogates are in no key")
        key.append(text[position])
        position += 1
    if position >= len(text):
        _refuse(text, start, "this quote is not closed")
    return "".join(key), position + 1


def _is_control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff"


def _refuse(text: str, position: int, what: str) -> NoReturn:
    raise ConfigError([Fault("", f"path {text!r}, character {position + 1}: {what}")])


def _spell(parts: tuple[Part, ...]) -> str:
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part and part == part.strip() and part != "*" and part[0] != "$" and not _SPECIAL & set(part):
            text += f".{part}" if text else part
        else:
            escaped = part.replace("\\", "\\\\").replace('"', '\\"')
            text += f'["{escaped}"]'
    return text


def _getter(parts: tuple[Part, ...]) -> Callable[[Any], Any]:
    if not parts:
        return lambda document: document
    steps: tuple[tuple[Any, bool, str, str], ...] = tuple(
        (part, isinstance(part, int), *_messages(parts, n)) for n, part in enumerate(parts)
    )
    if len(parts) == 1 and isinstance(parts[0], str):
        return _key_getter(parts[0], *_messages(parts, 0))

    def get(document: Any) -> Any:
        value = document
        for part, is_index, missing, wrong in steps:
            if is_index:
                if value.__class__ is not list:
                    _wrong_type(wrong, value)
                if not -len(value) <= part < len(value):
                    raise BadValue(RejectCode.MISSING, missing)
                value = value[part]
            else:
                if value.__class__ is not dict:
                    _wrong_type(wrong, value)
                value = value.get(part, _ABSENT)
                if value is _ABSENT:
                    raise BadValue(RejectCode.MISSING, missing)
        return value

    return get


def _key_getter(key: str, missing: str, wrong: str) -> Callable[[Any], Any]:
    def get(document: Any) -> Any:
        if document.__class__ is not dict:
            _wrong_type(wrong, document)
        value = document.get(key, _ABSENT)
        if value is _ABSENT:
            raise BadValue(RejectCode.MISSING, missing)
        return value

    return get


def _messages(parts: tuple[Part, ...], n: int) -> tuple[str, str]:
    """What is said when part n is missing, and when the value before it is of a wrong type; made once, not per message."""
    whole, before, kind = _spell(parts[: n + 1]), _spell(parts[:n]), "array" if isinstance(parts[n], int) else "object"
    missing = f"no element {whole}" if kind == "array" else f"no key {whole}"
    return missing, f"{before or 'the payload'} is no {kind} (needed for {whole}) but "


def _wrong_type(message: str, value: Any) -> NoReturn:
    raise BadValue(RejectCode.WRONG_TYPE, message + TYPE_NAMES.get(value.__class__, value.__class__.__name__))

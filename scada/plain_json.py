"""JSON that nobody can read in two ways, and that every store can hold: RFC 7493, and no U+0000, which PostgreSQL refuses. Pure.

A second reader behind orjson, which refuses what is no JSON at all; slower, so for what people and other programs ask for
(requests, commands) and not for values.
"""

import json
import math
from collections import Counter
from typing import Any

MAX_DEPTH = 64
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1


def read_plain(data: bytes) -> Any:
    """The value of JSON that orjson has read. Raises ValueError for a name that stands twice in an object, and as check_plain."""
    try:
        value = json.loads(data, object_pairs_hook=_object, parse_int=_integer)
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    check_plain(value)
    return value


def read_in_part(data: bytes) -> dict[str, Any]:
    """What can be read of an object that read_plain refuses: its members without those that stand twice or are refused."""
    try:
        document = json.loads(data, object_pairs_hook=_once)
    except RecursionError:
        return {}
    return {name: value for name, value in document.items() if _is_plain(value)}


def check_plain(data: Any) -> None:
    """Raise ValueError for what no configuration holds: U+0000, infinite numbers, dates, bytes, deeper than MAX_DEPTH."""
    level = [data]
    for _ in range(MAX_DEPTH):
        if not level:
            return
        following: list[Any] = []
        for value in level:
            if isinstance(value, str):
                if "\0" in value:
                    raise ValueError("a text holds U+0000")
            elif isinstance(value, dict):
                if not all(isinstance(name, str) and "\0" not in name for name in value):
                    raise ValueError("the names in an object must be text without U+0000")
                following.extend(value.values())
            elif isinstance(value, list):
                following.extend(value)
            elif isinstance(value, float):
                if not math.isfinite(value):
                    raise ValueError("a number must be finite")
            elif isinstance(value, int):
                if not _INT_MIN <= value <= _INT_MAX:
                    raise ValueError("an integer needs more than 64 bits")
            elif value is not None:
                raise ValueError(f"a {type(value).__name__} has no place here; put it in quotes")
        level = following
    if level:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError(f"the name {_twice(pairs)[0]!r} stands twice in one object")
    return result


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        for name in _twice(pairs):
            del result[name]
    return result


def _twice(pairs: list[tuple[str, Any]]) -> list[str]:
    return [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]


def _is_plain(value: Any) -> bool:
    try:
        check_plain(value)
    except ValueError:
        return False
    return True


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError("an integer needs more than 64 bits")
    return int(text)

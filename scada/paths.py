"""JSON paths: where in a payload a tag's value stands, compiled once per tag.

Grammar: keys joined by dots (`a.b`), indexes in brackets (`[0]`, `[-1]` counts from the end), quoted keys in brackets
(`a["x.y"]`, `['z']`; a backslash escapes the quote and itself). A leading `$` or `$.` is allowed; "" and `$` are
the whole payload.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scada.errors import ConfigError, Fault
from scada.values import TYPE_NAMES, BadValue, RejectCode

MAX_PATH_LENGTH = 500
MAX_STEPS = 32
_MISSING: Any = object()

_STEP = re.compile(
    r"""\[ (?: (?P<index>-?[0-9]{1,9}) | "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>(?:[^'\\]|\\.)*)' ) \]
      | \.? (?P<key> [^.\[\]"'\s$][^.\[\]"']* )""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Path:
    """A compiled path. `text` is its canonical form; `get(document)` returns the value there or raises BadValue."""

    text: str
    get: Callable[[Any], Any]


def compile_path(text: str) -> Path:
    """Compile a path; raises ConfigError with the position of what is wrong."""
    if len(text) > MAX_PATH_LENGTH:
        raise ConfigError(f"is longer than {MAX_PATH_LENGTH} characters")
    steps: list[str | int] = []
    position = 1 if text.startswith("$") else 0
    while position < len(text):
        match = _STEP.match(text, position)
        first_key = position == 0
        if match is None or (match["key"] is not None and first_key == (text[position] == ".")):
            shown = text[position : position + 12]
            raise ConfigError(
                [Fault("", f"path {text[:60]!r}: cannot be understood from position {position}: {shown!r}")]
            )
        steps.append(_step(match))
        position = match.end()
    if len(steps) > MAX_STEPS:
        raise ConfigError(f"has more than {MAX_STEPS} steps")
    return Path(_canonical(steps), _compile(steps))


def _step(match: re.Match[str]) -> str | int:
    if match["index"] is not None:
        return int(match["index"])
    if match["key"] is not None:
        return match["key"].rstrip()
    quoted = match["double"] if match["double"] is not None else match["single"]
    return re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)


def _canonical(steps: list[str | int]) -> str:
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[^.\[\]\"'\s$]+", step):
            text += f".{step}" if text else step
        else:
            text += '["' + step.replace("\\", "\\\\").replace('"', '\\"') + '"]'
    return text


def _compile(steps: list[str | int]) -> Callable[[Any], Any]:
    if not steps:
        return lambda document: document
    if len(steps) == 1 and isinstance(steps[0], str):
        return _one_key(steps[0])

    def get(document: Any) -> Any:
        value = document
        for depth, step in enumerate(steps):
            if type(step) is str:
                if type(value) is not dict:
                    raise _wrong_type(steps, depth, value)
                value = value.get(step, _MISSING)
                if value is _MISSING:
                    raise _missing(steps, depth)
            else:
                if type(value) is not list:
                    raise _wrong_type(steps, depth, value)
                try:
                    value = value[step]
                except IndexError:
                    raise _missing(steps, depth) from None
        return value

    return get


def _one_key(key: str) -> Callable[[Any], Any]:
    missing = f"{_canonical([key])} is missing"

    def get(document: Any) -> Any:
        if type(document) is not dict:
            raise _wrong_type([key], 0, document)
        value = document.get(key, _MISSING)
        if value is _MISSING:
            raise BadValue(RejectCode.MISSING, missing)
        return value

    return get


def _missing(steps: list[str | int], depth: int) -> BadValue:
    return BadValue(RejectCode.MISSING, f"{_canonical(steps[: depth + 1])} is missing")


def _wrong_type(steps: list[str | int], depth: int, value: object) -> BadValue:
    where = _canonical(steps[:depth]) or "the payload"
    wanted = "an object" if isinstance(steps[depth], str) else "an array"
    kind = TYPE_NAMES.get(type(value), type(value).__name__)
    return BadValue(RejectCode.WRONG_TYPE, f"{where} must be {wanted}, not {kind}")

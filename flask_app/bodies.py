"""Request bodies: what a client sent, as plain data, or a clear refusal.

JSON is read strictly (RFC 8259, and what RFC 7493 adds): UTF-8 without a byte order mark, no NaN or Infinity, no number
beyond a double, no name twice in an object, no half surrogate pair, at most 64 levels deep. U+0000 is refused: PostgreSQL
cannot hold it.
"""

from typing import Any, ClassVar

import orjson
import yaml
from flask import request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from scada.plain_json import MAX_DEPTH, check_plain, read_plain


class _CodingRefused(UnsupportedMediaType):
    """415 for a compressed body, with the header by which a client learns to send it as it is (RFC 9110, 15.5.16)."""

    def get_headers(self, *arguments: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*arguments), ("Accept-Encoding", "identity")]


def raw_body(*media_types: str) -> bytes:
    """The request's body; 415 unless it is of one of these media types, in UTF-8, and not compressed."""
    if request.mimetype not in media_types:
        found = repr(request.mimetype[:64]) if request.mimetype else "a body with no Content-Type"
        raise UnsupportedMediaType(f"send {' or '.join(media_types)}, not {found}")
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8"):
        raise UnsupportedMediaType(f"{request.mimetype} is taken in UTF-8, not in {charset[:64]!r}")
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise _CodingRefused(f"send the body as it is: the Content-Encoding {coding[:64]!r} is not taken")
    return request.get_data(cache=False)


def json_body(*media_types: str) -> Any:
    """The request's JSON; 415 unless it says application/json or one of `media_types`, 400 when it is malformed."""
    return parse_json(raw_body("application/json", *media_types))


def parse_json(raw: bytes) -> Any:
    """Plain data out of JSON; raises BadRequest with the place of the fault."""
    if not raw.strip():
        raise BadRequest("the body is empty, JSON is expected")
    try:
        # orjson refuses what is no JSON at all; what it lets pass (names given twice, integers that become a float) is
        # found by the second reader.
        orjson.loads(raw)
        return read_plain(raw)
    except orjson.JSONDecodeError as exc:
        raise BadRequest(f"not JSON: {exc}") from exc
    except ValueError as exc:
        raise BadRequest(f"not acceptable as JSON: {exc}") from exc


def parse_yaml(raw: bytes) -> Any:
    """Plain data out of YAML 1.1 as PyYAML's safe loader reads it, without aliases; raises BadRequest."""
    try:
        text = raw.decode("utf-8")
        _check_events(text)
        data = yaml.load(text, Loader=_PlainLoader)
        check_plain(data)
    except UnicodeDecodeError as exc:
        raise BadRequest(f"not UTF-8: {exc}") from exc
    except yaml.YAMLError as exc:
        raise BadRequest(f"not YAML: {' '.join(str(exc).split())}") from exc
    except RecursionError as exc:
        raise BadRequest(f"nested more than {MAX_DEPTH} deep") from exc
    except ValueError as exc:
        raise BadRequest(f"not acceptable as YAML: {exc}") from exc
    return data


def write_yaml(data: Any) -> str:
    """YAML that parse_yaml reads as the same data: no aliases, no tags, in the order given."""
    return str(yaml.dump(data, Dumper=_Dumper, allow_unicode=True, sort_keys=False))


def _check_events(text: str) -> None:
    """Refuse aliases, tags and deep nesting.

    A few bytes of aliases can mean gigabytes, and libyaml's composer recurses until it crashes the process.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_BASE):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: aliases are not accepted")
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: tags such as {event.tag} are not accepted")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _PlainLoader(_BASE):  # type: ignore[misc]  # PyYAML has no types
    """The safe loader, refusing a name twice in a mapping."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for name, _ in node.value:
            if not isinstance(name.value, str):
                raise yaml.YAMLError(f"line {name.start_mark.line + 1}: a name must be text")
            if name.value in seen:
                raise yaml.YAMLError(f"line {name.start_mark.line + 1}: {name.value!r} stands twice in one mapping")
            seen.add(name.value)
        return dict(super().construct_mapping(node, deep=True))


def _text(dumper: Any, text: str) -> Any:
    # Line breaks to YAML 1.1 but not to anybody else: plain or in single quotes they would come back as spaces.
    style = '"' if any(char in text for char in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_BASE_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_BASE_DUMPER):  # type: ignore[misc]  # PyYAML has no types
    yaml_representers: ClassVar[dict[Any, Any]] = {**_BASE_DUMPER.yaml_representers, str: _text}

    def ignore_aliases(self, data: Any) -> bool:
        return True

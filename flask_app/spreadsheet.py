"""Tags as CSV: one line a tag, one column a field, `<protocol>.<field>` for its bindings.

RFC 4180 with a header line. Read: UTF-8, with or without a byte order mark, comma or semicolon. A cell that a spreadsheet
would take for a formula gets an apostrophe in front, which is taken off when the table comes back (OWASP, "CSV Injection").
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from werkzeug.exceptions import BadRequest

from flask_app.bodies import parse_json
from scada.errors import ConfigError, Conflict, Fault
from scada.paths import compile_path
from scada.registry import PROTOCOLS
from scada.schema import fields

MAX_LINES = 200_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_TRUTH = {"true": True, "false": False, "1": True, "0": False}
Place = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: where its cells stand in a tag's document. `kind` is str, int, float, bool or dict (JSON in the cell).

    An empty cell gives nothing; where an empty text means something, `blank` is how it is written.
    """

    name: str
    place: Place
    kind: type
    blank: str = ""


@cache
def columns() -> tuple[Column, ...]:
    """All columns in the order they are written."""
    own = [
        Column(name, (name,), str) for name in ("device", "name", "description", "data_type", "unit", "item", "term")
    ]
    own += [Column("deadband", ("deadband",), float), *_value_columns("", ())]
    for protocol in PROTOCOLS.values():
        base = ("bindings", protocol.name)
        own.append(Column(f"{protocol.name}.direction", (*base, "direction"), str))
        for field in fields(protocol.address):
            kind = dict if field.many else str if issubclass(field.kind, StrEnum) else field.kind
            # The whole payload's path is "" or $, as one likes.
            blank = "$" if kind is str and field.spec.check is compile_path else ""
            own.append(Column(f"{protocol.name}.{field.name}", (*base, "address", field.name), kind, blank))
        own += _value_columns(f"{protocol.name}.", base)
        own.append(Column(f"{protocol.name}.period_ms", (*base, "period_ms"), int))
        own.append(Column(f"{protocol.name}.scan", (*base, "scan"), str))
        own.append(Column(f"{protocol.name}.options", (*base, "options"), dict))
    return tuple(own)


def _value_columns(prefix: str, base: Place) -> list[Column]:
    return [
        Column(f"{prefix}gain", (*base, "scaling", "gain"), float),
        Column(f"{prefix}offset", (*base, "scaling", "offset"), float),
        Column(f"{prefix}low", (*base, "limits", "low"), float),
        Column(f"{prefix}high", (*base, "limits", "high"), float),
        Column(f"{prefix}action", (*base, "limits", "action"), str),
    ]


def write(tags: Iterable[Mapping[str, Any]], names: Mapping[str, Mapping[int, str]]) -> str:
    """Tags as a table, without the columns of protocols that none speaks; `names` has the names behind device_id,
    item_id and term_id.
    """
    wholes = []
    for tag in tags:
        whole = dict(tag, bindings={binding["protocol"]: binding for binding in tag["bindings"]})
        whole |= {what.removesuffix("_id"): known.get(tag[what]) for what, known in names.items()}
        wholes.append(whole)
    spoken = {protocol for whole in wholes for protocol in whole["bindings"]}
    shown = [column for column in columns() if column.place[0] != "bindings" or column.place[1] in spoken]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(column.name for column in shown)
    writer.writerows([_cell(column, _get(whole, column.place)) for column in shown] for whole in wholes)
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class Table:
    """A table that was read: tags' documents, and the line each came from. Lines with `faults` have no document."""

    documents: list[dict[str, Any]]
    lines: list[int]
    faults: list[Fault]

    @contextmanager
    def named_faults(self) -> Iterator[None]:
        """Give the store's faults (`<index>.<field>`) the lines and columns of the table, and put its own beside them."""
        try:
            yield
        except ConfigError as error:
            kind = Conflict if isinstance(error, Conflict) and not self.faults else ConfigError
            raise kind([*self.faults, *map(self._named, error.faults)]) from error
        if self.faults:
            raise ConfigError(self.faults)

    def _named(self, fault: Fault) -> Fault:
        index, _, rest = fault.field.partition(".")
        if not index.isdigit():
            return fault
        parts = rest.split(".")
        if parts[0] == "bindings" and len(parts) > 1:
            binding = self.documents[int(index)]["bindings"][int(parts[1])]
            parts = [binding["protocol"], *parts[2:]]
        column = ".".join(part for part in parts if part not in ("address", "scaling", "limits"))
        return Fault(_place(self.lines[int(index)], column), fault.message)


def read(raw: bytes) -> Table:
    """The tags of a table, and every cell that is wrong, by its line; BadRequest when it is none, ConfigError for a header."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise BadRequest(f"not UTF-8: {exc}") from exc
    if "\0" in text:
        raise BadRequest("a text holds U+0000")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    table, count = Table([], [], []), 0
    try:
        header = _header(next(lines, []), alone=len(text.splitlines()) == 1)
        for line, cells in _numbered(lines):
            if not any(cells):
                continue
            count += 1
            if count > MAX_LINES:
                raise BadRequest(f"more than {MAX_LINES} lines")
            document, faults = _document(header, cells, lines.dialect.delimiter == ";")
            if faults:
                table.faults.extend(Fault(_place(line, fault.field), fault.message) for fault in faults)
                continue
            table.documents.append(document)
            table.lines.append(line)
    except csv.Error as exc:
        raise BadRequest(f"not CSV: line {lines.line_num}: {exc}") from exc
    return table


def _numbered(lines: Any) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line each begins on: a cell may hold line breaks."""
    begin = lines.line_num + 1
    for cells in lines:
        yield begin, cells
        begin = lines.line_num + 1


def _place(line: int, column: str) -> str:
    return f"line {line}: {column}" if column else f"line {line}"


def _header(cells: list[str], alone: bool) -> list[Column]:
    known = {column.name: column for column in columns()}
    names = [cell.strip() for cell in cells]
    faults = [Fault("line 1", f"unknown column {name[:64]!r}") for name in names if name not in known]
    faults += [
        Fault("line 1", f"column {name!r} stands twice") for name in sorted({n for n in names if names.count(n) > 1})
    ]
    faults += [Fault("line 1", f"column {name!r} is missing") for name in ("device", "name") if name not in names]
    if faults and alone:
        faults.append(Fault("line 1", "is the only one: were the line breaks lost on the way? (curl: --data-binary)"))
    if faults:
        raise ConfigError(faults)
    return [known[name] for name in names]


def _document(header: list[Column], cells: list[str], comma: bool) -> tuple[dict[str, Any], list[Fault]]:
    if len(cells) > len(header):
        return {}, [Fault("", f"has {len(cells)} cells for {len(header)} columns")]
    document: dict[str, Any] = {}
    faults = []
    for column, cell in zip(header, cells):  # noqa: B905 - a short line's cells are empty
        if cell == "":
            continue
        try:
            _put(document, column.place, _value(column, cell, comma))
        except ValueError as exc:
            faults.append(Fault(column.name, str(exc)))
    bindings = document.get("bindings", {})
    for name, binding in bindings.items():
        binding["protocol"] = name
        binding.setdefault("direction", PROTOCOLS[name].directions[0].value)
        binding.setdefault("address", {})
    document["bindings"] = list(bindings.values())
    return document, faults


def _value(column: Column, cell: str, comma: bool) -> Any:
    """What a cell means. `comma`: a number may have a decimal comma, as where cells are parted by semicolons."""
    if cell == column.blank:
        return ""
    if column.kind is str:
        return cell[1:] if cell[0] == "'" and cell[1:2] in ("'", *_FORMULA) else cell
    text = cell.strip()
    if column.kind is bool:
        if text.lower() not in _TRUTH:
            raise ValueError(f"must be true or false, not {text[:60]!r}")
        return _TRUTH[text.lower()]
    if column.kind is dict:
        try:
            return parse_json(text.removeprefix("'").encode())
        except BadRequest as exc:
            raise ValueError(str(exc.description)) from exc
    number = "an integer" if column.kind is int else "a number"
    plain = text.replace(",", ".") if comma and column.kind is float and "." not in text else text
    try:
        # Python also takes 1_000 and the digits of every script.
        if len(plain) > 40 or not plain.isascii() or "_" in plain:
            raise ValueError
        return column.kind(plain)
    except ValueError:
        raise ValueError(f"must be {number}, not {text[:60]!r}") from None


def _cell(column: Column, value: Any) -> str:
    if value is None:
        return ""
    if column.kind is dict:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value) or column.blank
    return "'" + text if column.kind is str and text.startswith(("'", *_FORMULA)) else text


def _get(document: Mapping[str, Any], place: Place) -> Any:
    found: Any = document
    for name in place:
        if found is None:
            return None
        found = found.get(name)
    return found


def _put(document: dict[str, Any], place: Place, value: Any) -> None:
    for name in place[:-1]:
        document = document.setdefault(name, {})
    document[place[-1]] = value


def _delimiter(text: str) -> str:
    head = text.split("\n", 1)[0]
    return ";" if head.count(";") > head.count(",") else ","

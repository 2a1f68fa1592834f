"""Lists: one page of a table, filtered and sorted by its columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Boolean, Column, ColumnElement, Connection, Integer, String, Table, func, select

from scada.errors import ConfigError, Fault
from storage.revisions import MAX_ID
from storage.shapes import Row

MAX_PAGE_SIZE = 10_000
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def page_of(
    connection: Connection,
    shown: Sequence[Column[Any]],
    page: int,
    page_size: int,
    sort: Sequence[str],
    filters: Mapping[str, Any] | None = None,
    extra: Mapping[str, ColumnElement[Any]] | None = None,
    total: int | None = None,
) -> tuple[list[Row], int]:
    """The rows of a page of the columns' table (pages count from 1) and how many there are in all.

    `filters` compares columns with values; text may hold * and ?. `extra` is what is shown but no column of the table, or
    another value than the column's. `total`: their number, where the caller has a quicker way to it.
    Raises ConfigError for a field that cannot be filtered or sorted by, and for a page that cannot be.
    """
    table = shown[0].table
    faults: list[Fault] = []
    if page < 1:
        faults.append(Fault("page", "counts from 1"))
    if not 1 <= page_size <= MAX_PAGE_SIZE:
        faults.append(Fault("page_size", f"must be 1 to {MAX_PAGE_SIZE}"))
    usable: dict[str, ColumnElement[Any]] = {
        column.name: column for column in table.columns if isinstance(column.type, String | Integer | Boolean)
    }
    usable |= extra or {}
    conditions = _conditions(connection, usable, filters or {}, faults)
    order = _order(usable, table, sort, faults)
    if faults:
        raise ConfigError(faults)
    if total is None:
        total = connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()
    offset = (page - 1) * page_size
    if offset >= total:
        return [], total
    # The ids first: an index finds them without reading the rows that come before the page.
    ids = select(table.c.id).where(*conditions).order_by(*order).limit(page_size).offset(offset)
    rows = connection.execute(select(*shown).where(table.c.id.in_(ids.subquery().select())).order_by(*order)).mappings()
    return [dict(row) for row in rows], total


def _conditions(
    connection: Connection,
    usable: Mapping[str, ColumnElement[Any]],
    filters: Mapping[str, Any],
    faults: list[Fault],
) -> list[ColumnElement[bool]]:
    result: list[ColumnElement[bool]] = []
    for name, value in filters.items():
        column = usable.get(name)
        if column is None:
            faults.append(Fault(name, f"cannot be filtered by; possible are {', '.join(usable)}"))
            continue
        if isinstance(column.type, String):
            result.append(matches(connection, column, str(value)))
            continue
        try:
            result.append(column.is_(None) if value in (None, "null") else column == _typed(column, value))
        except ValueError:
            kind = "true or false" if isinstance(column.type, Boolean) else "an integer"
            faults.append(Fault(name, f"must be {kind}"))
    return result


def matches(connection: Connection, column: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
    """Whether a text column matches a pattern of * (any text) and ? (one character); case counts."""
    pattern = pattern.encode("utf-8", "replace").decode().replace("\0", "")
    if "*" not in pattern and "?" not in pattern:
        return column == pattern
    if connection.dialect.name == "sqlite":
        # GLOB and not LIKE: SQLite's LIKE ignores case and cannot use an index.
        return column.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return column.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")


def _typed(column: ColumnElement[Any], value: object) -> int | bool:
    if isinstance(column.type, Boolean):
        if isinstance(value, bool):
            return value
        found = _TRUTH.get(str(value).lower())
        if found is None:
            raise ValueError
        return found
    text = str(value)[:25]
    if not text.isascii() or "_" in text:
        # Python would take 1_000 and the digits of every script.
        raise ValueError
    number = int(text)
    # No row has such a number, and a column of 32 bits would refuse to be compared with it.
    return number if abs(number) <= MAX_ID else -1


def _order(
    usable: Mapping[str, ColumnElement[Any]], table: Table, sort: Sequence[str], faults: list[Fault]
) -> list[ColumnElement[Any]]:
    result: list[ColumnElement[Any]] = []
    descending = False
    for each in sort:
        descending = each.startswith("-")
        column = usable.get(each[1:] if each[:1] in ("-", "+") else each)
        if column is None:
            faults.append(Fault("sort", f"cannot be {each!r}; possible are {', '.join(usable)}"))
            continue
        result.append(column.desc() if descending else column.asc())
    # Equal rows need an order too, or a row could be on two pages; the last direction, so that one index serves both.
    result.append(table.c.id.desc() if descending else table.c.id.asc())
    return result

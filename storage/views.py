"""Reading documents out of the database, a page or one at a time."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, select

from storage import shapes
from storage.revisions import found, valid_id
from storage.shapes import (
    BINDING,
    BINDING_FIELDS,
    DEVICE,
    INHERITED,
    ITEM,
    NETWORK,
    TAG,
    TAG_FIELDS,
    TERM,
    Row,
    columns,
)
from storage.tags import chunks

DEVICE_COLUMNS = columns(DEVICE, "name", "description", "enabled", "revision")
NETWORK_COLUMNS = columns(NETWORK, "device_id", "protocol", "settings")
TERM_COLUMNS = columns(TERM, "device_id", "name", "description", "settings")
ITEM_COLUMNS = columns(ITEM, "name", "description", "data_type", "unit", "scaling", "limits", "deadband", "revision")
TAG_COLUMNS = columns(TAG, *TAG_FIELDS)
BINDING_COLUMNS = columns(BINDING, "tag_id", *BINDING_FIELDS)


def rows(connection: Connection, shown: Sequence[Column[Any]], *where: ColumnElement[bool]) -> list[Row]:
    """The rows of one table that meet the conditions, by id."""
    query = select(*shown).where(*where).order_by(shown[0])
    return [dict(row) for row in connection.execute(query).mappings()]


def one(connection: Connection, shown: Sequence[Column[Any]], identity: int) -> Row:
    """The row of one table with this id; NotFound when there is none."""
    table = shown[0].table
    query = select(*shown).where(table.c.id == valid_id(identity, table.name))
    return dict(found(connection.execute(query).mappings().first(), table.name, identity))


def device_revision(connection: Connection, device_id: int) -> int:
    """The revision of a device; NotFound when there is none."""
    query = select(DEVICE.c.revision).where(DEVICE.c.id == valid_id(device_id, "device"))
    revision: int = found(connection.execute(query).scalar(), "device", device_id)
    return revision


def device_documents(connection: Connection, devices: Iterable[Row], *, tags: bool = True) -> list[Row]:
    """Devices with networks and terms and, when wanted, tags."""
    result = {row["id"]: {**row, "network": {}, "terms": []} for row in devices}
    for ids in chunks(result):
        for row in rows(connection, NETWORK_COLUMNS, NETWORK.c.device_id.in_(ids)):
            document = shapes.network_document(row["device_id"], row["protocol"], row["settings"])
            result[row["device_id"]]["network"][row["protocol"]] = document
        for row in rows(connection, TERM_COLUMNS, TERM.c.device_id.in_(ids)):
            result[row["device_id"]]["terms"].append(row)
        if tags:
            for row in result.values():
                row["tags"] = []
            for document in tag_documents(connection, rows(connection, TAG_COLUMNS, TAG.c.device_id.in_(ids))):
                result[document["device_id"]]["tags"].append(document)
    return list(result.values())


def tag_documents(connection: Connection, tags: Sequence[Row]) -> list[Row]:
    """Tags with their bindings."""
    stored = []
    for ids in chunks(row["id"] for row in tags):
        stored += rows(connection, BINDING_COLUMNS, BINDING.c.tag_id.in_(ids))
    terms = term_settings(connection, {row["term_id"] for row in tags})
    items = items_by_id(connection, {row["item_id"] for row in tags})
    term_of = {row["id"]: terms.get(row["term_id"]) for row in tags}
    bindings: dict[int, list[Row]] = defaultdict(list)
    for row in stored:
        bindings[row["tag_id"]].append(shapes.binding_document(row, term_of[row["tag_id"]]))
    return [shapes.tag_document(row, items.get(row["item_id"]), bindings.get(row["id"], [])) for row in tags]


def binding_documents(connection: Connection, bindings: Sequence[Row]) -> list[Row]:
    """Bindings, with the unit ids that they take from their tags' terms."""
    term_of: dict[int, int | None] = {}
    for ids in chunks({row["tag_id"] for row in bindings}):
        term_of.update(connection.execute(select(TAG.c.id, TAG.c.term_id).where(TAG.c.id.in_(ids))).all())
    terms = term_settings(connection, set(term_of.values()))
    return [shapes.binding_document(row, terms.get(term_of[row["tag_id"]])) for row in bindings]


def term_settings(connection: Connection, term_ids: set[int | None]) -> dict[int | None, Row]:
    """The settings of the terms with these ids."""
    result: dict[int | None, Row] = {}
    for ids in chunks(each for each in term_ids if each is not None):
        result.update(connection.execute(select(TERM.c.id, TERM.c.settings).where(TERM.c.id.in_(ids))).all())
    return result


def items_by_id(connection: Connection, item_ids: set[int | None]) -> dict[int | None, Row]:
    """What tags have from the items with these ids."""
    result: dict[int | None, Row] = {}
    for ids in chunks(each for each in item_ids if each is not None):
        result.update((row["id"], row) for row in rows(connection, columns(ITEM, *INHERITED), ITEM.c.id.in_(ids)))
    return result

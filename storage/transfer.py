"""The whole configuration as one document, out and in. Names stand for ids, defaults are left out."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Engine, insert, select, update

from scada.errors import ConfigError, Conflict, Fault
from scada.schema import join
from storage.device_store import insert_device, update_device
from storage.documents import Document, Reader
from storage.drafts import DeviceDraft
from storage.engine import reading
from storage.item_store import check_constants
from storage.revisions import Change, changing, expect
from storage.shapes import BINDING_FIELDS, DEVICE, ITEM, Row, default_topic
from storage.tags import Mode, delete_rows
from storage.views import (
    BINDING_COLUMNS,
    DEVICE_COLUMNS,
    ITEM_COLUMNS,
    NETWORK_COLUMNS,
    TAG_COLUMNS,
    TERM_COLUMNS,
    rows,
)

FORMAT = "tagwire"
VERSION = 1
MODES = {"merge": Mode.MERGE, "replace": Mode.REPLACE}


class TransferStore:
    """What a ConfigStore does with the whole configuration."""

    engine: Engine

    def export_config(self) -> Row:
        """The configuration without ids: {"format", "version", "items", "devices"}; import_config reads it."""
        with reading(self.engine) as connection:
            items = {row["id"]: row for row in rows(connection, ITEM_COLUMNS)}
            terms = {row["id"]: row for row in rows(connection, TERM_COLUMNS)}
            devices = {row["id"]: _device(row) for row in rows(connection, DEVICE_COLUMNS)}
            for row in rows(connection, NETWORK_COLUMNS):
                devices[row["device_id"]]["network"][row["protocol"]] = _network(row)
            for row in terms.values():
                devices[row["device_id"]]["terms"].append(_short(row, ("name", "description", "settings")))
            tags = {}
            for row in rows(connection, TAG_COLUMNS):
                tag = tags[row["id"]] = _tag(row, items, terms)
                devices[row["device_id"]]["tags"].append(tag)
            for row in rows(connection, BINDING_COLUMNS):
                tags[row["tag_id"]]["bindings"].append(_short(row, BINDING_FIELDS))
        names = [column.name for column in ITEM_COLUMNS if column.name not in ("id", "revision")]
        return {
            "format": FORMAT,
            "version": VERSION,
            "items": [_short(row, names) for row in items.values()],
            "devices": list(devices.values()),
        }

    def import_config(
        self,
        document: Document,
        mode: str = "merge",
        *,
        dry_run: bool = False,
        expected_revision: int | None = None,
        who: str = "",
    ) -> Row:
        """Store a document of export_config in one transaction: objects are found by name, others added.

        "merge" leaves what the document does not name; "replace" deletes it. Returns how many items, devices and tags
        the document had. `dry_run`: everything is checked, nothing stored.
        """
        if mode not in MODES:
            raise ConfigError([Fault("mode", f"must be one of {', '.join(MODES)}, not {mode!r:.60}")])
        items, devices = _read(document)
        with changing(self.engine, who, dry_run=dry_run) as change:
            expect(change.revision - 1, expected_revision)
            before = change.connection.execute(select(DEVICE.c.name, DEVICE.c.id)).all()
            stored = dict(before)
            if MODES[mode] is Mode.REPLACE:
                named = {draft.row["name"] for draft in devices}
                delete_rows(change.connection, DEVICE, [each for name, each in before if name not in named])
            old_items, changed = _save_items(change, items)
            for draft in devices:
                _save_device(change, draft, stored.get(draft.row["name"]), MODES[mode])
            for item_id, data_type in changed.items():  # now that their tags stand as the document has them
                check_constants(change, item_id, data_type)
            if MODES[mode] is Mode.REPLACE:
                wanted = {row["name"] for row in items}
                delete_rows(change.connection, ITEM, [each for name, each in old_items.items() if name not in wanted])
            tags = sum(len(draft.tags or ()) for draft in devices)
            result = {"items": len(items), "devices": len(devices), "tags": tags}
            change.note(f"configuration ({mode})", None, result)
        return result


def _read(document: Document) -> tuple[list[Row], list[DeviceDraft]]:
    reader = Reader()
    if document.get("format", FORMAT) != FORMAT:
        reader.faults.append(Fault("format", f"must be {FORMAT!r}"))
    version = document.get("version", VERSION)
    if version != VERSION or isinstance(version, bool):
        reader.faults.append(Fault("version", f"must be {VERSION}: a file of a newer program is not understood"))
    known = ("format", "version", "items", "devices")
    reader.faults.extend(Fault(str(name)[:60], "unknown field") for name in document if name not in known)
    items = [reader.item(each, path) for path, each in _elements(document, "items", reader)]
    devices = [reader.device(each, path) for path, each in _elements(document, "devices", reader)]
    for what, names in (
        ("items", [row["name"] for row in items if row is not None]),
        ("devices", [draft.row["name"] for draft in devices if draft is not None]),
    ):
        seen: set[str] = set()
        for index, name in enumerate(names):
            if name in seen:
                reader.faults.append(Fault(f"{what}.{index}.name", f"stands twice in the file: {name!r}"))
            seen.add(name)
    reader.finish()
    return [row for row in items if row is not None], [draft for draft in devices if draft is not None]


def _elements(document: Document, name: str, reader: Reader) -> Iterable[tuple[str, Any]]:
    found = document.get(name, [])
    if not isinstance(found, list | tuple):
        reader.faults.append(Fault(name, "must be an array"))
        return []
    return [(join(name, str(index)), each) for index, each in enumerate(found)]


def _save_items(change: Change, items: list[Row]) -> tuple[dict[str, int], dict[int, str]]:
    """Store items by name; returns the ids of those that were stored before, and the data types of those that changed."""
    connection = change.connection
    stored = {row["name"]: row for row in rows(connection, ITEM_COLUMNS)}
    changed: dict[int, str] = {}
    new = [{**row, "revision": change.revision} for row in items if row["name"] not in stored]
    if new:
        connection.execute(insert(ITEM), new)
    for row in items:
        old = stored.get(row["name"])
        if old is not None and any(old[name] != value for name, value in row.items()):
            connection.execute(update(ITEM).where(ITEM.c.id == old["id"]).values(**row))
            change.touch_item(old["id"])
            changed[old["id"]] = row["data_type"]
    return {name: row["id"] for name, row in stored.items()}, changed


def _save_device(change: Change, draft: DeviceDraft, device_id: int | None, mode: Mode) -> None:
    try:
        if device_id is None:
            insert_device(change, draft)
            return
        if mode is Mode.REPLACE:
            draft.network, draft.terms, draft.tags = draft.network or {}, draft.terms or [], draft.tags or []
        update_device(change, device_id, draft, mode)
        change.touch(device_id)
    except Conflict as error:
        faults = [fault if fault.field.startswith("devices.") else _below(draft, fault) for fault in error.faults]
        raise Conflict(faults) from None


def _below(draft: DeviceDraft, fault: Fault) -> Fault:
    return Fault(join(draft.path, fault.field), fault.message)


def _device(row: Row) -> Row:
    result = _short(row, ("name", "description"))
    result |= {"enabled": row["enabled"], "network": {}, "terms": [], "tags": []}
    return result


def _network(row: Row) -> Row:
    settings: Row = row["settings"]
    if row["protocol"] == "mqtt" and settings.get("topic") is None:
        # The topic that is in force holds the device's id, which may be another one after the import.
        return {"topic": default_topic(row["device_id"]), **settings}
    return settings


def _tag(row: Row, items: dict[int, Row], terms: dict[int, Row]) -> Row:
    result = _short(row, ("name", "description", "data_type", "unit", "scaling", "limits", "deadband"))
    if row["item_id"] is not None:
        result["item"] = items[row["item_id"]]["name"]
        if row["unit"] == "":  # not its item's
            result["unit"] = ""
    if row["term_id"] is not None:
        result["term"] = terms[row["term_id"]]["name"]
    result["bindings"] = []
    return result


def _short(row: Row, names: Iterable[str]) -> Row:
    return {name: row[name] for name in names if row[name] is not None and row[name] != ""}

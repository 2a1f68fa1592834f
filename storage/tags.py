"""Writing tags and their bindings, one or many thousands: checked against what is stored, in bulk statements."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, insert, select, update

from scada.errors import ConfigError, Conflict, Fault
from scada.schema import join
from storage.claims import PROTOCOL
from storage.contradictions import misplaced, one_source, unsuited
from storage.drafts import BindingDraft, TagDraft
from storage.feedback import unread
from storage.revisions import Change
from storage.shapes import (
    BINDING,
    BINDING_FIELDS,
    INHERITED,
    ITEM,
    NETWORK,
    TAG,
    TAG_FIELDS,
    TERM,
    Row,
    columns,
    unit_id,
)

# SQLite before 3.32 takes 999 parameters in a statement, PostgreSQL 65,535; an IN list longer than this is cut in pieces.
CHUNK = 900


class Mode(Enum):
    """What is done with tags that exist already."""

    CREATE = "create"  # a tag of the same name is a conflict
    MERGE = "merge"  # it is changed; others stay
    REPLACE = "replace"  # it is changed; others of the same devices are deleted


def items(connection: Connection) -> dict[int | str, Row]:
    """What tags have from items, by the item's id and by its name."""
    found: dict[int | str, Row] = {}
    for item in connection.execute(select(*columns(ITEM, "name", *INHERITED))).mappings():
        found[item["id"]] = found[item["name"]] = dict(item)
    return found


class Surroundings:
    """What the tags of some devices refer to."""

    def __init__(self, connection: Connection, device_ids: set[int], with_items: bool) -> None:
        self.networks: dict[int, dict[str, Row]] = defaultdict(dict)
        self.terms: dict[tuple[int, int | str], tuple[int, Row]] = {}
        self.items = items(connection) if with_items else {}
        for ids in chunks(device_ids):
            networks = select(NETWORK.c.device_id, NETWORK.c.protocol, NETWORK.c.settings)
            for device_id, protocol, settings in connection.execute(networks.where(NETWORK.c.device_id.in_(ids))):
                self.networks[device_id][protocol] = settings
            terms = select(TERM.c.id, TERM.c.device_id, TERM.c.name, TERM.c.settings)
            for term_id, device_id, name, settings in connection.execute(terms.where(TERM.c.device_id.in_(ids))):
                self.terms[device_id, term_id] = self.terms[device_id, name] = term_id, settings

    def resolve(self, device_id: int, draft: TagDraft, before: Row | None) -> Iterable[Fault]:
        """Put the ids of device, item and term into the draft's row; yield what does not fit.

        `before`: the stored row, if the draft may be what was shown of it.
        """
        row = draft.row
        row["device_id"], row["item_id"], row["term_id"] = device_id, None, None
        data_type, settings = row["data_type"], None
        if draft.item is not None:
            item = self.items.get(draft.item)
            if item is None:
                yield Fault(join(draft.path, _key("item", draft.item)), f"there is no item {draft.item!r}")
            else:
                row["item_id"] = item["id"]
                # What the item says too is stored as "inherited", so that the tag follows its item; so is what came back as the
                # tag had it from another item.
                other = self.items[before["item_id"]] if before and before["item_id"] else item
                row.update(
                    (name, None)
                    for name in INHERITED
                    if row[name] == item[name] or (before and before[name] is None and row[name] == other[name])
                )
                data_type = row["data_type"] or item["data_type"]
        if draft.term is not None:
            term = self.terms.get((device_id, draft.term))
            if term is None:
                message = f"the device has no term {draft.term!r}"
                yield Fault(join(draft.path, _key("term", draft.term)), message)
            else:
                row["term_id"], settings = term
        for binding in draft.bindings or ():
            yield from self._check(device_id, binding, data_type or "float")
            _inherit_unit(binding, settings)

    def _check(self, device_id: int, binding: BindingDraft, data_type: str) -> Iterable[Fault]:
        protocol = binding.row["protocol"]
        network = self.networks[device_id].get(protocol)
        if network is None:
            yield Fault(join(binding.path, "protocol"), f"the device has no network configuration for {protocol}")
        else:
            for fault in misplaced(binding.row, network):
                yield Fault(join(binding.path, fault.field), fault.message)
        yield from unsuited(binding, data_type)


def save_tags(
    change: Change,
    tags: Sequence[tuple[int, TagDraft]],
    mode: Mode,
    found: Iterable[Fault] = (),
    *,
    sent_back: bool = False,
) -> list[int]:
    """Store (device id, tag) pairs; the tags' ids in the same order. Devices that are not touched by it keep their revision.

    `sent_back`: tags that exist may be sent as they were read, as always in REPLACE mode.

    Raises ConfigError for references that lead nowhere, Conflict for names that are taken; each with the draft's path.
    `found` are faults of other tags: with any of them nothing is stored, and one ConfigError has them all.
    """
    connection = change.connection
    device_ids = {device_id for device_id, _ in tags}
    stored = _Stored(connection, tags, mode)
    around = Surroundings(connection, device_ids, any(draft.item is not None for _, draft in tags))
    faults = list(found)
    ids: list[int | None] = []
    for device_id, draft in tags:
        tag_id = stored.find(device_id, draft)
        ids.append(tag_id)
        if draft.bindings is None:
            draft.bindings = [] if tag_id is None else stored.binding_drafts(tag_id)
        faults.extend(one_source(draft.bindings))
        before = stored.tags.get(tag_id) if tag_id is not None and (sent_back or mode is Mode.REPLACE) else None
        faults.extend(around.resolve(device_id, draft, before))
    faults.extend(unread(connection, tags, ids, others_stay=mode is not Mode.REPLACE))
    taken = _taken(tags, ids, mode)
    if faults:
        raise ConfigError([*faults, *taken])
    if taken:
        raise Conflict(taken)
    new = [index for index, tag_id in enumerate(ids) if tag_id is None]
    if new:
        rows = [tags[index][1].row for index in new]
        statement = insert(TAG).returning(TAG.c.id, sort_by_parameter_order=True)
        for index, tag_id in zip(new, connection.execute(statement, rows).scalars(), strict=True):
            ids[index] = tag_id
    known = [tag_id for tag_id in ids if tag_id is not None]
    _update(
        connection,
        TAG,
        [(tag_id, draft.row, stored.tags.get(tag_id)) for tag_id, (_, draft) in zip(known, tags, strict=True)],
    )
    if mode is Mode.REPLACE:
        delete_rows(connection, TAG, stored.tags.keys() - set(known))
    _save_bindings(
        connection, [(tag_id, draft.bindings or []) for tag_id, (_, draft) in zip(known, tags, strict=True)], stored
    )
    for tag_id, (_, draft) in zip(known, tags, strict=True):
        _list_place(change, tag_id, draft, stored)
    return known


class _Stored:
    """The tags of the devices concerned as they stand, with their bindings; in CREATE mode only who has a name already."""

    def __init__(self, connection: Connection, tags: Sequence[tuple[int, TagDraft]], mode: Mode) -> None:
        self.tags: dict[int, Row] = {}
        self.names: dict[tuple[int, str], int] = {}
        self.bindings: dict[int, list[Row]] = defaultdict(list)
        self._by_id = mode is not Mode.CREATE
        device_ids = {device_id for device_id, _ in tags}
        query = (
            select(*columns(TAG, *TAG_FIELDS))
            if mode is not Mode.CREATE
            else select(*columns(TAG, "device_id", "name"))
        )
        few = mode is not Mode.REPLACE and len(tags) <= CHUNK
        for ids in chunks(device_ids):
            found = query.where(TAG.c.device_id.in_(ids))
            if few:
                wanted = [draft.id for _, draft in tags if draft.id is not None]
                found = found.where(TAG.c.name.in_({draft.row["name"] for _, draft in tags}) | TAG.c.id.in_(wanted))
            for row in connection.execute(found).mappings():
                self.names[row["device_id"], row["name"]] = row["id"]
                self.tags[row["id"]] = dict(row)
        if mode is Mode.CREATE:
            return
        for ids in chunks(self.tags):
            bindings = select(*columns(BINDING, "tag_id", *BINDING_FIELDS)).where(BINDING.c.tag_id.in_(ids))
            for row in connection.execute(bindings.order_by(BINDING.c.id)).mappings():
                self.bindings[row["tag_id"]].append(dict(row))

    def find(self, device_id: int, draft: TagDraft) -> int | None:
        """The stored tag that a draft means: by its id if that is of the same device, else by its name."""
        if self._by_id and draft.id in self.tags and self.tags[draft.id]["device_id"] == device_id:
            return draft.id
        return self.names.get((device_id, draft.row["name"]))

    def binding_drafts(self, tag_id: int) -> list[BindingDraft]:
        return [stored_binding(row) for row in self.bindings[tag_id]]


def stored_binding(row: Row) -> BindingDraft:
    """A stored binding as a draft, to be stored again beside others."""
    return BindingDraft({name: row[name] for name in BINDING_FIELDS}, "", row["id"])


def _taken(tags: Sequence[tuple[int, TagDraft]], ids: list[int | None], mode: Mode) -> list[Fault]:
    faults = []
    seen: set[tuple[int, str]] = set()
    for (device_id, draft), tag_id in zip(tags, ids, strict=True):
        key = device_id, draft.row["name"]
        if key in seen:
            faults.append(Fault(join(draft.path, "name"), f"the device gets a tag {draft.row['name']!r} twice"))
        elif tag_id is not None and mode is Mode.CREATE:
            faults.append(Fault(join(draft.path, "name"), f"the device already has a tag {draft.row['name']!r}"))
        seen.add(key)
    return faults


def _save_bindings(connection: Connection, tags: list[tuple[int, list[BindingDraft]]], stored: _Stored) -> None:
    new: list[Row] = []
    changed: list[tuple[int, Row, Row | None]] = []
    kept: set[int] = set()
    for tag_id, drafts in tags:
        by_id = {row["id"]: row for row in stored.bindings.get(tag_id, ())}
        by_protocol = {row["protocol"]: row for row in by_id.values()}
        for draft in drafts:
            old = by_id.get(draft.id) if draft.id is not None else None
            old = by_protocol.get(draft.row["protocol"]) if old is None or old["id"] in kept else old
            if old is None or old["id"] in kept:
                new.append({"tag_id": tag_id, **draft.row})
            else:
                kept.add(old["id"])
                changed.append((old["id"], draft.row, old))
    concerned = {tag_id for tag_id, _ in tags}
    gone = {row["id"] for tag_id, rows in stored.bindings.items() if tag_id in concerned for row in rows} - kept
    delete_rows(connection, BINDING, gone)
    _update(connection, BINDING, changed)
    if new:
        connection.execute(insert(BINDING), new)


def _list_place(change: Change, tag_id: int, draft: TagDraft, stored: _Stored) -> None:
    """Note a tag that has got registers of our own server, or others."""
    for binding in draft.bindings or ():
        if binding.row["protocol"] != PROTOCOL:
            continue
        old = next((row for row in stored.bindings.get(tag_id, ()) if row["protocol"] == PROTOCOL), None)
        if old is None or any(old[name] != binding.row[name] for name in ("address", "direction")):
            change.placed.bindings[tag_id] = binding.path
        elif stored.tags[tag_id]["term_id"] != draft.row["term_id"]:
            change.placed.tags[tag_id] = join(draft.path, "term")


def _update(connection: Connection, table: Table, rows: Iterable[tuple[int, Row, Row | None]]) -> None:
    """Update the rows that differ from what is stored."""
    different = [
        {"row_id": row_id, **row}
        for row_id, row, old in rows
        if old is not None and any(old.get(name) != value for name, value in row.items())
    ]
    if different:
        names = [name for name in different[0] if name != "row_id"]
        values: dict[str, Any] = {name: bindparam(name) for name in names}
        connection.execute(update(table).where(table.c.id == bindparam("row_id")).values(**values), different)


def delete_rows(connection: Connection, table: Table, ids: Iterable[int]) -> None:
    """Delete rows by id, many at a time."""
    for each in chunks(ids):
        connection.execute(delete(table).where(table.c.id.in_(each)))


def chunks(ids: Iterable[int]) -> Iterable[list[int]]:
    """The ids in order, in lists short enough for one statement."""
    ordered = sorted(ids)
    return (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))


def _inherit_unit(binding: BindingDraft, settings: Row | None) -> None:
    """A unit that is the term's is stored as "inherited", so that the binding follows its term."""
    protocol, address = binding.row["protocol"], binding.row["address"]
    if settings and settings.get(protocol) and address.get("unit_id") == unit_id(protocol, settings):
        binding.row["address"] = {name: value for name, value in address.items() if name != "unit_id"}


def _key(name: str, reference: int | str) -> str:
    return f"{name}_id" if isinstance(reference, int) else name

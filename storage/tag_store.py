"""Tags in the configuration store."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, select

from scada.errors import Fault
from scada.schema import join
from scada.values import DataType
from storage.documents import Document, Reader, checked
from storage.drafts import TagDraft
from storage.engine import reading
from storage.listing import page_of
from storage.merge import merge_patch
from storage.revisions import Change, changing, expect, stays
from storage.shapes import DEVICE, INHERITED, ITEM, TAG, Row, inherited
from storage.tags import Mode, items, save_tags
from storage.views import TAG_COLUMNS, device_revision, one, tag_documents


class TagStore:
    """What a ConfigStore does with tags; their revision is their device's."""

    engine: Engine

    def list_tags(
        self,
        page: int = 1,
        page_size: int = 100,
        sort: Sequence[str] = (),
        filters: Mapping[str, Any] | None = None,
    ) -> tuple[list[Row], int]:
        """One page of tags with their bindings, and their number. `device` is the device's name."""
        with reading(self.engine) as connection:
            found, total = page_of(connection, TAG_COLUMNS, page, page_size, sort, filters, _shown())
            return tag_documents(connection, found), total

    def get_tag(self, tag_id: int) -> Row:
        """One tag with its bindings."""
        with reading(self.engine) as connection:
            return tag_document(connection, tag_id)

    def create_tag(self, device_id: int, document: Document, *, who: str = "") -> Row:
        """Store a new tag of a device; bindings may be nested in it."""
        draft = checked(Reader.tag, document)
        with changing(self.engine, who) as change:
            device_revision(change.connection, device_id)
            (tag_id,) = save_tags(change, [(device_id, draft)], Mode.CREATE)
            result = tag_document(change.connection, tag_id)
            change.touch(device_id)
            change.note(f"tag {result['name']} of device {device_id}", None, result)
        return result

    def create_tags_bulk(
        self,
        documents: Sequence[Document],
        *,
        device_id: int | None = None,
        path: str = "tags",
        merge: bool = False,
        dry_run: bool = False,
        who: str = "",
    ) -> list[int]:
        """Store many new tags in one transaction, or none; their ids. Without `device_id` each names its device.

        A document names its device by `device_id` or by `device`, the name. Faults carry `<path>.<index>.<field>`.
        `merge`: tags that exist are stored anew. `dry_run`: everything is checked, nothing stored.
        """
        reader = Reader()
        drafts = _read_many(reader, documents, path, device_id)
        with changing(self.engine, who, dry_run=dry_run) as change:
            owned = _owned(change.connection, drafts, device_id, reader.faults)
            # Also with faults: what else is wrong is found by looking at what is stored.
            ids = save_tags(change, owned, Mode.MERGE if merge else Mode.CREATE, reader.faults)
            change.touch(*(owner for owner, _ in owned))
            if ids:
                names = [draft.row["name"] for draft in drafts[:100]]
                change.note(f"{len(ids)} tags", None, {"tags": len(ids), "first": names})
        return ids

    def replace_tag(
        self, tag_id: int, document: Document, *, expected_revision: int | None = None, who: str = ""
    ) -> Row:
        """Store a tag anew; what is left out becomes its default, but bindings stay unless named."""
        with changing(self.engine, who) as change:
            before = seen_tag(change.connection, tag_id, expected_revision)
            _stays(change.connection, document, before["device_id"])
            return save_tag(change, before, checked(Reader.tag, document), sent_back=True)

    def patch_tag(self, tag_id: int, document: Document, *, expected_revision: int | None = None, who: str = "") -> Row:
        """Change what the document names (RFC 7396); an array of bindings replaces the stored ones."""
        with changing(self.engine, who) as change:
            before = seen_tag(change.connection, tag_id, expected_revision)
            _stays(change.connection, document, before["device_id"])
            stored = one(change.connection, TAG_COLUMNS, tag_id)
            # What has parts is patched as it is shown, of another item as it will be; the rest of what is inherited stays so.
            named = document if isinstance(document, Mapping) else {}
            item = _named_item(change.connection, named)
            shown = before if item is None else inherited(stored, item)
            parts = {name: shown[name] for name in INHERITED if isinstance(named.get(name), Mapping)}
            merged = merge_patch(stored | parts, document)
            for name in ("item", "term"):
                # The reference by name says which; the stored id would be the old one.
                if name in document and f"{name}_id" not in document:
                    merged.pop(f"{name}_id", None)
            if "bindings" in document and document["bindings"] is None:
                merged["bindings"] = []
            return save_tag(change, before, checked(Reader.tag, merged))

    def delete_tag(self, tag_id: int, *, expected_revision: int | None = None, who: str = "") -> None:
        """Delete a tag with its bindings."""
        with changing(self.engine, who) as change:
            before = seen_tag(change.connection, tag_id, expected_revision)
            change.connection.execute(delete(TAG).where(TAG.c.id == tag_id))
            change.touch(before["device_id"])
            change.note(f"tag {before['name']} of device {before['device_id']}", before, None)


def _named_item(connection: Connection, patch: Mapping[str, Any]) -> Row | None:
    """The item that a patch gives a tag; None when it names none, or one that is not there, which is found later."""
    reference = patch.get("item_id") or patch.get("item")
    return items(connection).get(reference) if isinstance(reference, int | str) else None


def _shown() -> dict[str, ColumnElement[Any]]:
    """What lists of tags show that is not, or not only, in the table of tags."""
    data_type, unit = (
        select(column).where(ITEM.c.id == TAG.c.item_id).scalar_subquery() for column in (ITEM.c.data_type, ITEM.c.unit)
    )
    return {
        "device": select(DEVICE.c.name).where(DEVICE.c.id == TAG.c.device_id).scalar_subquery(),
        "data_type": func.coalesce(TAG.c.data_type, data_type, DataType.FLOAT.value),
        "unit": func.coalesce(TAG.c.unit, unit),
    }


def tag_document(connection: Connection, tag_id: int) -> Row:
    """A stored tag with its bindings; NotFound when there is none."""
    return tag_documents(connection, [one(connection, TAG_COLUMNS, tag_id)])[0]


def seen_tag(connection: Connection, tag_id: int, expected_revision: int | None) -> Row:
    """The stored tag that the caller means; Conflict when its device was changed since the caller looked."""
    before = tag_document(connection, tag_id)
    expect(device_revision(connection, before["device_id"]), expected_revision)
    return before


def save_tag(change: Change, before: Row, draft: TagDraft, *, sent_back: bool = False) -> Row:
    """Store a draft in the place of the tag `before`; the tag as it is then. `sent_back`: see `save_tags`."""
    draft.id = before["id"]
    save_tags(change, [(before["device_id"], draft)], Mode.MERGE, sent_back=sent_back)
    after = tag_document(change.connection, before["id"])
    if before != after:
        change.touch(before["device_id"])
        change.note(f"tag {after['name']} of device {after['device_id']}", before, after)
    return after


def _stays(connection: Connection, document: Document, device_id: int) -> None:
    stays(document, "device_id", device_id)
    if isinstance(document, Mapping) and "device" in document:
        stays(document, "device", one(connection, [DEVICE.c.name], device_id)["name"])


def _read_many(reader: Reader, documents: Sequence[Document], path: str, device_id: int | None) -> list[TagDraft]:
    """The drafts of the documents that have no fault; the faults of the others are the reader's."""
    drafts = []
    for index, document in enumerate(documents):
        place = join(path, str(index))
        draft = reader.tag(document, place)
        if draft is None:
            continue
        owner = document.get("device_id")
        if device_id is None and owner is not None and document.get("device") is not None:
            reader.faults.append(Fault(join(place, "device"), "give either device or device_id"))
            continue
        draft.device = document.get("device") if owner is None else owner
        if device_id is None and (isinstance(draft.device, bool) or not isinstance(draft.device, int | str)):
            reader.faults.append(Fault(join(place, "device_id"), "must be the id of a device, or device its name"))
            continue
        drafts.append(draft)
    return drafts


def _owned(
    connection: Connection, drafts: Sequence[TagDraft], device_id: int | None, faults: list[Fault]
) -> list[tuple[int, TagDraft]]:
    """Each draft with its device; those of a device that is not there become `faults`."""
    if device_id is not None:
        device_revision(connection, device_id)
        return [(device_id, draft) for draft in drafts]
    known: dict[int | str | None, int] = {}
    for found, name in connection.execute(select(DEVICE.c.id, DEVICE.c.name)):
        known[found] = known[name] = found
    owned = []
    for draft in drafts:
        if draft.device in known:
            owned.append((known[draft.device], draft))
        else:
            key = "device_id" if isinstance(draft.device, int) else "device"
            faults.append(Fault(join(draft.path, key), f"there is no device {draft.device!r:.80}"))
    return owned

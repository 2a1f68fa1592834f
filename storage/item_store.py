"""Items in the configuration store."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, delete, func, insert, select, update

from scada.errors import ConfigError, Conflict, Fault
from storage.contradictions import unsuited
from storage.documents import Document, Reader, checked
from storage.engine import reading
from storage.listing import page_of
from storage.merge import merge_patch
from storage.revisions import Change, changing, expect
from storage.shapes import BINDING, ITEM, TAG, Row, item_document
from storage.tags import stored_binding
from storage.views import BINDING_COLUMNS, ITEM_COLUMNS, one, rows


class ItemStore:
    """What a ConfigStore does with items."""

    engine: Engine

    def list_items(
        self,
        page: int = 1,
        page_size: int = 100,
        sort: Sequence[str] = (),
        filters: Mapping[str, Any] | None = None,
    ) -> tuple[list[Row], int]:
        """One page of items and their number."""
        with reading(self.engine) as connection:
            found, total = page_of(connection, ITEM_COLUMNS, page, page_size, sort, filters)
            return [item_document(row) for row in found], total

    def get_item(self, item_id: int) -> Row:
        """One item."""
        with reading(self.engine) as connection:
            return item_document(one(connection, ITEM_COLUMNS, item_id))

    def create_item(self, document: Document, *, who: str = "") -> Row:
        """Store a new item."""
        row = checked(Reader.item, document)
        with changing(self.engine, who) as change:
            statement = insert(ITEM).values(**row, revision=change.revision).returning(ITEM.c.id)
            item_id = change.connection.execute(statement).scalar_one()
            result = item_document(one(change.connection, ITEM_COLUMNS, item_id))
            change.note(f"item {row['name']}", None, result)
        return result

    def replace_item(
        self, item_id: int, document: Document, *, expected_revision: int | None = None, who: str = ""
    ) -> Row:
        """Store an item anew; what is left out becomes its default."""
        with changing(self.engine, who) as change:
            return self._save_item(change, item_id, document, expected_revision, patch=False)

    def patch_item(
        self, item_id: int, document: Document, *, expected_revision: int | None = None, who: str = ""
    ) -> Row:
        """Change what the document names (RFC 7396)."""
        with changing(self.engine, who) as change:
            return self._save_item(change, item_id, document, expected_revision, patch=True)

    def delete_item(self, item_id: int, *, expected_revision: int | None = None, who: str = "") -> None:
        """Delete an item; Conflict while tags are made from it."""
        with changing(self.engine, who) as change:
            before = one(change.connection, ITEM_COLUMNS, item_id)
            expect(before["revision"], expected_revision)
            used = select(func.count()).select_from(TAG).where(TAG.c.item_id == item_id)
            count = change.connection.execute(used).scalar_one()
            if count:
                raise Conflict([Fault("", f"item {before['name']!r} is used by {count} tags")])
            change.connection.execute(delete(ITEM).where(ITEM.c.id == item_id))
            change.note(f"item {before['name']}", item_document(before), None)

    def _save_item(self, change: Change, item_id: int, document: Document, expected: int | None, *, patch: bool) -> Row:
        stored = one(change.connection, ITEM_COLUMNS, item_id)
        expect(stored["revision"], expected)
        row = checked(Reader.item, merge_patch(stored, document) if patch else document)
        before = item_document(stored)
        change.connection.execute(update(ITEM).where(ITEM.c.id == item_id).values(**row))
        after = item_document({**stored, **row})
        if before != after:
            check_constants(change, item_id, row["data_type"])
            change.note(f"item {row['name']}", before, after)
            change.touch_item(item_id)
            after["revision"] = change.revision
        return after


def check_constants(change: Change, item_id: int, data_type: str) -> None:
    """Raise ConfigError when a binding of the item's tags does not go with the item's data type."""
    inheriting = (TAG.c.item_id == item_id) & TAG.c.data_type.is_(None)
    tags = select(TAG.c.id).where(inheriting)
    found = rows(change.connection, BINDING_COLUMNS, BINDING.c.tag_id.in_(tags))
    for row in found:
        for fault in unsuited(stored_binding(row), data_type):
            message = f"tag {row['tag_id']} has a binding that it does not go with, {fault.field}: {fault.message}"
            raise ConfigError([Fault("data_type", message)])

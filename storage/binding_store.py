"""Bindings in the configuration store."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, delete, select

from storage.documents import Document, Reader, checked
from storage.drafts import BindingDraft, TagDraft
from storage.engine import reading
from storage.listing import page_of
from storage.merge import merge_patch
from storage.revisions import Change, changing, stays
from storage.shapes import BINDING, DEVICE, TAG, Row
from storage.tag_store import save_tag, seen_tag, tag_document
from storage.tags import stored_binding
from storage.views import BINDING_COLUMNS, TAG_COLUMNS, binding_documents, one, rows


class BindingStore:
    """What a ConfigStore does with bindings; their revision is their device's."""

    engine: Engine

    def list_bindings(
        self,
        page: int = 1,
        page_size: int = 100,
        sort: Sequence[str] = (),
        filters: Mapping[str, Any] | None = None,
    ) -> tuple[list[Row], int]:
        """One page of bindings and their number. `device_id` and `device`, its name, filter by the tag's device."""
        with reading(self.engine) as connection:
            device = select(TAG.c.device_id).where(TAG.c.id == BINDING.c.tag_id).scalar_subquery()
            owners = TAG.join(DEVICE, DEVICE.c.id == TAG.c.device_id)
            named = select(DEVICE.c.name).select_from(owners).where(TAG.c.id == BINDING.c.tag_id).scalar_subquery()
            extra = {"device_id": device, "device": named}
            found, total = page_of(connection, BINDING_COLUMNS, page, page_size, sort, filters, extra)
            return binding_documents(connection, found), total

    def get_binding(self, binding_id: int) -> Row:
        """One binding."""
        with reading(self.engine) as connection:
            return binding_documents(connection, [one(connection, BINDING_COLUMNS, binding_id)])[0]

    def create_binding(self, tag_id: int, document: Document, *, who: str = "") -> Row:
        """Store a new binding of a tag."""
        draft = checked(Reader.binding, document)
        with changing(self.engine, who) as change:
            before = seen_tag(change.connection, tag_id, None)
            others = _stored(change.connection, tag_id)
            after = save_tag(change, before, _with(change.connection, tag_id, [*others, draft]))
        known = {binding.id for binding in others}
        return next(binding for binding in after["bindings"] if binding["id"] not in known)

    def replace_binding(
        self, binding_id: int, document: Document, *, expected_revision: int | None = None, who: str = ""
    ) -> Row:
        """Store a binding anew; what is left out becomes its default."""
        with changing(self.engine, who) as change:
            return _save_binding(change, binding_id, document, expected_revision, patch=False)

    def patch_binding(
        self, binding_id: int, document: Document, *, expected_revision: int | None = None, who: str = ""
    ) -> Row:
        """Change what the document names (RFC 7396)."""
        with changing(self.engine, who) as change:
            return _save_binding(change, binding_id, document, expected_revision, patch=True)

    def delete_binding(self, binding_id: int, *, expected_revision: int | None = None, who: str = "") -> None:
        """Delete a binding."""
        with changing(self.engine, who) as change:
            tag_id = one(change.connection, BINDING_COLUMNS, binding_id)["tag_id"]
            before = seen_tag(change.connection, tag_id, expected_revision)
            change.connection.execute(delete(BINDING).where(BINDING.c.id == binding_id))
            after = tag_document(change.connection, tag_id)
            change.touch(before["device_id"])
            change.note(f"tag {before['name']} of device {before['device_id']}", before, after)


def _save_binding(change: Change, binding_id: int, document: Document, expected: int | None, *, patch: bool) -> Row:
    stored = one(change.connection, BINDING_COLUMNS, binding_id)
    tag_id = stored["tag_id"]
    before = seen_tag(change.connection, tag_id, expected)
    stays(document, "tag_id", tag_id)
    draft = checked(Reader.binding, merge_patch(stored, document) if patch else document)
    # Last, so that a contradiction is found in this one and not in the others.
    others = [other for other in _stored(change.connection, tag_id) if other.id != binding_id]
    after = save_tag(
        change, before, _with(change.connection, tag_id, [*others, BindingDraft(draft.row, "", binding_id)])
    )
    return next(binding for binding in after["bindings"] if binding["id"] == binding_id)


def _stored(connection: Connection, tag_id: int) -> list[BindingDraft]:
    return [stored_binding(row) for row in rows(connection, BINDING_COLUMNS, BINDING.c.tag_id == tag_id)]


def _with(connection: Connection, tag_id: int, bindings: list[BindingDraft]) -> TagDraft:
    """The stored tag with other bindings."""
    row = one(connection, TAG_COLUMNS, tag_id)
    return TagDraft(row, "", tag_id, row["item_id"], row["term_id"], bindings)

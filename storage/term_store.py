"""Terms in the configuration store."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, delete, select

from storage.documents import Document, Reader, checked
from storage.drafts import TermDraft
from storage.engine import reading
from storage.listing import page_of
from storage.merge import merge_patch
from storage.networks import refuse_used, save_terms
from storage.revisions import Change, changing, expect, stays
from storage.shapes import DEVICE, TERM, Row
from storage.tags import Mode
from storage.views import TERM_COLUMNS, device_revision, one


class TermStore:
    """What a ConfigStore does with terms; their revision is their device's."""

    engine: Engine

    def list_terms(
        self,
        page: int = 1,
        page_size: int = 100,
        sort: Sequence[str] = (),
        filters: Mapping[str, Any] | None = None,
    ) -> tuple[list[Row], int]:
        """One page of terms and their number. `device` filters by the device's name."""
        with reading(self.engine) as connection:
            device = select(DEVICE.c.name).where(DEVICE.c.id == TERM.c.device_id).scalar_subquery()
            return page_of(connection, TERM_COLUMNS, page, page_size, sort, filters, {"device": device})

    def get_term(self, term_id: int) -> Row:
        """One term."""
        with reading(self.engine) as connection:
            return one(connection, TERM_COLUMNS, term_id)

    def create_term(self, device_id: int, document: Document, *, who: str = "") -> Row:
        """Store a new term of a device."""
        draft = checked(Reader.term, document)
        with changing(self.engine, who) as change:
            device_revision(change.connection, device_id)
            (term_id,) = save_terms(change, device_id, [draft], Mode.CREATE)
            result = one(change.connection, TERM_COLUMNS, term_id)
            change.touch(device_id)
            change.note(f"term {draft.row['name']}", None, result)
        return result

    def replace_term(
        self, term_id: int, document: Document, *, expected_revision: int | None = None, who: str = ""
    ) -> Row:
        """Store a term anew; what is left out becomes its default."""
        with changing(self.engine, who) as change:
            return self._save_term(change, term_id, document, expected_revision, patch=False)

    def patch_term(
        self, term_id: int, document: Document, *, expected_revision: int | None = None, who: str = ""
    ) -> Row:
        """Change what the document names (RFC 7396)."""
        with changing(self.engine, who) as change:
            return self._save_term(change, term_id, document, expected_revision, patch=True)

    def delete_term(self, term_id: int, *, expected_revision: int | None = None, who: str = "") -> None:
        """Delete a term; Conflict while tags are of it: their values would go to another unit."""
        with changing(self.engine, who) as change:
            before = one(change.connection, TERM_COLUMNS, term_id)
            expect(device_revision(change.connection, before["device_id"]), expected_revision)
            refuse_used(change, [before])
            change.connection.execute(delete(TERM).where(TERM.c.id == term_id))
            change.touch(before["device_id"])
            change.note(f"term {before['name']}", before, None)

    def _save_term(self, change: Change, term_id: int, document: Document, expected: int | None, *, patch: bool) -> Row:
        before = one(change.connection, TERM_COLUMNS, term_id)
        device_id = before["device_id"]
        expect(device_revision(change.connection, device_id), expected)
        stays(document, "device_id", device_id)
        draft = checked(Reader.term, merge_patch(before, document) if patch else document)
        save_terms(change, device_id, [TermDraft(draft.row, "", term_id)], Mode.MERGE)
        after = one(change.connection, TERM_COLUMNS, term_id)
        if before != after:
            change.touch(device_id)
            change.note(f"term {after['name']}", before, after)
        return after

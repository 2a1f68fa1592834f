"""Devices in the configuration store."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from scada.schema import join
from storage.documents import Document, Reader, checked
from storage.drafts import DeviceDraft
from storage.engine import reading
from storage.listing import page_of
from storage.merge import merge_patch
from storage.networks import refuse_orphans, save_networks, save_terms, stored_networks
from storage.revisions import Change, changing, expect
from storage.shapes import DEVICE, TAG, Row
from storage.tags import Mode, save_tags
from storage.views import DEVICE_COLUMNS, device_documents, device_revision, one


class DeviceStore:
    """What a ConfigStore does with devices."""

    engine: Engine

    def list_devices(
        self,
        page: int = 1,
        page_size: int = 100,
        sort: Sequence[str] = (),
        filters: Mapping[str, Any] | None = None,
        *,
        tags: bool = False,
    ) -> tuple[list[Row], int]:
        """One page of devices with networks and terms, and their number; with their tags when asked for."""
        with reading(self.engine) as connection:
            found, total = page_of(connection, DEVICE_COLUMNS, page, page_size, sort, filters)
            return device_documents(connection, found, tags=tags), total

    def get_device(self, device_id: int) -> Row:
        """One device with all that hangs from it."""
        with reading(self.engine) as connection:
            return _document(connection, device_id)

    def create_device(self, document: Document, *, who: str = "") -> Row:
        """Store a new device; networks, terms and tags may be nested in it."""
        draft = checked(Reader.device, document)
        with changing(self.engine, who) as change:
            device_id = insert_device(change, draft)
            result = _document(change.connection, device_id)
            change.note(f"device {draft.row['name']}", None, {**_own(result), "tags": len(result["tags"])})
        return result

    def replace_device(
        self, device_id: int, document: Document, *, expected_revision: int | None = None, who: str = ""
    ) -> Row:
        """Store a device anew: own fields left out become their defaults; networks, terms and tags stay unless named.

        A part that is named is replaced as a whole; its terms and tags keep their ids by id or name.
        """
        with changing(self.engine, who) as change:
            device_revision(change.connection, device_id)
            return self._save_device(change, device_id, checked(Reader.device, document), expected_revision)

    def patch_device(
        self, device_id: int, document: Document, *, expected_revision: int | None = None, who: str = ""
    ) -> Row:
        """Change what the document names (RFC 7396); arrays of terms and tags replace the stored ones."""
        with changing(self.engine, who) as change:
            connection = change.connection
            stored = one(connection, DEVICE_COLUMNS, device_id)
            merged = merge_patch({**stored, "network": stored_networks(connection, device_id)}, document)
            for name in ("network", "terms", "tags"):
                # RFC 7396: null removes what is there.
                if name in document and document[name] is None:
                    merged[name] = {} if name == "network" else []
            return self._save_device(change, device_id, checked(Reader.device, merged), expected_revision)

    def delete_device(self, device_id: int, *, expected_revision: int | None = None, who: str = "") -> None:
        """Delete a device and all that hangs from it."""
        with changing(self.engine, who) as change:
            connection = change.connection
            before = one(connection, DEVICE_COLUMNS, device_id)
            expect(before["revision"], expected_revision)
            document = device_documents(connection, [before], tags=False)[0]
            count = select(func.count()).select_from(TAG).where(TAG.c.device_id == device_id)
            document["tags"] = connection.execute(count).scalar_one()
            connection.execute(delete(DEVICE).where(DEVICE.c.id == device_id))
            change.note(f"device {before['name']}", _own(document), None)

    def _save_device(self, change: Change, device_id: int, draft: DeviceDraft, expected: int | None) -> Row:
        stored = one(change.connection, DEVICE_COLUMNS, device_id)
        expect(stored["revision"], expected)
        before = device_documents(change.connection, [stored])[0]
        update_device(change, device_id, draft, Mode.REPLACE)
        after = _document(change.connection, device_id)
        if before != after:
            change.touch(device_id)
            change.note(f"device {draft.row['name']}", before, after)
            after["revision"] = change.revision
        return after


def insert_device(change: Change, draft: DeviceDraft) -> int:
    """Store a new device with all that its document names; its id."""
    statement = insert(DEVICE).values(**draft.row, revision=change.revision).returning(DEVICE.c.id)
    device_id: int = change.connection.execute(statement).scalar_one()
    change.touch(device_id)
    save_networks(change, device_id, draft.network or {}, Mode.CREATE, join(draft.path, "network"))
    save_terms(change, device_id, draft.terms or [], Mode.CREATE)
    save_tags(change, [(device_id, tag) for tag in draft.tags or []], Mode.CREATE)
    return device_id


def update_device(change: Change, device_id: int, draft: DeviceDraft, mode: Mode) -> None:
    """Store what the document of an existing device names."""
    was_enabled = change.connection.execute(select(DEVICE.c.enabled).where(DEVICE.c.id == device_id)).scalar_one()
    if draft.row["enabled"] and not was_enabled:
        change.placed.devices[device_id] = change.lines.devices[device_id] = join(draft.path, "enabled")
    change.connection.execute(update(DEVICE).where(DEVICE.c.id == device_id).values(**draft.row))
    if draft.network is not None:
        save_networks(change, device_id, draft.network, mode, join(draft.path, "network"))
    if draft.terms is not None:
        save_terms(change, device_id, draft.terms, mode, tags_follow=draft.tags is not None)
    if draft.tags:
        save_tags(change, [(device_id, tag) for tag in draft.tags], mode)
    elif draft.tags is not None and mode is Mode.REPLACE:
        change.connection.execute(delete(TAG).where(TAG.c.device_id == device_id))
    if draft.network is not None:
        refuse_orphans(change, device_id)


def _document(connection: Connection, device_id: int) -> Row:
    """A stored device with all that hangs from it; NotFound when there is none."""
    return device_documents(connection, [one(connection, DEVICE_COLUMNS, device_id)])[0]


def _own(document: Row) -> Row:
    return {name: value for name, value in document.items() if name not in ("id", "revision")}

"""A change of the configuration: one transaction that raises the revision and writes down what it did."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Table, bindparam, func, insert, select, update

from scada.errors import ConfigError, Conflict, Fault, NotFound
from storage.claims import Placed
from storage.engine import writing
from storage.lines import Lines
from storage.models import ConfigRevision
from storage.shapes import DEVICE, ITEM, TAG

REVISION: Table = ConfigRevision.__table__  # type: ignore[assignment]  # a FromClause to its types
# Revisions must become visible in order: a reader that has seen 8 never asks for 7 again. So changes queue.
CONFIG_LOCK = 0x7A_67_77_02
MAX_DIFFERENCE_BYTES = 16_384
MAX_ID = 2**31 - 1


class Change:
    """One change in progress. `touch` the devices it concerns, `note` what happened to what, list in `placed` what moved and in
    `lines` who says anew what of serial lines."""

    def __init__(self, connection: Connection, who: str) -> None:
        self.connection = connection
        self.revision = current_revision(connection) + 1
        self.who = who
        self.devices: set[int] = set()
        self.items: set[int] = set()
        self.placed = Placed()
        self.lines = Lines()
        self._notes: list[dict[str, Any]] = []

    def touch(self, *device_ids: int) -> None:
        """These devices get this change's revision."""
        self.devices.update(device_ids)

    def touch_item(self, item_id: int) -> None:
        """This item and every device with a tag of it get this change's revision."""
        self.items.add(item_id)
        found = select(TAG.c.device_id).where(TAG.c.item_id == item_id).distinct()
        self.devices.update(self.connection.execute(found).scalars())

    def note(self, what: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        """Write down one object's change; nothing when it is none."""
        if before == after:
            return
        verb = "created" if before is None else "deleted" if after is None else "changed"
        note: dict[str, Any] = {"what": what, "change": verb}
        if before is None or after is None:
            note["value"] = dict(before or after or {})
        else:
            names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
            note["fields"] = {name: [before.get(name), after.get(name)] for name in names if name != "revision"}
        self._notes.append(note)

    def finish(self) -> None:
        """Store the revision; nothing when nothing changed. Raises ConfigError for what cannot stand beside the rest."""
        if not self._notes:
            return
        self.placed.refuse_collisions(self.connection)
        self.lines.refuse_contradictions(self.connection)
        first = self._notes[0]
        summary = f"{first['what']} {first['change']}"
        if len(self._notes) > 1:
            summary += f" and {len(self._notes) - 1} more"
        for table, ids in ((DEVICE, self.devices), (ITEM, self.items)):
            if ids:
                statement = update(table).where(table.c.id == bindparam("row_id")).values(revision=self.revision)
                self.connection.execute(statement, [{"row_id": each} for each in sorted(ids)])
        row = {
            "revision": self.revision,
            "time_ms": time.time_ns() // 1_000_000,
            "changed_by": self.who[:64],
            "summary": summary[:200],
            "difference": self._difference(),
        }
        self.connection.execute(insert(REVISION), row)

    def _difference(self) -> dict[str, Any]:
        size = len(orjson.dumps(self._notes))
        if size <= MAX_DIFFERENCE_BYTES:
            return {"changes": self._notes}
        names = [f"{note['what']} {note['change']}" for note in self._notes[:100]]
        return {"truncated_bytes": size, "changes": [name[:150] for name in names]}


@contextmanager
def changing(engine: Engine, who: str, *, dry_run: bool = False) -> Iterator[Change]:
    """A change, committed at the end as a whole or not at all; with `dry_run` everything is done and taken back."""
    try:
        with writing(engine, CONFIG_LOCK) as connection:
            change = Change(connection, who)
            yield change
            change.finish()
            if dry_run:
                raise _DryRun
    except _DryRun:
        return


class _DryRun(Exception):
    """Takes a transaction back."""


def current_revision(connection: Connection) -> int:
    """The newest revision, 0 before the first change."""
    newest: int = connection.execute(select(func.coalesce(func.max(REVISION.c.revision), 0))).scalar_one()
    return newest


def expect(actual: int, expected: int | None) -> None:
    """Raise Conflict when the caller looked at another revision than what is stored."""
    if expected is not None and actual != expected:
        raise Conflict([Fault("revision", f"was changed meanwhile: is {actual}, not {expected}")])


def stays(document: object, name: str, owner: object) -> None:
    """Raise ConfigError when a document wants its object to hang from another one: it would stay where it is."""
    if isinstance(document, Mapping) and document.get(name, owner) != owner:
        raise ConfigError([Fault(name, f"cannot be changed: is {owner!r}; make it anew there, and delete it here")])


def found(row: Any, what: str, identity: object) -> Any:
    """The row; NotFound when there is none."""
    if row is None:
        raise NotFound(f"no {what} {identity}")
    return row


def valid_id(identity: int, what: str) -> int:
    """The id; NotFound when no row can have it (a database column of 32 bits would refuse it with an error)."""
    if not 0 < identity <= MAX_ID:
        raise NotFound(f"no {what} {identity if abs(identity) < 10**20 else 'of so large an id'}")
    return identity

"""The outbox: values acknowledged to their source and not yet confirmed by their device. One writer, the gateway."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, Table, delete, func, insert, select

from scada.values import Value
from storage.engine import reading, writing
from storage.models import Outbox as OutboxModel
from storage.shapes import BINDING
from storage.tags import chunks, delete_rows

OUTBOX: Table = OutboxModel.__table__  # type: ignore[assignment]  # a FromClause to its types


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A value for one binding; `id` is None until it is stored. `time_ms`: UTC milliseconds of the value."""

    id: int | None
    binding_id: int
    value: Value
    time_ms: int


class Outbox:
    """Every method is one transaction, on the disk when it returns. Raises LinkError when the database fails."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def apply(
        self,
        *,
        done: Collection[int] = (),
        cleared: Collection[int] = (),
        latest: Sequence[OutboxRow] = (),
        queued: Sequence[OutboxRow] = (),
    ) -> list[int | None]:
        """Everything that happened since the last call, in one transaction.

        `done`: row ids to delete; `cleared`: bindings whose rows are all deleted; `latest`: rows that replace all others of
        their binding; `queued`: rows that are appended. Returns the ids of the `queued` rows in their order, None for one
        whose binding was deleted meanwhile: there is nowhere to write it.
        """
        with writing(self.engine) as connection:
            delete_rows(connection, OUTBOX, done)
            _delete_of(connection, [*cleared, *(row.binding_id for row in latest)])
            ids = _insert(connection, [*latest, *queued])
        return ids[len(latest) :]

    def count(self) -> int:
        """How many values wait."""
        with reading(self.engine) as connection:
            return connection.execute(select(func.count()).select_from(OUTBOX)).scalar_one()

    def load(self) -> list[OutboxRow]:
        """All rows, in the order they came."""
        query = select(OUTBOX.c.id, OUTBOX.c.binding_id, OUTBOX.c.value, OUTBOX.c.time_ms).order_by(OUTBOX.c.id)
        with reading(self.engine) as connection:
            found = connection.execute(query)
            return [OutboxRow(row_id, binding_id, value["v"], time_ms) for row_id, binding_id, value, time_ms in found]


def _insert(connection: Connection, rows: Sequence[OutboxRow]) -> list[int | None]:
    known: set[int] = set()
    for ids in chunks({row.binding_id for row in rows}):
        # Locked, so that a binding cannot go between this look and the insert; SQLite has one writer and needs no lock.
        wanted = select(BINDING.c.id).where(BINDING.c.id.in_(ids)).with_for_update(key_share=True)
        known.update(connection.execute(wanted).scalars())
    values = [
        {"binding_id": row.binding_id, "value": {"v": row.value}, "time_ms": row.time_ms}
        for row in rows
        if row.binding_id in known
    ]
    if not values:
        return [None] * len(rows)
    returning = insert(OUTBOX).returning(OUTBOX.c.id, sort_by_parameter_order=True)
    stored = iter(connection.execute(returning, values).scalars().all())
    return [next(stored) if row.binding_id in known else None for row in rows]


def _delete_of(connection: Connection, binding_ids: Iterable[int]) -> None:
    for ids in chunks(binding_ids):
        connection.execute(delete(OUTBOX).where(OUTBOX.c.binding_id.in_(ids)))

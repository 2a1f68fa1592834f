"""What became of commands: every step, with who asked, from where, the old and the new value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Engine, Table, delete, exists, func, insert, select

from scada.commands import CommandState, Step
from storage.engine import reading, writing
from storage.listing import page_of
from storage.models import CommandStep
from storage.shapes import Row, columns
from storage.texts import lengths, storable

STEP: Table = CommandStep.__table__  # type: ignore[assignment]  # a FromClause to its types
KEPT = 200_000
"""Steps that are kept, the newest: of about 50,000 commands."""
_PRUNE_EVERY = 1_000
_FIELDS = (
    "command_id", "time_ms", "device", "tag", "state", "final", "value", "old_value", "reason", "who", "origin",
)  # fmt: skip
_LENGTHS = lengths(STEP)


@dataclass(frozen=True, slots=True)
class CommandQuery:
    """A page of commands. `filters`: device, tag, state, final, who, origin; text may hold * and ?."""

    page: int = 1
    page_size: int = 100
    sort: Sequence[str] = ("-id",)
    filters: Mapping[str, Any] = field(default_factory=dict)


class CommandLog:
    """Append only. Every method is one transaction; raises LinkError when the database fails."""

    def __init__(self, engine: Engine, kept: int = KEPT) -> None:
        self.engine = engine
        self._kept = kept
        self._appended = _PRUNE_EVERY

    def append(self, steps: Sequence[Step]) -> None:
        """Store steps in their order; on the disk when it returns. Answers of calls are left out: nothing was set."""
        steps = [step for step in steps if not step.is_of_call]
        if not steps:
            return
        with writing(self.engine) as connection:
            connection.execute(insert(STEP), [_row(step) for step in steps])
            self._appended += len(steps)
            if self._appended >= _PRUNE_EVERY:
                # By number and not by time: a wrong clock must not delete anything.
                newest = connection.execute(select(func.max(STEP.c.id))).scalar_one()
                connection.execute(delete(STEP).where(STEP.c.id <= newest - self._kept))
                self._appended = 0

    def steps(self, command_id: str) -> list[Step]:
        """The steps of a command in the order they were stored; none when it is not known (any more)."""
        with reading(self.engine) as connection:
            query = (
                select(*columns(STEP, *_FIELDS)).where(STEP.c.command_id == storable(command_id)).order_by(STEP.c.id)
            )
            return [_step(dict(row)) for row in connection.execute(query).mappings()]

    def listing(self, query: CommandQuery) -> tuple[list[Step], int]:
        """One page of commands, each as its last step, the newest first unless sorted otherwise; and their number.

        Raises ConfigError for a field that cannot be filtered or sorted by.
        """
        newer = STEP.alias("newer")
        # Asked of one row after the other, newest first, so a page ends it; a set of all last steps would be made each time.
        is_last: ColumnElement[bool] = ~exists().where(newer.c.command_id == STEP.c.command_id, newer.c.id > STEP.c.id)
        filters = {**query.filters, "last": True}
        with reading(self.engine) as connection:
            total = None
            if not query.filters:
                total = connection.execute(select(func.count(STEP.c.command_id.distinct()))).scalar_one()
            rows, number = page_of(
                connection,
                columns(STEP, *_FIELDS),
                query.page,
                query.page_size,
                query.sort or ("-id",),
                filters,
                {"last": is_last},
                total,
            )
        return [_step(row) for row in rows], number

    def recent_ids(self, since_ms: int, most: int = 50_000) -> list[str]:
        """Ids of commands with a step after `since_ms` (UTC, milliseconds), oldest first: what an owner must not repeat."""
        newest = (
            select(STEP.c.command_id, func.max(STEP.c.id).label("newest"))
            .where(STEP.c.time_ms > since_ms)
            .group_by(STEP.c.command_id)
            .order_by(func.max(STEP.c.id).desc())
            .limit(most)
        )
        with reading(self.engine) as connection:
            return [row[0] for row in connection.execute(newest)][::-1]


def _row(step: Step) -> Row:
    return {
        "command_id": _cut("command_id", step.id),
        "time_ms": step.time_ms,
        "device": _cut("device", step.device),
        "tag": None if step.tag is None else _cut("tag", step.tag),
        "state": step.state.value,
        "final": step.final,
        "value": {"v": _plain(step.value)},
        "old_value": {"v": _plain(step.old_value)},
        "reason": _cut("reason", step.reason),
        "who": _cut("who", step.by),
        "origin": _cut("origin", step.origin),
    }


def _step(row: Mapping[str, Any]) -> Step:
    return Step(
        row["command_id"],
        row["device"],
        row["tag"],
        CommandState(row["state"]),
        row["time_ms"],
        row["value"]["v"],
        row["old_value"]["v"],
        row["reason"],
        row["who"],
        row["origin"],
        row["final"],
    )


def _cut(name: str, text: str) -> str:
    return storable(text)[: _LENGTHS[name]]


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {storable(str(name)): _plain(each) for name, each in value.items()}
    return storable(value) if isinstance(value, str) else value

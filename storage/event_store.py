"""Events: messages and values that were not written, the newest 1,000, and how often each reason occurred."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Engine, Table, bindparam, delete, insert, select, update

from storage.engine import reading, writing
from storage.listing import page_of
from storage.models import Reject, RejectCount
from storage.shapes import Row, columns
from storage.texts import lengths, storable

REJECT: Table = Reject.__table__  # type: ignore[assignment]  # a FromClause to its types
COUNT: Table = RejectCount.__table__  # type: ignore[assignment]  # a FromClause to its types
KEPT = 1_000
_COLUMNS = columns(REJECT, "time_ms", "topic", "payload", "code", "reason", "device", "tag")
_LENGTHS = lengths(REJECT)


@dataclass(frozen=True, slots=True)
class RejectRow:
    """A message or value that was not written. `payload` is its head as text; `time_ms`: UTC milliseconds."""

    time_ms: int
    topic: str
    payload: str
    code: str
    reason: str
    device: str | None
    tag: str | None


class RejectLog:
    """Written by the gateway only. Raises LinkError when the database fails."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def append(self, rejects: Sequence[RejectRow], counts: Mapping[str, int]) -> None:
        """Store rejects, oldest first, and add `counts` to what each code has had; long texts are cut. One transaction."""
        if not rejects and not counts:
            return
        with writing(self.engine) as connection:
            if rejects:
                connection.execute(insert(REJECT), [_cut(reject) for reject in rejects[-KEPT:]])
                oldest = select(REJECT.c.id).order_by(REJECT.c.id.desc()).limit(1).offset(KEPT)
                limit = connection.execute(oldest).scalar()
                if limit is not None:
                    connection.execute(delete(REJECT).where(REJECT.c.id <= limit))
            if counts:
                known = set(connection.execute(select(COUNT.c.code)).scalars())
                new = [{"code": str(code), "count": 0} for code in counts if code not in known]
                if new:
                    connection.execute(insert(COUNT), new)
                add = update(COUNT).where(COUNT.c.code == bindparam("key")).values(count=COUNT.c.count + bindparam("n"))
                connection.execute(add, [{"key": str(code), "n": number} for code, number in counts.items()])

    def list(
        self,
        page: int = 1,
        page_size: int = 100,
        sort: Sequence[str] = ("-id",),
        filters: Mapping[str, Any] | None = None,
    ) -> tuple[Sequence[Row], int]:
        """One page of rejects, newest first unless sorted otherwise, and their number."""
        with reading(self.engine) as connection:
            return page_of(connection, _COLUMNS, page, page_size, sort or ("-id",), filters)

    def counts(self) -> dict[str, int]:
        """How often each code occurred since the database was made."""
        with reading(self.engine) as connection:
            return dict(connection.execute(select(COUNT.c.code, COUNT.c.count)).all())


def _cut(reject: RejectRow) -> Row:
    row: Row = asdict(reject)
    for name, length in _LENGTHS.items():
        if row.get(name) is not None:
            row[name] = storable(str(row[name])[:length])
    return row

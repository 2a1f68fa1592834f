"""The bus buffer on disk: batches of samples that a program could not hand to the broker. A SQLite file of its own."""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import (
    Column,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
)

from scada.bus_batches import Batch
from scada.errors import LinkError
from storage.engine import open_engine, reading, writing
from storage.faults import storage_errors

MAX_SAMPLES = 1_000_000
COMPACT_BYTES = 16 * 1024 * 1024
"""An empty buffer whose file is longer is made short again when it is opened."""

_METADATA = MetaData()
BATCHES = Table(
    "bus_batch",
    _METADATA,
    # The writer's numbers, not SQLite's: what comes back from a lost connection takes its old place.
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("device", String, nullable=False),
    Column("size", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)
_DELETE = delete(BATCHES).where(BATCHES.c.number.between(bindparam("first"), bindparam("last")))


class BusBuffer:
    """One program's buffer. Called from one thread; every method raises LinkError when the disk fails.

    `max_samples` is for the queue in front of it, which decides what is dropped.
    """

    def __init__(self, path: Path, max_samples: int = MAX_SAMPLES) -> None:
        self.max_samples = max_samples
        self._path = path
        self._engine: Engine | None = None

    def open(self) -> tuple[int, int]:
        """How many samples an earlier run left, and the highest number of their batches (0: none).

        A damaged file is moved aside (storage.damage) and an empty one made: the program must run.
        """
        engine = self._engine = open_engine(f"sqlite:///{self._path}")
        with writing(engine) as connection:
            _METADATA.create_all(connection)
            total, highest = func.coalesce(func.sum(BATCHES.c.size), 0), func.coalesce(func.max(BATCHES.c.number), 0)
            samples, last = connection.execute(select(total, highest)).one()
        if not samples and self._path.stat().st_size > COMPACT_BYTES:
            with storage_errors(), engine.connect() as connection:
                raw = connection.connection.driver_connection
                assert raw is not None
                raw.execute("VACUUM")  # not in a transaction, which SQLAlchemy would begin
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return samples, last

    def apply(self, added: Sequence[Batch], gone: Sequence[tuple[int, int]]) -> None:
        """One transaction: keep `added`, then forget the numbers in `gone` (first and last of each range)."""
        with writing(self._opened()) as connection:
            if added:
                # A batch may stand there already: taken from here, sent, and come back from a lost connection.
                rows = [batch._asdict() for batch in added]
                connection.execute(insert(BATCHES).prefix_with("OR REPLACE"), rows)
            if gone:
                connection.execute(_DELETE, [{"first": first, "last": last} for first, last in gone])

    def read(self, after: int, count: int) -> list[Batch]:
        """The next `count` batches behind the number `after`, in order."""
        query = select(BATCHES).where(BATCHES.c.number > after).order_by(BATCHES.c.number).limit(count)
        with reading(self._opened()) as connection:
            return [Batch(*row) for row in connection.execute(query)]

    def close(self) -> None:
        """Let go of the file."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _opened(self) -> Engine:
        if self._engine is None:
            raise LinkError(f"database {self._path}: not open")
        return self._engine

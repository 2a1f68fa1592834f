"""The file of a SQLite database: made where there is none, opened, and never mistaken for another one of its name."""

import logging
import os
import sqlite3
from pathlib import Path

from sqlalchemy import Connection

from scada.errors import LinkError
from storage.damage import secure
from storage.location import connect, unwritable

_log = logging.getLogger(__name__)


class SqliteFile:
    """One file, the same from here on. A connection waits `timeout_s` for another program's lock.

    Raises LinkError when the file cannot be made, written or read, and from then on when it was deleted or replaced: its name
    then means another one, or none.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        _make(path)
        self.path = path
        self._timeout_s = timeout_s
        self._opened = self._identity()

    def connect(self) -> sqlite3.Connection:
        """A new connection."""
        # Before it is opened: closing it would write what stands in the old file's -wal into the new one.
        self._check()
        return connect(self.path, "rw", self._timeout_s)

    def use(self, connection: Connection) -> None:
        """Before each use of a connection that was open already."""
        try:
            self._check()
        except LinkError:
            # The driver's own stays open: with it goes the last way to what the old file holds.
            connection.close()
            raise

    def _check(self) -> None:
        found = self._identity()
        if found is None:
            raise LinkError("database: its file was deleted")
        if found != self._opened:
            # Not followed: SQLite would mix what stands in the old file's -wal into the new one.
            raise LinkError(
                "database: its file was replaced while programs had it open; stop them all, then start again"
            )

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _make(path: Path) -> None:
    """A file that may be written, and is not damaged as far as can be seen."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = unwritable(path)
        if place is not None:
            raise LinkError(f"database {path}: {place} is read-only for this user")
        secure(path)
        if not path.exists():
            path.touch()
            _log.info("database %s: did not exist, is made", path)
    except OSError as exc:
        raise LinkError(f"database {path}: {exc.strerror}: {exc.filename}") from exc

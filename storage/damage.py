"""A damaged SQLite file is found when a program starts, and moved aside with what belongs to it: never written to, never deleted.

Programs that start together hold a lock on the folder meanwhile, so one moves and the others find a new database.
"""

import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Engine

from scada.errors import LinkError
from storage.location import connect

_log = logging.getLogger(__name__)
# What SQLite keeps beside a database: https://www.sqlite.org/tempfiles.html
_PARTS = ("", "-wal", "-shm", "-journal")
# A file that is no SQLite database at all is taken for ours by its name only: a wrong setting must not move somebody's file.
_SUFFIXES = frozenset({".sqlite", ".sqlite3", ".db", ".db3"})
# 100,000 tags take 0.06 s. What is not found within this time is found when it is read.
_CHECK_S = 5.0
_BUSY_S = 0.5
_LOCK_S = 15.0
_STEPS = 100_000
# "DMS": every program that has a database open in WAL mode keeps a shared lock on this byte of its -shm (SQLite, os_unix.c).
_IN_USE_BYTE = 128


def secure(path: Path) -> None:
    """Look at the file before it is opened; a damaged one is renamed to NAME.damaged-TIME, so a new one can take its place.

    Locked, read-only or newer files, and errors of the disk, are no damage. Raises LinkError when the file is damaged and
    another program still has it open, or when it cannot be moved.
    """
    with _folder_lock(path.parent, fcntl.LOCK_SH):
        if damage_of(path) is None:
            return
    with _folder_lock(path.parent, fcntl.LOCK_EX):
        # Another program may have moved it while this one waited.
        reason = damage_of(path)
        if reason is None:
            return
        if _in_use(path):
            raise LinkError(
                f"database {path}: damaged: {reason}; another program has it open: end them all, then start again"
            )
        try:
            moved = _move(path)
        except OSError as exc:
            raise LinkError(f"database {path}: damaged: {reason}; cannot be moved aside: {exc.strerror}") from exc
    _log.error(
        "database %s was damaged: %s; moved to %s, an empty one takes its place. Restore a backup or import an export, "
        "then move that file elsewhere",
        path, reason, moved,
    )  # fmt: skip


def set_aside(engine: Engine) -> list[Path]:
    """The damaged files beside this database that nobody has taken away yet, oldest first."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return []
    path = Path(engine.url.database)
    try:
        names = os.listdir(path.parent)
    except OSError:
        return []  # whoever reads from this database is told that it is gone
    start = f"{path.name}.damaged-"
    return sorted({path.with_name(_without_part(name)) for name in names if name.startswith(start)})


def damage_of(path: Path) -> str | None:
    """What is wrong with a file, None when nothing is, or nothing that moving it would mend."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        size = 0
    except OSError:
        return None
    wal = path.with_name(f"{path.name}-wal")
    if not size:
        # SQLite deletes the -wal of an empty database: with it would go the newest changes, perhaps all that is left.
        return f"it is empty, {wal.name} is not" if wal.exists() and wal.stat().st_size else None
    if not path.is_file():
        return None
    try:
        return _quick_check(path)
    except sqlite3.Error as exc:
        # The low byte is the primary code: https://www.sqlite.org/rescode.html
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            return str(exc) if path.suffix in _SUFFIXES else None
        # A schema that only a newer SQLite understands is reported as corrupt too.
        return str(exc) if code == sqlite3.SQLITE_CORRUPT and "syntax error" not in str(exc) else None


def _quick_check(path: Path) -> str | None:
    # mode=ro: a closing connection would otherwise write what stands in the -wal into a file that may be damaged.
    connection = connect(path, "ro", _BUSY_S)
    try:
        deadline = time.monotonic() + _CHECK_S
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        return None if found == "ok" else " ".join(str(found).split())
    finally:
        connection.close()


def _in_use(path: Path) -> bool:
    """Whether another program has it open. Only for a process that has not: the kernel drops a process's locks on a file
    with the first of its descriptors that is closed."""
    try:
        descriptor = os.open(path.with_name(f"{path.name}-shm"), os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _IN_USE_BYTE)
    except OSError as exc:
        if exc.errno in (errno.EAGAIN, errno.EACCES):
            return True
        raise
    finally:
        os.close(descriptor)
    return False


def _move(path: Path) -> Path:
    """Rename the file and its parts; the parts keep their endings, so that SQLite's tools find them."""
    stem = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    names = [path.with_name(stem), *(path.with_name(f"{stem}-{number}") for number in range(2, 1000))]
    target = next(name for name in names if not any(name.with_name(name.name + part).exists() for part in _PARTS))
    for part in _PARTS:
        # The database first: without it nobody opens the rest, and a -wal left behind by a crash is found at the next start.
        with suppress(FileNotFoundError):
            os.rename(path.with_name(path.name + part), target.with_name(target.name + part))
    return target


def _without_part(name: str) -> str:
    for part in _PARTS[1:]:
        name = name.removesuffix(part)
    return name


@contextmanager
def _folder_lock(folder: Path, kind: int) -> Iterator[None]:
    """An advisory lock on the folder itself: it leaves no file, and the kernel gives it back whatever happens."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LinkError(f"database: another program looks at the files in {folder} for too long") from None
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)

"""A database looked at from outside: nothing is made, moved, migrated or written, and no program is kept waiting."""

import os
import struct
import sys
from functools import partial
from pathlib import Path

import orjson
from sqlalchemy import Engine, create_engine, func, select

from scada.errors import LinkError, NotFound
from storage.bus_buffer import BATCHES
from storage.damage import damage_of
from storage.engine import open_engine, reading
from storage.location import connect, parse_url, sqlite_path
from storage.migrate import current_version

if sys.platform == "linux":
    import fcntl

_BUSY_S = 1.0
# The byte of the -shm file that is locked by who writes, SQLite's WAL_WRITE_LOCK (https://www.sqlite.org/walformat.html, 2.3).
_WRITE_LOCK_BYTE = 120
# struct flock of fcntl(2) on Linux, 64 bit: type, whence, start, length, process id.
_FLOCK = struct.Struct("@hhqqi4x")


def open_for_reading(uri: str) -> Engine:
    """An engine that can only read. ConfigError: no URL of a database; NotFound: there is no file yet; LinkError: damaged,
    locked, no permission, no answer."""
    url = parse_url(uri)
    path = sqlite_path(url)
    if path is None:
        return open_engine(uri)  # a server, or memory: opening these makes nothing
    if not path.exists():
        raise NotFound(f"{path} does not exist")
    reason = damage_of(path)
    if reason is not None:
        raise LinkError(f"{path} is damaged: {reason}")
    engine = create_engine(
        url.set(database=str(path)), creator=partial(connect, path, "ro", _BUSY_S), json_deserializer=orjson.loads
    )
    try:
        with reading(engine) as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    except LinkError as exc:
        engine.dispose()
        raise LinkError(f"{path}: {str(exc).removeprefix('database: ')}") from exc
    return engine


def stored_version(engine: Engine) -> str | None:
    """The version of the tables, None where there are none yet; ConfigError when a newer program made them."""
    with reading(engine) as connection:
        return current_version(connection)


def writer(path: Path) -> int | None:
    """The process that is writing into a SQLite file just now (Linux), None for nobody. Asks the kernel, and locks nothing.

    Not for a process that has the file open itself: closing a descriptor would give its locks away.
    """
    if sys.platform != "linux":
        return None
    try:
        descriptor = os.open(path.with_name(f"{path.name}-shm"), os.O_RDONLY)
    except OSError:
        return None  # nobody has it open, or it is not for us to see
    try:
        # A question about a read lock: one for writing would need the right to write.
        asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, _WRITE_LOCK_BYTE, 1, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else pid


def waiting_samples(path: Path) -> int:
    """Samples in a program's bus buffer; raises LinkError."""
    try:
        engine = open_for_reading(f"sqlite:///{path}")
    except NotFound:
        return 0
    try:
        with reading(engine) as connection:
            return int(connection.execute(select(func.coalesce(func.sum(BATCHES.c.size), 0))).scalar_one())
    finally:
        engine.dispose()

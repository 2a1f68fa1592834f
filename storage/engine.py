"""Opening the database, and transactions in it."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import orjson
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy import exc as sql

from scada.errors import ConfigError, LinkError
from storage.faults import describe, is_full, storage_errors
from storage.location import first_line, parse_url, sqlite_path
from storage.sqlite_file import SqliteFile

_log = logging.getLogger(__name__)
BUSY_TIMEOUT_S = 5.0
# A writer that meets another program's lock asks this often whether it shall wait on: so soon it can be called off.
_BUSY_STEP_S = 0.25
WRITE = "tagwire_write"

WaitOn = Callable[[float], bool]
"""Given the seconds that a writer has waited for SQLite's lock: whether it waits on. Called in the writer's thread."""


def _busy_timeout(waited_s: float) -> bool:
    return waited_s < BUSY_TIMEOUT_S


def open_engine(uri: str, wait_on: WaitOn = _busy_timeout) -> Engine:
    """An engine that has answered once. SQLite: WAL, foreign keys, durable commits; the file and its folder are made.

    A writer waits for another program's lock as long as `wait_on` says; opening waits BUSY_TIMEOUT_S at most.
    Raises ConfigError for a URL that cannot mean a database here, LinkError for one that does not answer as it must.
    """
    url = parse_url(uri)
    try:
        engine = _sqlite(url, wait_on) if url.get_backend_name() == "sqlite" else _server(url)
    except (ModuleNotFoundError, sql.ArgumentError, TypeError) as exc:
        raise ConfigError(f"database {_shown(url)}: {first_line(exc)}") from exc
    try:
        _check(engine, wait_on)
    except LinkError as exc:
        engine.dispose()
        raise LinkError(f"database {_shown(url)}: {str(exc).removeprefix('database: ')}") from exc
    except ConfigError:
        engine.dispose()
        raise
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent view of the database."""
    with storage_errors(), engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: Engine, lock: int | None = None) -> Iterator[Connection]:
    """One transaction, committed at the end. SQLite has one writer at a time; elsewhere those with the same `lock` queue."""
    with storage_errors(), engine.connect() as plain:
        connection = plain.execution_options(**{WRITE: True})
        try:
            with connection.begin():
                if lock is not None and connection.dialect.name == "postgresql":
                    connection.execute(text(f"SET LOCAL lock_timeout = '{int(BUSY_TIMEOUT_S * 1000)}ms'"))
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
                yield connection
        except sql.DBAPIError as exc:
            if connection.dialect.name == "sqlite" and is_full(exc):
                _make_room(connection)
            raise


def _make_room(connection: Connection) -> None:
    """A change that found no room leaves its part of the -wal behind, and without a commit nothing else makes that short
    again: the database would go on filling the disk, and refusing, by itself."""
    raw = connection.connection.driver_connection
    assert raw is not None
    raw.execute(f"PRAGMA busy_timeout={int(_BUSY_STEP_S * 1000)}")
    try:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as exc:
        _log.debug("no room could be made: %s", exc)  # the change is refused in any case
    finally:
        raw.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")


def _server(url: URL) -> Engine:
    arguments: dict[str, Any] = {}
    if url.get_backend_name() == "postgresql":
        arguments = {"connect_timeout": 5, "keepalives_idle": 30, "tcp_user_timeout": 10_000}
    return create_engine(
        url,
        connect_args=arguments,
        pool_pre_ping=True,
        pool_timeout=BUSY_TIMEOUT_S,
        json_serializer=_dumps,
        json_deserializer=orjson.loads,
    )


def _sqlite(url: URL, wait_on: WaitOn) -> Engine:
    codec: dict[str, Any] = {"json_serializer": _dumps, "json_deserializer": orjson.loads}
    path = sqlite_path(url)
    if path is None:
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}, **codec)
    else:
        file = SqliteFile(path, BUSY_TIMEOUT_S)
        engine = create_engine(
            url.set(database=str(file.path)), creator=file.connect, pool_timeout=BUSY_TIMEOUT_S, **codec
        )
        event.listen(engine, "engine_connect", file.use)
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", partial(_begin, wait_on))
    return engine


def _set_up(connection: sqlite3.Connection, record: Any) -> None:
    # The driver's own idea of when to begin a transaction would put DDL and reads outside; `_begin` does it instead.
    connection.isolation_level = None
    for pragma in ("foreign_keys=ON", f"busy_timeout={int(BUSY_TIMEOUT_S * 1000)}", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(wait_on: WaitOn, connection: Connection) -> None:
    if not connection.get_execution_options().get(WRITE):
        connection.exec_driver_sql("BEGIN")
        return
    raw = connection.connection.driver_connection
    assert raw is not None
    try:
        # IMMEDIATE: a transaction that starts reading and then writes cannot wait for another writer.
        _execute_patiently(raw, "BEGIN IMMEDIATE", wait_on)
    except sqlite3.Error as exc:
        raise LinkError(f"database: {describe(exc)}") from exc


def _execute_patiently(raw: sqlite3.Connection, statement: str, wait_on: WaitOn) -> None:
    """As SQLite's own busy timeout, in steps between which the wait can be called off."""
    begun = time.monotonic()
    raw.execute(f"PRAGMA busy_timeout={int(_BUSY_STEP_S * 1000)}")
    try:
        while True:
            try:
                raw.execute(statement)
                return
            except sqlite3.OperationalError as exc:
                # The low byte is the primary code: https://www.sqlite.org/rescode.html
                if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or not wait_on(time.monotonic() - begun):
                    raise
    finally:
        raw.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")


def _check(engine: Engine, wait_on: WaitOn) -> None:
    if engine.dialect.name != "sqlite":
        with reading(engine) as connection:
            connection.execute(text("SELECT 1"))
        return
    deadline = time.monotonic() + BUSY_TIMEOUT_S

    def in_time(waited_s: float) -> bool:
        if time.monotonic() > deadline or not wait_on(waited_s):
            return False
        # Two programs that switch a new file to WAL at once: one of them is told "locked" without having waited.
        time.sleep(0.02)
        return True

    try:
        with storage_errors(), engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            for pragma in ("schema_version", "journal_mode=WAL"):
                _execute_patiently(raw, f"PRAGMA {pragma}", in_time)
    except sqlite3.Error as exc:
        raise LinkError(f"database: {describe(exc)}") from exc


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)

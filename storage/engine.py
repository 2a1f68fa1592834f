"""Opening the database, transactions, and the translation of its errors."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy import exc as sql

from scada.errors import ConfigError, LinkError
from storage.faults import describe, storage_errors

# Relative SQLite paths mean this folder, as flask-sqlalchemy resolves them for the application in flask_app/.
INSTANCE_FOLDER = Path(__file__).resolve().parents[1] / "flask_app" / "instance"
BUSY_TIMEOUT_S = 5.0
WRITE = "tagwire_write"


def open_engine(uri: str) -> Engine:
    """An engine that has answered once. SQLite: WAL, foreign keys, durable commits; the file and its folder are made.

    Raises ConfigError for a URL that cannot mean a database here, LinkError for one that does not answer as it must.
    """
    try:
        url = make_url(uri)
        url.get_dialect()
    except (sql.ArgumentError, sql.NoSuchModuleError, ValueError) as exc:
        raise ConfigError(f"not a database URL that is understood here: {_first_line(exc)}") from exc
    try:
        engine = _sqlite(url) if url.get_backend_name() == "sqlite" else _server(url)
    except (ModuleNotFoundError, sql.ArgumentError, TypeError) as exc:
        raise ConfigError(f"database {_shown(url)}: {_first_line(exc)}") from exc
    try:
        _check(engine)
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
    with storage_errors(), _connect(engine) as connection:
        yield connection


@contextmanager
def writing(engine: Engine, lock: int | None = None) -> Iterator[Connection]:
    """One transaction, committed at the end. SQLite has one writer at a time; elsewhere those with the same `lock` queue."""
    with storage_errors(), _connect(engine) as plain:
        connection = plain.execution_options(**{WRITE: True})
        with connection.begin():
            if lock is not None and connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = '{int(BUSY_TIMEOUT_S * 1000)}ms'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
            yield connection


def _connect(engine: Engine) -> Connection:
    """As engine.connect(), but what goes wrong inside the driver's connect is an SQLAlchemy error in every case."""
    return engine.connect()


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


def _sqlite(url: URL) -> Engine:
    codec: dict[str, Any] = {"json_serializer": _dumps, "json_deserializer": orjson.loads}
    name = url.database or ""
    if name in ("", ":memory:") or name.startswith("file:"):
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}, **codec)
        event.listen(engine, "connect", _set_up)
    else:
        path = (INSTANCE_FOLDER / name).resolve()
        engine = create_engine(
            url.set(database=str(path)), creator=_creator(path), pool_timeout=BUSY_TIMEOUT_S, **codec
        )
        event.listen(engine, "connect", _set_up)
        _make_file(path)
        _watch(engine, path)
    event.listen(engine, "begin", _begin)
    return engine


def _creator(path: Path) -> Any:
    # mode=rw: a file that has been deleted is an error. Without it SQLite would make an empty one in its place.
    address = f"file:{quote(str(path))}?mode=rw"
    return lambda: sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False)


def _make_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.touch()
    except OSError as exc:
        raise LinkError(f"database {path}: {exc.strerror}: {exc.filename}") from exc
    for place in (path, path.parent):
        if not os.access(place, os.W_OK):
            raise LinkError(f"database {path}: {place} is read-only for this user")


def _set_up(connection: sqlite3.Connection, record: Any) -> None:
    # The driver's own idea of when to begin a transaction would put DDL and reads outside; `_begin` does it instead.
    connection.isolation_level = None
    for pragma in ("foreign_keys=ON", f"busy_timeout={int(BUSY_TIMEOUT_S * 1000)}", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # IMMEDIATE for writers: a transaction that starts reading and then writes cannot wait for another writer.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(WRITE) else "BEGIN")


def _watch(engine: Engine, path: Path) -> None:
    """Never go on writing into a file that was deleted or replaced: its name now means another one, or none."""

    def identity() -> tuple[int, int] | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    opened = identity()

    def compare(connection: sqlite3.Connection, record: Any, proxy: Any) -> None:
        found = identity()
        if found is None:
            raise LinkError("database: its file was deleted")
        if found != opened:
            # Not followed: SQLite would mix what stands in the old file's -wal into the new one.
            raise LinkError(
                "database: its file was replaced while programs had it open; stop them all, then start again"
            )

    event.listen(engine, "checkout", compare)


def _check(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        with reading(engine) as connection:
            connection.execute(text("SELECT 1"))
        return
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            with storage_errors(), engine.connect() as connection:
                raw = connection.connection.driver_connection
                assert raw is not None
                raw.execute("PRAGMA schema_version")
                raw.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.Error as exc:
            # Two programs that switch a new file to WAL at once: one of them is told "locked" without having waited.
            if "locked" not in str(exc) or time.monotonic() > deadline:
                raise LinkError(f"database: {describe(exc)}") from exc
        time.sleep(0.02)


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _first_line(exc: BaseException) -> str:
    return str(exc).strip().split("\n", 1)[0]

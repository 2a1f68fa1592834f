"""Where a database is: its URL; and of SQLite its file, whether that may be written, and how it is opened."""

import os
import sqlite3
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from sqlalchemy import URL, make_url
from sqlalchemy import exc as sql

from scada.errors import ConfigError

# Relative SQLite paths mean this folder, as flask-sqlalchemy resolves them for the application in flask_app/.
INSTANCE_FOLDER = Path(__file__).resolve().parents[1] / "flask_app" / "instance"


def parse_url(uri: str) -> URL:
    """Raises ConfigError for one that cannot mean a database here."""
    try:
        url = make_url(uri)
        url.get_dialect()
    except (sql.ArgumentError, sql.NoSuchModuleError, ValueError) as exc:
        raise ConfigError(f"not a database URL that is understood here: {first_line(exc)}") from exc
    return url


def sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite database; None for another kind, and for one in memory."""
    name = url.database or ""
    if url.get_backend_name() != "sqlite" or name in ("", ":memory:") or name.startswith("file:"):
        return None
    return (INSTANCE_FOLDER / name).resolve()


def unwritable(path: Path) -> Path | None:
    """What there is of a SQLite file and its folder that this user may not write; None when all is well."""
    return next((each for each in (path, path.parent) if each.exists() and not os.access(each, os.W_OK)), None)


def connect(path: Path, mode: Literal["ro", "rw"], timeout_s: float) -> sqlite3.Connection:
    """A connection of the driver to a file that is there; one that waits `timeout_s` for another program's lock.

    Without a mode SQLite would make an empty file where there is none.
    """
    address = f"file:{quote(str(path))}?mode={mode}"
    return sqlite3.connect(address, uri=True, timeout=timeout_s, check_same_thread=False)


def first_line(exc: BaseException) -> str:
    """What a driver's error says, without SQLAlchemy's explanations below it."""
    return str(exc).strip().split("\n", 1)[0]

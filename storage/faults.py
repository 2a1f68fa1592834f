"""The database's errors in our words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc as sql

from scada.errors import ConfigError, Conflict, Fault, LinkError

_FULL = "the disk is full"
# Part of the driver's message -> what it means to an operator. SQLite: https://www.sqlite.org/rescode.html
_MEANINGS = (
    ("database is locked", "locked by another program"),
    ("lock timeout", "locked by another program"),
    ("readonly database", "is read-only"),
    ("read-only transaction", "is read-only"),
    ("disk is full", _FULL),
    ("no space left", _FULL),
    ("file is not a database", "the file is damaged or is not a database; it was left as it is"),
    ("malformed", "the file is damaged; it was left as it is"),
    ("unable to open database file", "the file cannot be opened: deleted, or no permission"),
    ("no such table", "its tables are gone: the database was emptied or replaced"),
    ("disk I/O error", "the disk reports an error"),
)
# What a unique constraint covers beside the field that an operator can change.
_SCOPES = {"device_id", "tag_id"}


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn SQLAlchemy's errors into Conflict, ConfigError (a value the database cannot hold) or LinkError."""
    try:
        yield
    except sql.IntegrityError as exc:
        raise _conflict(exc) from exc
    except sql.DataError as exc:
        raise ConfigError(f"the database cannot hold a value: {_text(exc)}") from exc
    except (sql.DBAPIError, sql.TimeoutError, sql.DisconnectionError) as exc:
        raise LinkError(f"database: {describe(exc)}") from exc


def describe(exc: BaseException) -> str:
    """One line, in an operator's words where there are any."""
    message = _text(exc)
    for part, meaning in _MEANINGS:
        if part in message.lower() or part in message:
            return meaning
    return message


def is_full(exc: BaseException) -> bool:
    """Whether the database had no room."""
    return describe(exc) == _FULL


def _text(exc: BaseException) -> str:
    cause = getattr(exc, "orig", None) or exc
    return " ".join(str(cause).split())[:300] or type(cause).__name__


def _conflict(exc: sql.IntegrityError) -> Conflict:
    message = _text(exc)
    match = re.search(r"UNIQUE constraint failed: (.+)$", message) or re.search(
        r"Key \(([^)]*)\)=.*already exists", message
    )
    if match is None:
        return Conflict("something it refers to does not exist any more, or something still refers to it")
    columns = [column.strip().rpartition(".")[2] for column in match.group(1).split(",")]
    named = [column for column in columns if column not in _SCOPES] or columns
    return Conflict([Fault(name, "is already taken") for name in named])

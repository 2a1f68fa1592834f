import os
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from scada.errors import ConfigError, Conflict, LinkError
from storage import location
from storage.engine import open_engine, reading, writing
from storage.faults import storage_errors
from tests.support.postgres import PostgresServer


def test_a_new_sqlite_file_is_made_with_its_folder_and_safe_settings(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/new/folder/db.sqlite")
    with reading(engine) as connection:
        values = {name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in
                  ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")}  # fmt: skip
    assert values == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000, "synchronous": 2}


def test_a_relative_path_is_below_the_instance_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "INSTANCE_FOLDER", tmp_path / "instance")
    open_engine("sqlite:///db.sqlite").dispose()
    assert (tmp_path / "instance" / "db.sqlite").exists()


@pytest.mark.parametrize("name", ["with space.db", "per%cent.db", "ques?tion.db", "ha#sh.db", "ünï.db"])
def test_a_path_may_hold_what_a_url_cannot(tmp_path: Path, name: str) -> None:
    engine = open_engine("sqlite://").url.set(database=str(tmp_path / name))
    open_engine(engine.render_as_string(hide_password=False)).dispose()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".db"] == [name]


@pytest.mark.parametrize(
    "uri", ["", "nonsense", "nosuchdb://x/y", "postgresql+nosuchdriver://x/y", "mysql://x/y", "://"]
)
def test_a_url_that_means_nothing_here_is_a_fault_of_the_configuration(uri: str) -> None:
    with pytest.raises(ConfigError):
        open_engine(uri)


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(LinkError) as error:
        open_engine("postgresql://anna:secret@127.0.0.1:1/plant")
    assert "127.0.0.1:1/plant" in str(error.value)
    assert "secret" not in str(error.value)


def test_a_database_that_does_not_exist_on_the_server_is_named(postgres: PostgresServer) -> None:
    with pytest.raises(LinkError, match="nothere"):
        open_engine(f"postgresql://postgres@/nothere?host={postgres.folder}")


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LinkError):
        open_engine(f"sqlite:///{tmp_path}")


def test_a_transaction_that_fails_leaves_nothing(uri: str) -> None:
    engine = open_engine(uri)
    with pytest.raises(LinkError):
        _make_and_fail(engine)
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE left_over (a INTEGER)"))
    engine.dispose()


def test_a_writer_holds_the_write_lock_from_its_first_read(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/db.sqlite")
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER)"))
    with writing(engine) as connection:
        connection.execute(text("SELECT * FROM t"))
        other = sqlite3.connect(tmp_path / "db.sqlite", timeout=0.01)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("INSERT INTO t VALUES (1)")
        other.close()


def test_what_a_unique_constraint_covers_names_the_field(engine: Engine) -> None:
    insert = "INSERT INTO term (device_id, name, description, settings) VALUES (1, 'a', '', '{}')"
    with writing(engine) as connection:
        connection.execute(
            text("INSERT INTO device (id, name, description, enabled, revision) VALUES (1, 'd', '', true, 1)")
        )
        connection.execute(text(insert))
    with pytest.raises(Conflict) as error, writing(engine) as connection:
        connection.execute(text(insert))
    assert [fault.field for fault in error.value.faults] == ["name"]
    with pytest.raises(Conflict, match="refers"), writing(engine) as connection:
        connection.execute(text(insert.replace("(1,", "(99,")))


def test_a_value_too_long_is_an_error_of_the_input(postgres: PostgresServer) -> None:
    engine = open_engine(postgres.uri())
    with pytest.raises(ConfigError, match="cannot hold"), storage_errors(), engine.connect() as connection:
        connection.execute(text("SELECT CAST('x' AS char(1)), CAST(:number AS smallint)"), {"number": 70_000})
    engine.dispose()


def test_a_file_that_was_replaced_is_not_mixed_with_the_old_ones_log(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    engine = open_engine(f"sqlite:///{path}")
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER)"))
    other = open_engine(f"sqlite:///{tmp_path}/other.sqlite")
    with writing(other) as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER)"))
        connection.execute(text("INSERT INTO t VALUES (7)"))
    other.dispose()
    os.replace(tmp_path / "other.sqlite", path)
    for transaction in (reading, writing):
        with pytest.raises(LinkError, match="replaced"), transaction(engine):
            pass


def _make_and_fail(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE left_over (a INTEGER)"))
        connection.execute(text("SELECT * FROM nowhere"))

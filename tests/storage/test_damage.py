"""Damaged SQLite files: what is moved aside at the start, what is not, and that it happens once."""

import hashlib
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scada.errors import ConfigError, LinkError
from storage.config_store import ConfigStore
from storage.damage import set_aside
from storage.engine import open_engine
from storage.migrate import migrate
from tests.support.processes import CHECKOUT, clean_environment, start


def build(path: Path, *, crash: bool = False) -> None:
    """A database with a device. Before a crash a second one was made, which stands in -wal only."""
    program = (
        "import os, sys\nfrom storage.config_store import ConfigStore\nfrom storage.engine import open_engine\n"
        "from storage.migrate import migrate\nengine = open_engine(sys.argv[1])\nmigrate(engine)\n"
        "ConfigStore(engine).create_device({'name': 'boiler', 'tags': [{'name': f't{n}'} for n in range(500)]})\n"
        "engine.dispose()\n"
    )
    if crash:
        program += "ConfigStore(engine).create_device({'name': 'pump'})\nos._exit(0)\n"
    subprocess.run([sys.executable, "-c", program, f"sqlite:///{path}"], cwd=CHECKOUT, check=True)


def state(folder: Path) -> dict[str, str]:
    """What matters, by name: a -shm is only an index, and looking at a database leaves an empty -wal."""
    contents = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}
    return {
        name: hashlib.sha256(content).hexdigest()
        for name, content in contents.items()
        if content or not name.endswith("-wal")
    }


def devices(path: Path) -> int:
    engine = open_engine(f"sqlite:///{path}")
    try:
        migrate(engine)
        return ConfigStore(engine).list_devices()[1]
    finally:
        engine.dispose()


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("how", ["garbage", "overwritten", "cut", "emptied", "removed"])
def test_a_damaged_file_is_moved_aside_with_its_parts_and_every_byte_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str, crash: bool
) -> None:
    path = tmp_path / "db.sqlite"
    build(path, crash=crash)
    if how == "garbage":
        path.write_bytes(os.urandom(20_000))
    elif how == "overwritten":
        path.write_bytes(path.read_bytes()[:4096] + os.urandom(path.stat().st_size - 4096))
    elif how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "emptied":
        os.truncate(path, 0)
    else:
        path.unlink()
    before = state(tmp_path)
    begun = time.monotonic()
    assert devices(path) == 0
    assert time.monotonic() - begun < 10.0
    moved = {name: digest for name, digest in state(tmp_path).items() if ".damaged-" in name}
    if how in ("emptied", "removed") and not crash:
        # Nothing tells it from a new database.
        assert moved == {}
        return
    assert {"db.sqlite" + name.partition("Z")[2]: digest for name, digest in moved.items()} == before
    assert [record.levelname for record in caplog.records if "was damaged" in record.message] == ["ERROR"]
    # And it stays so: the next start finds the new database in order.
    assert devices(path) == 0
    assert {name for name in state(tmp_path) if ".damaged-" in name} == set(moved)


def test_what_a_crash_left_in_the_wal_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    build(path, crash=True)
    assert (tmp_path / "db.sqlite-wal").stat().st_size > 0
    assert devices(path) == 2
    assert not list(tmp_path.glob("*.damaged-*"))


def test_programs_that_start_together_move_it_once(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    build(path)
    path.write_bytes(os.urandom(50_000))
    damaged = path.read_bytes()
    program = (
        "import sys\nfrom storage.engine import open_engine\nfrom storage.migrate import migrate\n"
        "sys.stdin.read()\nengine = open_engine(sys.argv[1])\nmigrate(engine)\nsys.stdin.close()\n"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, f"sqlite:///{path}"],
            cwd=CHECKOUT, stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(6)
    ]  # fmt: skip
    time.sleep(1.5)
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
    said = [child.communicate(timeout=60)[1].decode() for child in children]
    assert [child.returncode for child in children] == [0] * 6, said
    assert sum("was damaged" in each for each in said) == 1
    (moved,) = tmp_path.glob("*.damaged-*")
    assert moved.read_bytes() == damaged
    assert devices(path) == 0


def test_a_file_that_another_program_has_open_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    build(path)
    program = (
        "import sqlite3, sys, time\nconnection = sqlite3.connect(sys.argv[1])\n"
        "connection.execute('SELECT * FROM device')\nprint('open')\ntime.sleep(60)"
    )
    with start([sys.executable, "-c", program, path], clean_environment()) as user:
        user.wait_output("open")
        with path.open("r+b") as file:
            file.write(os.urandom(20_000))
        damaged = path.read_bytes()
        with pytest.raises(LinkError, match="another program has it open"):
            devices(path)
        assert path.read_bytes() == damaged
        assert not list(tmp_path.glob("*.damaged-*"))
    assert devices(path) == 0
    assert len(list(tmp_path.glob("*.damaged-*"))) >= 1


def test_locked_newer_foreign_and_other_files_are_never_moved(tmp_path: Path) -> None:
    locked, newer, foreign, text = (
        tmp_path / name for name in ("locked.sqlite", "newer.sqlite", "foreign.db", "notes.txt")
    )
    build(locked)
    build(newer)
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE device (colour TEXT)")
    connection.close()
    text.write_text("somebody's notes, named in a setting by mistake\n" * 100)
    content = text.read_bytes()
    rival = sqlite3.connect(locked, isolation_level=None)
    rival.execute("BEGIN EXCLUSIVE")
    assert devices(locked) == 1
    rival.execute("ROLLBACK")
    rival.close()
    with pytest.raises(ConfigError, match="newer"):
        devices(newer)
    with pytest.raises(ConfigError, match="another program"):
        devices(foreign)
    with pytest.raises(LinkError, match="not a database"):
        devices(text)
    assert text.read_bytes() == content
    assert not list(tmp_path.glob("*.damaged-*"))


def test_what_is_set_aside_is_listed_until_it_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "db[1].sqlite"
    engine = open_engine(f"sqlite:///{path}")
    assert set_aside(engine) == []
    names = ["db[1].sqlite.damaged-20260101T000000Z", "db[1].sqlite.damaged-20260202T000000Z"]
    for name in (names[0], f"{names[0]}-wal", f"{names[1]}-wal", "other.sqlite.damaged-20260101T000000Z"):
        (tmp_path / name).touch()
    assert [each.name for each in set_aside(engine)] == names
    for each in tmp_path.glob("*.damaged-*"):
        each.unlink()
    assert set_aside(engine) == []
    engine.dispose()

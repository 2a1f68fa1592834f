"""`tagwire doctor` on what stands on disk: the database, buffers, the data folder and its room."""

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from scada.bus_batches import Batch
from storage.bus_buffer import BusBuffer
from storage.engine import open_engine
from storage.migrate import migrate
from tagwire.doctor_database import open_checked
from tagwire.doctor_settings import check_data_dir
from tests.support.doctor_plant import Plant, only
from tests.support.processes import free_port

pytestmark = pytest.mark.system


def database(folder: Path) -> Path:
    """A database of its own, with nothing in it."""
    path = folder / "own.sqlite"
    engine = open_engine(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:12288] = b"\xa5" * 8192
    path.write_bytes(data)


def outdate(path: Path) -> None:
    engine = open_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()


@pytest.mark.parametrize(
    ("plant_fault", "where", "message"),
    [
        (spoil, "own.sqlite", "is damaged"),
        (outdate, "own.sqlite", "is of a newer program"),
        (lambda path: path.with_name(f"{path.name}.damaged-1").write_text("x"), "own.sqlite.damaged-1", "moved aside"),
        (
            lambda path: path.write_text("not a database, but long enough to look like one" * 20),
            "own.sqlite",
            "damaged",
        ),
    ],
    ids=["damaged", "newer", "set aside", "no database"],
)
def test_a_database_that_cannot_be_used(
    plant: Plant, tmp_path: Path, plant_fault: Callable[[Path], object], where: str, message: str
) -> None:
    path = database(tmp_path)
    plant_fault(path)
    before = path.read_bytes()
    only(plant.doctor(SQLALCHEMY_DATABASE_URI=f"sqlite:///{path}"), "database", where, message)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.damaged-2*")), "the doctor moved it"


def test_a_locked_database(plant: Plant, tmp_path: Path) -> None:
    path = database(tmp_path)
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); "
        "print('locked', flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        found = plant.doctor(SQLALCHEMY_DATABASE_URI=f"sqlite:///{path}")
        holder.kill()
    only(found, "database", "own.sqlite", f"locked: process {holder.pid} (")


def test_a_server_that_is_no_database(plant: Plant) -> None:
    uri = f"postgresql+psycopg://user:secret@127.0.0.1:{free_port()}/plant"
    found = plant.doctor(SQLALCHEMY_DATABASE_URI=uri)
    only(found, "database", "SQLALCHEMY_DATABASE_URI", "efused")
    assert "secret" not in json.dumps(found)


def test_a_database_that_may_not_be_written() -> None:
    # Below /tmp itself: others may not look into the folders of tests.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        path = database(Path(name))
        # What is imported only when it is needed may be out of that user's reach.
        assert asyncio.run(open_checked(f"sqlite:///{path}"))[1][0].level == "ok"
        path.chmod(0o444)
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_look_as_nobody, args=(f"sqlite:///{path}", sender))
        child.start()
        found = receiver.recv() if receiver.poll(30) else "nothing was said"
        child.join(30)
    assert found == [
        f"FAULT    database   {path}: {path} is read-only for this user. Change its owner, or run as its owner."
    ]


def _look_as_nobody(uri: str, sender: Connection) -> None:
    if os.geteuid() == 0:
        os.setgid(65_534)
        os.setuid(65_534)
    _, findings = asyncio.run(open_checked(uri))
    sender.send([str(finding) for finding in findings])


def test_the_data_folder_is_a_file(plant: Plant) -> None:
    (plant.folder / "occupied").write_text("")
    only(plant.doctor(TAGWIRE_DATA_DIR=plant.folder / "occupied"), "data", "occupied", "is no folder")
    (plant.folder / "occupied").unlink()


def test_a_full_disk(tmp_path: Path) -> None:
    plenty, vast = 0, 2**80
    assert [str(each.level) for each in check_data_dir(tmp_path, plenty, plenty)] == ["ok"]
    assert [str(each.level) for each in check_data_dir(tmp_path, plenty, vast)] == ["warning"]
    (found,) = check_data_dir(tmp_path, vast, vast)
    assert found.level == "FAULT"
    assert "MiB free" in found.message


def test_samples_that_wait_for_the_broker(plant: Plant, tmp_path: Path) -> None:
    buffer = BusBuffer(tmp_path / "bus-field_server.sqlite")
    buffer.open()
    buffer.apply([Batch(1, "plc", 7, b"[]"), Batch(2, "plc", 5, b"[]")], [])
    buffer.close()
    found = plant.doctor(TAGWIRE_DATA_DIR=tmp_path)
    only(found, "buffer", "bus-field_server.sqlite", "12 samples wait for the broker", "warning")

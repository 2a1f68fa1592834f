"""Rows S2, S3, S4 and S8 of the faults: the configuration database on SQLite."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from scada.errors import Conflict, LinkError
from storage.config_reader import ConfigReader
from storage.config_store import ConfigStore
from storage.damage import set_aside
from storage.engine import open_engine, reading
from storage.migrate import migrate
from storage.outbox import Outbox, OutboxRow
from tests.support.soak import rounds

ROOT = Path(__file__).resolve().parents[2]
DEVICE = {
    "name": "boiler",
    "network": {"modbus": {"host": "h"}},
    "tags": [{"name": "t", "bindings": [{"protocol": "modbus", "direction": "out", "address": {"register": 1}}]}],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db.sqlite"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{path}")
    migrate(engine)
    yield engine
    engine.dispose()


def integrity(engine: Engine) -> str:
    with reading(engine) as connection:
        return str(connection.exec_driver_sql("PRAGMA integrity_check").scalar())


def test_s2_on_a_full_disk_a_change_is_refused_and_the_old_configuration_stays(engine: Engine) -> None:
    store, outbox = ConfigStore(engine), Outbox(engine)
    binding_id = store.create_device(DEVICE)["tags"][0]["bindings"][0]["id"]
    before = store.export_config(), store.revision()
    full = True

    def limit(connection: Any, record: Any, proxy: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0] + 2
        connection.execute(f"PRAGMA max_page_count={pages if full else 2**30}")

    event.listen(engine, "checkout", limit)
    tags = [{"name": f"t{index}", "description": "x" * 400} for index in range(2_000)]
    with pytest.raises(LinkError, match="disk is full"):
        store.create_device({"name": "big", "tags": tags})
    with pytest.raises(LinkError, match="disk is full"):
        outbox.apply(queued=[OutboxRow(None, binding_id, "x" * 400, 1)] * 2_000)
    assert (store.export_config(), store.revision()) == before
    assert (outbox.load(), integrity(engine)) == ([], "ok")
    full = False
    store.create_device({"name": "big", "tags": tags})


def test_s2_on_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        engine = open_engine(f"sqlite:///{disk}/db.sqlite")
        migrate(engine)
        store = ConfigStore(engine)
        store.create_device(DEVICE)
        with pytest.raises(LinkError, match="disk"):
            store.create_device(
                {"name": "big", "tags": [{"name": f"t{i}", "description": "x" * 400} for i in range(5_000)]}
            )
        assert [device["name"] for device in store.list_devices()[0]] == ["boiler"]
        assert integrity(engine) == "ok"
        store.create_device({"name": "small"})
        engine.dispose()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_s3_a_file_deleted_at_run_time_is_never_made_anew(engine: Engine, path: Path, tmp_path: Path) -> None:
    store, reader = ConfigStore(engine), ConfigReader(engine)
    store.create_device(DEVICE)
    os.rename(path, tmp_path / "elsewhere")
    for use in (store.list_devices, reader.revision, reader.load_devices, lambda: store.create_item({"name": "i"})):
        with pytest.raises(LinkError, match="deleted"):
            use()
    engine.dispose()
    with pytest.raises(LinkError, match="deleted"):
        reader.revision()
    assert not path.exists()
    os.rename(tmp_path / "elsewhere", path)
    assert store.list_devices()[1] == 1


def test_s3_garbage_in_the_files_place_is_reported_and_left(engine: Engine, path: Path, tmp_path: Path) -> None:
    store = ConfigStore(engine)
    store.create_device(DEVICE)
    (tmp_path / "garbage").write_bytes(b"\0garbage" * 4_096)
    os.replace(tmp_path / "garbage", path)
    with pytest.raises(LinkError, match="replaced"):
        store.create_device({"name": "b"})
    assert path.read_bytes() == b"\0garbage" * 4_096


def test_s3_the_log_of_changes_is_not_written_into_a_file_that_took_the_olds_place(engine: Engine, path: Path) -> None:
    wal = path.with_name(f"{path.name}-wal")
    store = ConfigStore(engine)
    store.create_device(DEVICE)
    changes = wal.read_bytes()
    # No connection is left: the next use would make one, and closing that would write.
    engine.dispose()
    path.rename(f"{path}.old")
    path.write_bytes(b"\0garbage" * 4_096)
    wal.write_bytes(changes)
    for _ in range(3):
        with pytest.raises(LinkError, match="replaced"):
            store.list_devices()
    engine.dispose()
    assert (path.read_bytes(), wal.read_bytes()) == (b"\0garbage" * 4_096, changes)


def test_s3_pages_overwritten_at_run_time_are_reported_and_moved_aside_at_the_next_start(
    engine: Engine, path: Path
) -> None:
    store = ConfigStore(engine)
    store.create_device(DEVICE)
    engine.dispose()
    path.write_bytes(path.read_bytes()[:4096] + os.urandom(path.stat().st_size - 4096))
    damaged = path.read_bytes()
    with pytest.raises(LinkError, match="damaged"):
        store.create_device({"name": "b"})
    assert path.read_bytes() == damaged
    engine.dispose()
    new = open_engine(f"sqlite:///{path}")
    migrate(new)
    (moved,) = set_aside(new)
    assert moved.read_bytes() == damaged
    assert ConfigStore(new).list_devices()[1] == 0
    new.dispose()


@pytest.mark.parametrize("what", ["file", "folder"])
def test_s3_without_the_right_to_write_it_says_so_at_start(what: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's own folders are closed to other users
        folder, path = Path(name), Path(name) / "db.sqlite"
        open_engine(f"sqlite:///{path}").dispose()
        path.chmod(0o444 if what == "file" else 0o666)
        folder.chmod(0o555 if what == "folder" else 0o777)
        content = path.read_bytes()
        # A child without root's rights, forked: another user might not be able to start this interpreter.
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_open_as_nobody, args=(f"sqlite:///{path}", sender))
        child.start()
        message = receiver.recv() if receiver.poll(30) else "nothing was said"
        child.join(30)
        folder.chmod(0o755)
        assert f"{path if what == 'file' else folder} is read-only" in message
        assert path.read_bytes() == content


def _open_as_nobody(uri: str, sender: Connection) -> None:
    if os.geteuid() == 0:
        os.setgid(65_534)
        os.setuid(65_534)
    try:
        open_engine(uri)
    except LinkError as error:
        sender.send(str(error))


def test_s3_a_database_that_becomes_read_only_still_serves_reads(engine: Engine) -> None:
    store = ConfigStore(engine)
    store.create_device(DEVICE)
    event.listen(engine, "checkout", lambda connection, record, proxy: connection.execute("PRAGMA query_only=ON"))
    with pytest.raises(LinkError, match="read-only"):
        store.create_device({"name": "b"})
    assert store.list_devices()[1] == 1
    assert len(ConfigReader(engine).load_devices()) == 1


def test_s4_while_another_program_holds_the_lock_reads_go_on(path: Path) -> None:
    waited: list[float] = []

    def wait_on(seconds: float) -> bool:
        waited.append(seconds)
        return len(waited) < 4

    engine = open_engine(f"sqlite:///{path}", wait_on)
    migrate(engine)
    store = ConfigStore(engine)
    store.create_device(DEVICE)
    waited.clear()
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('BEGIN EXCLUSIVE'); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(LinkError, match="locked by another program"):
            store.create_device({"name": "b"})
        assert len(waited) == 4
        assert all(0.2 < after - before < 2.0 for before, after in pairwise([0.0, *waited]))
        assert store.list_devices()[1] == 1
        assert len(ConfigReader(engine).load_devices()) == 1
        holder.stdin.close()
        holder.wait()
    assert store.create_device({"name": "b"})["name"] == "b"
    engine.dispose()


def test_s8_two_programs_that_change_one_device_lose_nothing(engine: Engine, path: Path) -> None:
    store = ConfigStore(engine)
    device = store.create_device(DEVICE)
    program = (
        "import sys\nfrom scada.errors import Conflict\nfrom storage.config_store import ConfigStore\n"
        "from storage.engine import open_engine\nstore = ConfigStore(open_engine(sys.argv[1]))\n"
        "done = 0\nwhile done < 20:\n"
        "    seen = store.get_device(1)\n"
        "    text = seen['description'] + sys.argv[2]\n"
        "    try:\n        store.patch_device(1, {'description': text}, expected_revision=seen['revision'])\n"
        "    except Conflict:\n        continue\n"
        "    done += 1\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", program, f"sqlite:///{path}", each], cwd=ROOT) for each in "ab"]
    assert [child.wait(60) for child in children] == [0, 0]
    after = store.get_device(device["id"])
    assert sorted(after["description"]) == ["a"] * 20 + ["b"] * 20
    assert after["revision"] == device["revision"] + 40
    with pytest.raises(Conflict):
        store.delete_device(device["id"], expected_revision=device["revision"])


def test_p2_killed_at_any_write_the_configuration_is_the_old_or_the_new(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    program = (
        "import sys\nfrom storage.config_store import ConfigStore\nfrom storage.engine import open_engine\n"
        "store = ConfigStore(open_engine(sys.argv[1]))\n"
        "for number in range(1, 6):\n"
        "    revision = store.patch_device(1, {'description': str(number)})['revision']\n"
        "    print(revision, flush=True)\n"
    )
    template = tmp_path / "template.sqlite"
    engine = open_engine(f"sqlite:///{template}")
    migrate(engine)
    ConfigStore(engine).create_device(DEVICE)
    engine.dispose()
    killed = 0
    for when in range(1, 61, rounds(6, 1)):
        copy = tmp_path / f"{when}.sqlite"
        shutil.copy(template, copy)
        inject = f"inject=pwrite64,fdatasync,fsync,ftruncate:signal=SIGKILL:when={when}"
        done = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64,fdatasync,fsync,ftruncate", "-e", inject,
             sys.executable, "-c", program, f"sqlite:///{copy}"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        killed += done.returncode != 0
        acknowledged = [int(line) for line in done.stdout.split()]
        engine = open_engine(f"sqlite:///{copy}")
        migrate(engine)
        store = ConfigStore(engine)
        device, revision = store.get_device(1), store.revision()
        assert integrity(engine) == "ok"
        assert revision in (max([1, *acknowledged]), max([1, *acknowledged]) + 1), f"when={when}"
        assert device["description"] == ("" if revision == 1 else str(revision - 1))
        assert device["revision"] == revision
        engine.dispose()
    assert killed >= 5

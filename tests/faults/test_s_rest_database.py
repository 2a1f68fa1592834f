"""Rows S2 and S3 through REST: the program with its database on a full disk, damaged, deleted, replaced."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.processes import start_program
from tests.support.programs import lacking, need
from tests.support.rest import BOILER, rest_server

START_S = 10.0
TAGS = [{"name": f"t{number}", "description": "x" * 400} for number in range(5_000)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [need("mount"), "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        lacking("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """To the last byte; the file that does it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 512)
    return filler


def test_s2_changes_on_a_full_disk_are_507_and_work_again_when_there_is_room(small_disk: Path) -> None:
    with rest_server(small_disk) as server:
        assert server.ask("POST", "/api/v1/devices", BOILER).status == 201
    with rest_server(small_disk) as server:
        before = server.ask("GET", "/api/v1/config").body
        # One change that is too large for what is left.
        answer = server.ask("POST", "/api/v1/devices/boiler/tags", TAGS)
        assert (answer.status, answer.json["type"]) == (507, "urn:tagwire:problem:storage-full"), answer.body
        assert int(answer.headers["retry-after"]) > 0
        assert server.ask("GET", "/api/v1/config").body == before
        # What it had written of it does not go on filling the disk.
        assert (small_disk / "db.sqlite-wal").stat().st_size < 200_000
        # And a disk that others have filled to the last byte.
        filler = fill(small_disk)
        statuses: list[int] = []
        while 507 not in statuses:
            tags = [{"name": f"n{len(statuses)}-{number}", "description": "x" * 400} for number in range(50)]
            statuses.append(server.ask("POST", "/api/v1/devices/boiler/tags", tags).status)
            assert len(statuses) < 200
        assert set(statuses) <= {201, 507}
        for path in ("/api/v1/config", "/api/v1/tags", "/readyz", "/metrics"):
            assert server.ask("GET", path).status == 200
        # Some fitted into what the log of changes had already taken: acknowledged, so there.
        total = server.ask("GET", "/api/v1/tags").json["total"]
        assert total == 1 + 50 * statuses.count(201)
        filler.unlink()
        assert server.ask("POST", "/api/v1/devices/boiler/tags", {"name": "after"}).status == 201
        assert server.ask("GET", "/api/v1/tags").json["total"] == total + 1
        assert server.process.popen.poll() is None
        assert "Traceback" not in server.process.output
    with rest_server(small_disk) as server:
        assert server.ask("GET", "/api/v1/tags").json["total"] == total + 1


def test_s2_a_start_on_a_full_disk_serves_once_there_is_room(small_disk: Path) -> None:
    filler = fill(small_disk)
    begun = time.monotonic()
    with rest_server(small_disk) as server:
        assert time.monotonic() - begun < START_S
        answer = server.ask("POST", "/api/v1/devices", BOILER)
        assert answer.status == 507, answer.body
        filler.unlink()
        assert server.ask("POST", "/api/v1/devices", BOILER).status == 201


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but -shm, which holds locks and an index."""
    return {each.name: each.read_bytes() for each in folder.iterdir() if not each.name.endswith("-shm")}


@pytest.mark.parametrize("how", ["deleted", "garbage"])
def test_s3_a_file_that_goes_at_run_time_is_noticed_and_left(tmp_path: Path, how: str) -> None:
    path = tmp_path / "db.sqlite"
    with rest_server(tmp_path) as server:
        assert server.ask("POST", "/api/v1/devices", BOILER).status == 201
        path.rename(tmp_path / "elsewhere")
        if how == "garbage":
            path.write_bytes(os.urandom(50_000))
        before = contents(tmp_path)
        for method, body in (("GET", None), ("POST", {"name": "other"})) * 10:
            answer = server.ask(method, "/api/v1/devices", body)
            assert answer.status == 503, answer.body
            assert {"deleted": "deleted", "garbage": "replaced"}[how] in answer.json["detail"]
        assert server.ask("GET", "/readyz").status == 503
        assert server.ask("GET", "/healthz").status == 200
        assert contents(tmp_path) == before
        # Put back it is served again, and has all that it had.
        (tmp_path / "elsewhere").rename(path)
        assert server.ask("GET", "/api/v1/devices").json["total"] == 1
        assert server.ask("POST", "/api/v1/devices", {"name": "other"}).status == 201
        assert server.process.terminate() == 0
        assert "Traceback" not in server.process.output
    with rest_server(tmp_path) as server:
        assert server.ask("GET", "/api/v1/devices").json["total"] == 2


def test_s3_a_file_damaged_while_it_is_in_use_is_moved_aside_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    with rest_server(tmp_path) as server:
        assert server.ask("POST", "/api/v1/devices", BOILER).status == 201
        damaged = os.urandom(50_000)
        with path.open("r+b") as file:
            file.write(damaged)
        with start_program("storage.migrate", SQLALCHEMY_DATABASE_URI=f"sqlite:///{path}") as second:
            # Enough of it stands in -wal, or the program that has it open keeps it where it is; never is it taken away.
            second.wait(20)
        assert not list(tmp_path.glob("*.damaged-*"))
        server.process.kill()
    (tmp_path / "db.sqlite-wal").unlink()
    begun = time.monotonic()
    with rest_server(tmp_path) as server:
        assert server.ask("GET", "/readyz").json["status"] == "degraded"
        assert time.monotonic() - begun < START_S
        assert server.ask("POST", "/api/v1/devices", BOILER).status == 201
    assert damaged in [each.read_bytes() for each in tmp_path.glob("db.sqlite.damaged-*")]

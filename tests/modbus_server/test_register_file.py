import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from modbus_server.register_file import FILE_NAME, SHARED_PLACE, offset_of, open_register_file, place_of
from scada.errors import ConfigError
from scada.modbus.image import IMAGE_SIZE
from tests.support.processes import clean_environment


def put(folder: Path, data: bytes, place: int = SHARED_PLACE) -> None:
    with open_register_file(folder, [place]) as memory:
        at = offset_of(place)
        memory[at : at + len(data)] = data


def get(folder: Path, size: int, place: int = SHARED_PLACE) -> bytes:
    with open_register_file(folder, [place]) as memory:
        at = offset_of(place)
        return memory[at : at + size]


def test_registers_are_there_again(tmp_path: Path) -> None:
    put(tmp_path, b"kept")
    assert get(tmp_path, 4) == b"kept"


def test_each_unit_keeps_its_place_when_others_come_and_go(tmp_path: Path) -> None:
    put(tmp_path, b"unit 3", place_of(3))
    put(tmp_path, b"unit 200", place_of(200))
    put(tmp_path, b"shared")
    assert get(tmp_path, 6, place_of(3)) == b"unit 3"
    assert get(tmp_path, 8, place_of(200)) == b"unit 200"
    assert get(tmp_path, 6) == b"shared"
    # Places in between take no room on the disk.
    assert os.stat(tmp_path / FILE_NAME).st_blocks * 512 < 5 * IMAGE_SIZE


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"somebody else's file",
        lambda data: b"X" + data[1:],
        lambda data: data[:16] + b"\xff" * 4 + data[20:],
        lambda data: data[:-1],
        lambda data: data[:100],
        lambda data: data[:24] + b"\x00\x00\x00\x08" + data[28:],
    ],
)
def test_a_damaged_or_foreign_file_is_moved_aside(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, b"old")
    path = tmp_path / FILE_NAME
    for _ in range(2):  # and a second one does not overwrite the first
        broken = damage(path.read_bytes())  # type: ignore[operator]
        path.write_bytes(broken)
        caplog.clear()
        assert get(tmp_path, 3) == b"\x00\x00\x00"
        assert [record.levelname for record in caplog.records] == ["ERROR"]
    aside = [other for other in tmp_path.iterdir() if ".damaged-" in other.name]
    assert len(aside) == 2
    assert broken in [other.read_bytes() for other in aside]


def test_a_second_server_is_refused(tmp_path: Path) -> None:
    with open_register_file(tmp_path, [0]), pytest.raises(ConfigError, match="running already"):
        put(tmp_path, b"x")
    put(tmp_path, b"x")


def test_a_folder_that_cannot_be_used_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError):
        put(tmp_path / "file" / "below", b"x")


def test_a_disk_without_room_is_refused_and_the_old_registers_stay(tmp_path: Path) -> None:
    put(tmp_path, b"kept")
    # A limit on file sizes stands for the full disk: both make the allocation fail.
    limit = offset_of(2)
    before = (tmp_path / FILE_NAME).stat().st_size
    script = f"""
import resource, signal
from pathlib import Path
from modbus_server.register_file import open_register_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {resource.RLIM_INFINITY}))
with open_register_file(Path({str(tmp_path)!r}), [0, 1, 5]):
    pass
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=clean_environment(), check=False
    )
    assert "ConfigError" in done.stderr, done.stderr
    assert (tmp_path / FILE_NAME).stat().st_size == before, "what was taken before it failed is given back"
    assert get(tmp_path, 4) == b"kept"
    assert not [other for other in tmp_path.iterdir() if ".damaged-" in other.name]

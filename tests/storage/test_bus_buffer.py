"""The bus buffer on disk: order, ranges, kill -9, damaged and unwritable files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scada.bus_batches import Batch
from scada.errors import LinkError
from storage.bus_buffer import BusBuffer
from tests.support.processes import clean_environment


def batch(number: int, size: int = 1) -> Batch:
    return Batch(number, "boiler", size, b"[%d]" % number)


def opened(path: Path) -> BusBuffer:
    buffer = BusBuffer(path)
    buffer.open()
    return buffer


def test_batches_come_back_by_their_numbers_and_exactly(tmp_path: Path) -> None:
    buffer = opened(tmp_path / "data" / "bus.sqlite")
    odd = Batch(2**60, "ünï #?", 3, bytes(range(256)))
    buffer.apply([odd, batch(5), batch(7)], [])
    buffer.apply([batch(2)], [])  # it was sent already, and came back from a lost connection
    assert buffer.read(0, 10) == [batch(2), batch(5), batch(7), odd]
    assert buffer.read(2, 2) == [batch(5), batch(7)]
    assert buffer.read(2**60, 2) == []
    buffer.close()


def test_ranges_are_forgotten_and_what_was_added_with_them(tmp_path: Path) -> None:
    buffer = opened(tmp_path / "bus.sqlite")
    buffer.apply([batch(number) for number in range(1, 11)], [])
    buffer.apply([batch(11)], [(2, 4), (6, 6), (9, 11), (50, 60)])
    assert [each.number for each in buffer.read(0, 99)] == [1, 5, 7, 8]
    buffer.apply([batch(5, 9)], [])
    assert buffer.read(1, 1) == [batch(5, 9)], "the same number again replaces"
    buffer.close()


def test_the_next_run_finds_what_this_one_left(tmp_path: Path) -> None:
    path = tmp_path / "bus.sqlite"
    buffer = BusBuffer(path)
    assert buffer.open() == (0, 0)
    buffer.apply([batch(10, 3), batch(12, 4)], [])
    buffer.close()
    assert BusBuffer(path).open() == (7, 12)


def test_it_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "bus.sqlite"
    code = (
        "import sys, itertools; from pathlib import Path\n"
        "from scada.bus_batches import Batch; from storage.bus_buffer import BusBuffer\n"
        "buffer = BusBuffer(Path(sys.argv[1])); buffer.open()\n"
        "for number in itertools.count(1):\n"
        "    buffer.apply([Batch(number, 'd', 1, b'x' * 500)], [(number - 50, number - 50)])\n"
        "    print(number, flush=True)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    told = 0
    while told < 200:
        told = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split("\n")
    child.wait()
    told = max([told, *(int(line) for line in rest[:-1])])
    buffer = BusBuffer(path)
    _, last = buffer.open()
    numbers = [each.number for each in buffer.read(0, 1000)]
    assert last in (told, told + 1)
    assert numbers == list(range(last - 49, last + 1))
    buffer.close()


def test_a_damaged_file_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "bus.sqlite"
    path.write_bytes(b"this was a database once" * 1000)
    buffer = BusBuffer(path)
    assert buffer.open() == (0, 0)
    buffer.apply([batch(1)], [])
    assert buffer.read(0, 1) == [batch(1)]
    buffer.close()
    kept = [each for each in tmp_path.iterdir() if ".damaged-" in each.name]
    assert len(kept) == 1
    assert kept[0].read_bytes().startswith(b"this was")
    assert "damaged" in caplog.text


def test_a_file_damaged_in_the_middle_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "bus.sqlite"
    buffer = opened(path)
    buffer.apply([Batch(number, "d", 1, os.urandom(1000)) for number in range(1, 500)], [])
    buffer.close()
    with path.open("r+b") as file:
        file.seek(40_000)
        file.write(os.urandom(100_000))
    assert BusBuffer(path).open() == (0, 0)
    assert any(".damaged-" in each.name for each in tmp_path.iterdir())


def test_a_place_that_is_no_place_is_a_link_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LinkError):
        BusBuffer(tmp_path / "file" / "bus.sqlite").open()
    (tmp_path / "bus.sqlite").mkdir()
    with pytest.raises(LinkError):
        BusBuffer(tmp_path / "bus.sqlite").open()
    with pytest.raises(LinkError):
        BusBuffer(tmp_path / "never opened").read(0, 1)


def test_an_empty_buffer_does_not_keep_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.bus_buffer.COMPACT_BYTES", 200_000)
    path = tmp_path / "bus.sqlite"
    buffer = opened(path)
    buffer.apply([Batch(number, "d", 1, bytes(1000)) for number in range(1, 500)], [])
    buffer.apply([], [(1, 499)])
    buffer.close()
    assert path.stat().st_size > 200_000
    opened(path).close()
    assert path.stat().st_size < 50_000

"""Samples that are kept until somebody else has them, over kills at any moment."""

import random
from collections import deque
from pathlib import Path

import pytest

from modbus_server.mailbox.journal import Journal
from scada.values import Quality, Sample

SMALL = 4096 + 2000


def sample(value: int, tag: str = "t") -> Sample:
    return Sample(tag, value, Quality.GOOD, 1_763_712_000_000 + value)


def opened(path: Path, size: int = SMALL) -> tuple[Journal, list[tuple[str, list[object]]]]:
    """A journal, and what an earlier run left in it; none of that is published again."""
    journal = Journal(path, size)
    left = [(record.device, [each.value for each in record.samples]) for record in journal.open()]
    return journal, left


def test_what_is_not_safe_is_there_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal, left = opened(path)
    assert left == []
    journal.add("press", [sample(1), sample(2)])
    journal.add("pump", [sample(3)])
    journal.add("press", [sample(4)])
    assert opened(path)[1] == [("press", [1, 2]), ("pump", [3]), ("press", [4])]
    journal.safe("press", 1)
    assert opened(path)[1] == [("press", [1, 2]), ("pump", [3]), ("press", [4])]
    journal.safe("press", 1)
    assert opened(path)[1] == [("pump", [3]), ("press", [4])]
    journal.safe("press", 1)
    journal.safe("pump", 1)
    assert opened(path)[1] == []
    journal.add("press", [sample(5)])
    assert opened(path)[1] == [("press", [5])]


def test_what_was_left_stays_until_it_is_safe_or_given_up(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal, _ = opened(path)
    for number in range(3):
        journal.add("press", [sample(number)])
    second = Journal(path, SMALL)
    first, middle, last = second.open()
    assert middle.samples == [sample(1)]
    for record, count in ((first, 0), (middle, 1), (last, 1)):
        second.again(record, count)
    second.add("press", [sample(9)])
    assert opened(path)[1] == [("press", [1]), ("press", [2]), ("press", [9])]
    second.safe("press", 2)
    assert opened(path)[1] == [("press", [9])]


def test_what_nobody_was_answered_for_takes_its_turn_and_no_room(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal, _ = opened(path)
    journal.skip("press", 2)
    journal.add("press", [sample(3)])
    journal.safe("press", 2)
    assert opened(path)[1] == [("press", [3])]
    journal.safe("press", 1)
    assert opened(path)[1] == []


def test_laps_of_the_ring_with_kills_in_between(tmp_path: Path) -> None:
    """Against a plain list, whatever sizes meet the end of the ring."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    path = tmp_path / "journal"
    journal, _ = opened(path)
    kept: deque[tuple[str, list[int]]] = deque()
    number = 0
    for _ in range(3000):
        if sum(len(values) for _, values in kept) < 12:
            values = [number := number + 1 for _ in range(rng.randint(1, 4))]
            device = rng.choice(("a", "a-longer-name"))
            journal.add(device, [sample(value, "t" * rng.randint(1, 9)) for value in values])
            kept.append((device, values))
        if kept and rng.random() < 0.5:
            device, values = kept.popleft()
            journal.safe(device, len(values))
        if rng.random() < 0.1:
            journal = Journal(path, SMALL)
            records = journal.open()
            assert [(each.device, [one.value for one in each.samples]) for each in records] == list(kept)
            for record in records:
                journal.again(record, len(record.samples))
    assert number > 1000


def test_a_full_ring_is_told_once_and_loses_nothing_that_it_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal, _ = opened(tmp_path / "journal")
    for number in range(100):
        journal.add("press", [sample(number)])
    kept = [values[0] for _, values in opened(tmp_path / "journal")[1]]
    assert kept == list(range(len(kept)))
    assert 10 < len(kept) < 100
    assert caplog.text.count("is full") == 1
    journal.safe("press", 100)
    assert opened(tmp_path / "journal")[1] == []
    journal.add("press", [sample(7)])
    assert opened(tmp_path / "journal")[1] == [("press", [7])]


def test_half_a_record_is_none(tmp_path: Path) -> None:
    """A kill in the middle of a copy: that write was never answered."""
    path = tmp_path / "journal"
    journal, _ = opened(path)
    journal.add("press", [sample(1)])
    journal.add("press", [sample(2)])
    whole = path.read_bytes()
    at = whole.index(b'["t",2,')
    for cut in range(at - 20, at + 20):
        path.write_bytes(whole[:cut] + bytes(len(whole) - cut))
        assert opened(path)[1] == [("press", [1])]


@pytest.mark.parametrize("content", [b"", b"no journal", bytes(SMALL), b"TAGWIRE\0JOURNAL1" + b"\xff" * 5000])
def test_a_file_that_is_no_journal_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    journal, left = opened(path)
    assert left == []
    journal.add("press", [sample(1)])
    assert opened(path)[1] == [("press", [1])]
    journal.safe("press", 1)
    assert opened(path)[1] == []


def test_without_a_file_it_is_told_and_nothing_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    journal, left = opened(tmp_path / "file" / "journal")
    assert left == []
    journal.add("press", [sample(1)])
    journal.safe("press", 1)
    assert "cannot be used" in caplog.text

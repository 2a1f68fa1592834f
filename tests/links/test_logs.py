"""A log is read by a person: a line that repeats is counted, a line that differs is never held back."""

import logging

import pytest

from links.logs import REPEAT_S, Collapse, Rationed


def lines(*entries: tuple[float, str]) -> list[str]:
    collapse = Collapse()
    written = []
    for created, text in entries:
        record = logging.LogRecord("links", logging.WARNING, "", 0, text, (), None)
        record.created = created
        if collapse.filter(record):
            written.append(record.getMessage())
    return written


def test_a_repeated_line_is_written_once_and_then_with_its_count() -> None:
    entries = [(0.0, "a"), (1.0, "a"), (2.0, "a"), (REPEAT_S + 1, "a"), (REPEAT_S + 2, "b")]
    assert lines(*entries) == ["a", "a (2 more times since)", "b"]


def test_lines_in_turn_are_all_written() -> None:
    assert lines((0, "a"), (1, "b"), (2, "a"), (3, "b")) == ["a", "b", "a", "b"]


def test_text_with_percent_signs_survives() -> None:
    assert lines((0, "50 %"), (1, "50 %"), (REPEAT_S, "50 %")) == ["50 %", "50 % (1 more times since)"]


def test_lines_of_one_kind_are_rationed(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("links.logs.time.monotonic", lambda: now)
    caplog.set_level(logging.INFO)
    rationed = Rationed(logging.getLogger("field_server"), 3, "changes of boiler")
    for number in range(5):
        (rationed.warning if number % 2 else rationed.info)("change %d", number)
    now += REPEAT_S
    rationed.info("change 5")
    assert [record.getMessage() for record in caplog.records] == [
        "change 0",
        "change 1",
        "change 2",
        "2 more changes of boiler were not written",
        "change 5",
    ]

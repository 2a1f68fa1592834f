"""A log is read by a person: a line that repeats is counted, a line that differs is never held back."""

import logging

from links.logs import REPEAT_S, Collapse


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

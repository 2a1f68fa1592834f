"""What `make bench` prints of its rows."""

import pytest

from bench.table import Row, as_markdown, at_most, print_table

ROWS: list[Row] = [
    at_most("page", 5.96412, "ms", 20.0, {"ORM": 23.0764}),
    at_most("start", 3.2, "s", 3.0, {}),
    {"figure": "rate", "ours": 34_710.3, "peers": {"bare": 67_525.2, "no": 0}, "unit": "1/s", "target": ">= 0.5 x", "met": True},
]  # fmt: skip


def test_a_limit_becomes_a_row() -> None:
    assert ROWS[0] == {
        "figure": "page", "ours": 5.964, "peers": {"ORM": 23.076}, "unit": "ms", "target": "<= 20 ms", "met": True,
    }  # fmt: skip
    assert ROWS[1]["met"] is False
    assert at_most("start", 3.0, "s", 3.0, {})["met"] is True


def test_rows_become_a_table_with_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    """It failed on a target that was a number, behind ten minutes of measuring."""
    print_table(ROWS)
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["page", "5.96", "ms", "ORM 23.1 (0.26 x)", "<= 20 ms", "yes"],
        ["start", "3.2", "s", "", "<= 3 s", "NO"],
        ["rate", "34,710", "1/s", "bare 67,525 (0.51 x), no 0", ">= 0.5 x", "yes"],
    ]


def test_rows_become_markdown() -> None:
    text = as_markdown({"machine": "2 x CPU", "time": "2026-11-21 10:00", "quick": True, "rows": ROWS})
    assert "`make bench` on 2 x CPU, 2026-11-21 10:00, short runs." in text
    assert text.splitlines()[-3:] == [
        "| page | 5.96 ms | ORM 23.1 (0.26 x) | <= 20 ms | yes |",
        "| start | 3.2 s |  | <= 3 s | no |",
        "| rate | 34,710 1/s | bare 67,525 (0.51 x), no 0 | >= 0.5 x | yes |",
    ]

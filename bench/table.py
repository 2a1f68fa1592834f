"""The benchmarks' results for people: a table on the terminal, and one in Markdown.

A row: {"figure", "ours", "peers": {name: value}, "unit", "target", "met"}.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]


def number(value: float) -> str:
    """Three digits that matter, with commas."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def peers(row: Row) -> str:
    """Each peer with its value, and how many times ours is as much."""
    return ", ".join(
        f"{name} {number(value)}" + (f" ({row['ours'] / value:.2g} x)" if value else "")
        for name, value in row["peers"].items()
    )


def print_table(rows: Sequence[Row]) -> None:
    """On the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "ours", "unit", "peers (ours / peer)", "target", "met")
    for row in rows:
        met = "[green]yes[/green]" if row["met"] else "[red]NO[/red]"
        table.add_row(row["figure"], number(row["ours"]), row["unit"], peers(row), row["target"], met)
    console = Console()
    console.print(table, width=None if console.is_terminal else 160)


def as_markdown(report: Mapping[str, Any]) -> str:
    """For docs/bench.md."""
    lines = [
        "# How fast it is",
        "",
        f"`make bench` on {report['machine']}, {report['time']}{', short runs' if report['quick'] else ''}.",
        "Ours and the peers ran in the same run, on the same machine; in brackets, how many times ours is as much.",
        "",
        "| figure | ours | peers | must reach | reached |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        cells = (row["figure"], f"{number(row['ours'])} {row['unit']}", peers(row), row["target"])
        lines.append(f"| {' | '.join(cells)} | {'yes' if row['met'] else 'no'} |")
    return "\n".join(lines)

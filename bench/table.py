"""The benchmarks' results: rows, and two tables of them for people, on the terminal and in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class Row(TypedDict):
    """One figure: what we reach, what others reach in the same run, and what must be reached, in words."""

    figure: str
    ours: float
    peers: dict[str, float]
    unit: str
    target: str
    met: bool


def at_most(figure: str, ours: float, unit: str, limit: float, peers: dict[str, float]) -> Row:
    """The row of a figure that must not exceed `limit`."""
    return {
        "figure": figure,
        "ours": round(ours, 3),
        "peers": {name: round(value, 3) for name, value in peers.items()},
        "unit": unit,
        "target": f"<= {limit:g} {unit}",
        "met": ours <= limit,
    }


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

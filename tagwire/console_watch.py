"""The console's `watch`: tags that match, in a table that stays in place on a terminal, as lines elsewhere."""

import asyncio
from typing import TYPE_CHECKING

from scada.values import Sample
from tagwire.console_session import Session, Usage
from tagwire.console_values import Pattern, cells

if TYPE_CHECKING:
    from rich.table import Table

REFRESH_S = 0.2
_FRAME_LINES = 6


async def watch(session: Session, rest: str) -> None:
    """Tags that match and their changes, until Ctrl-C."""
    if len(rest.split()) != 1:
        raise Usage("watch needs one pattern: a part of the name, or all of it with * and ?")
    pattern = Pattern(rest)
    samples = await session.samples([pattern])
    found = {name: samples[name] for name in pattern.find(samples)}
    if session.output.terminal:
        await _watch_table(session, pattern, found)
    else:
        await _watch_lines(session, pattern, found)


async def _watch_lines(session: Session, pattern: Pattern, found: dict[str, Sample]) -> None:
    for name, sample in found.items():
        session.print_change(name, sample)
    session.listen(pattern, session.print_change)
    try:
        await session.wait(None)
    finally:
        session.unlisten(pattern, session.print_change)


async def _watch_table(session: Session, pattern: Pattern, found: dict[str, Sample]) -> None:
    # rich only where there is a terminal: it takes 50 ms to import.
    from rich.console import Console
    from rich.live import Live

    changed = asyncio.Event()
    changes = 0

    def take(name: str, sample: Sample) -> None:
        nonlocal changes
        changes += 1
        found[name] = sample
        changed.set()

    console = Console()
    session.listen(pattern, take)
    try:
        with Live(console=console, auto_refresh=False) as live:
            while not session.output.closed:
                changed.clear()
                live.update(_table(found, pattern.text, changes, console.height), refresh=True)
                await changed.wait()
                # As often as eyes can follow, however often values change.
                await asyncio.sleep(REFRESH_S)
    finally:
        session.unlisten(pattern, take)


def _table(found: dict[str, Sample], title: str, changes: int, height: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table("tag", "value", "quality", "time", title=Text(f"watch {title}"), title_justify="left")
    names = sorted(found)
    shown = names[: max(1, height - _FRAME_LINES)]
    for name in shown:
        style = "" if found[name].quality == "good" else "red"
        table.add_row(*(Text(cell) for cell in cells(name, found[name], terminal=True)), style=style)
    left = f"{len(names) - len(shown):,} more; " if len(shown) < len(names) else ""
    table.caption = Text(f"{left}{changes:,} changes; Ctrl-C ends it")
    return table

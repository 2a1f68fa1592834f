"""The console's `watch`: tags that match, in a table that stays in place on a terminal, as lines elsewhere."""

import asyncio
from typing import TYPE_CHECKING

from scada.values import Sample
from tagwire.console_session import OnSample, Session, Usage
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
    changes = _Changes()
    session.listen(pattern, changes.take)
    try:
        samples = await session.samples([pattern])
        found = {name: samples[name] for name in pattern.find(samples)}
        await (_watch_table if session.output.terminal else _watch_lines)(session, pattern, found, changes)
    finally:
        session.unlisten(pattern, changes.take)


class _Changes:
    """What changes while the picture is on its way is held back: it belongs on top of it."""

    def __init__(self) -> None:
        self._held: list[tuple[str, Sample]] = []
        self._handler: OnSample | None = None

    def take(self, name: str, sample: Sample) -> None:
        """A change."""
        if self._handler is None:
            self._held.append((name, sample))
        else:
            self._handler(name, sample)

    def pass_to(self, handler: OnSample) -> None:
        """What was held back, and all that comes."""
        self._handler = handler
        for name, sample in self._held:
            handler(name, sample)
        self._held.clear()


async def _watch_lines(session: Session, pattern: Pattern, found: dict[str, Sample], changes: _Changes) -> None:
    for name, sample in found.items():
        session.print_change(name, sample)
    changes.pass_to(session.print_change)
    await session.wait(None)


async def _watch_table(session: Session, pattern: Pattern, found: dict[str, Sample], changes: _Changes) -> None:
    # rich only where there is a terminal: it takes 50 ms to import.
    from rich.console import Console
    from rich.live import Live

    changed = asyncio.Event()
    number = 0

    def take(name: str, sample: Sample) -> None:
        nonlocal number
        number += 1
        found[name] = sample
        changed.set()

    changes.pass_to(take)
    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        while not session.output.closed:
            changed.clear()
            live.update(_table(found, pattern.text, number, console.height), refresh=True)
            await changed.wait()
            # As often as eyes can follow, however often values change.
            await asyncio.sleep(REFRESH_S)


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

"""Watching values: each change with its time as a line, or on a terminal a table that stays in place."""

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING

from links.backoff import Backoff
from links.loop import stop_on_signals, until
from links.modbus_client import ModbusClient
from scada.errors import DeviceRefused, LinkError, ProtocolError
from scada.values import BadValue, Value
from tagwire.targets import Target, read_values, shown

if TYPE_CHECKING:
    from rich.live import Live


async def watch_values(target: Target, interval_s: float, duration_s: float | None, as_text: bool) -> None:
    """Read every `interval_s` and show what changed, until SIGINT, SIGTERM or `duration_s`. A lost link is tried again."""
    stop = stop_on_signals()
    if duration_s is not None:
        asyncio.get_running_loop().call_later(duration_s, stop.set)
    live = _live() if as_text and sys.stdout.isatty() else None
    shower: AbstractContextManager[object] = nullcontext() if live is None else live
    with shower:
        show = _table(target, live) if live is not None else _lines(target, as_text)
        await until(stop, _poll(target, interval_s, show))


Show = Callable[[list[tuple[int, Value | BadValue]] | str], None]


async def _poll(target: Target, interval_s: float, show: Show) -> None:
    """Call `show` with each change `(index, value)`, or with the reason why there is none."""
    backoff = Backoff(first_s=interval_s, cap_s=max(5.0, interval_s))
    loop = asyncio.get_running_loop()
    known: dict[int, object] = {}
    told = ""
    client = ModbusClient(target.endpoint)
    due = loop.time()
    try:
        while True:
            try:
                await client.connect()
                values = await read_values(client, target)
            except (LinkError, ProtocolError, DeviceRefused) as exc:
                if str(exc) != told:
                    told = str(exc)
                    show(told)
                known.clear()
                await asyncio.sleep(backoff.next_delay_s())
                due = loop.time()
                continue
            backoff.reset()
            told = ""
            # Compared as shown: two BadValue of one cause are one state.
            changes = [(index, value) for index, value in enumerate(values) if known.get(index) != shown(value)]
            if changes:
                known.update((index, shown(value)) for index, value in changes)
                show(changes)
            due = max(due + interval_s, loop.time())
            await asyncio.sleep(due - loop.time())
    finally:
        await client.close()


def _now() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]


def _lines(target: Target, as_text: bool) -> Show:
    def show(news: list[tuple[int, Value | BadValue]] | str) -> None:
        now = _now()
        if isinstance(news, str):
            print(f"{now} {news}" if as_text else json.dumps({"time": now, "error": news}), flush=True)
            return
        for index, value in news:
            address = target.address_of(index)
            if as_text:
                print(f"{now} {address} {shown(value)}", flush=True)
            else:
                found = {"error": str(value)} if isinstance(value, BadValue) else {"value": value}
                print(json.dumps({"time": now, "address": address, **found}, ensure_ascii=False), flush=True)

    return show


def _live() -> "Live":
    # rich only where there is a terminal: it takes 50 ms to import.
    from rich.live import Live

    return Live(auto_refresh=False)


def _table(target: Target, live: "Live") -> Show:
    from rich.table import Table
    from rich.text import Text

    rows: dict[int, tuple[str, str, int]] = {}

    def show(news: list[tuple[int, Value | BadValue]] | str) -> None:
        table = Table("address", "value", "since", "changes", title=str(target.endpoint))
        if isinstance(news, str):
            table.caption = news
        else:
            for index, value in news:
                changes = rows[index][2] + 1 if index in rows else 0
                rows[index] = (shown(value), _now(), changes)
        for index, (text, since, changes) in sorted(rows.items()):
            table.add_row(str(target.address_of(index)), Text(text), since, str(changes))
        live.update(table, refresh=True)

    return show

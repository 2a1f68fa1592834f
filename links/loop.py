"""The event loop that our daemons run on, and how they are told to stop."""

import asyncio
import gc
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

GC_THRESHOLD = 50_000


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed (about twice as fast on small messages), else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def collect_rarely() -> None:
    """Messages and polls make no cycles: looking for them every 700 objects, Python's default, only costs time."""
    gc.set_threshold(GC_THRESHOLD)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set from here on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None when `stop` comes first; `work` is cancelled then, and has ended."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    return None if task.cancelled() else task.result()

"""A blocking call beside the loop, in a thread that the program's end does not wait for (to_thread's would be)."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def call_in_thread(call: Callable[[], T], name: str) -> T:
    """Run `call` in a daemon thread of that name and wait for its end: what it returned; raises what it raised."""
    return await start_in_thread(call, name)


def start_in_thread(call: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run `call` in a daemon thread of that name; what it returns or raises is in the future then.

    Raises RuntimeError when the system starts no more threads.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(results: list[T], error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(results[0])
        else:
            done.set_exception(error)

    def run() -> None:
        results: list[T] = []
        error: Exception | None = None
        try:
            results.append(call())
        except Exception as exc:  # noqa: BLE001 - handed over to the task that waits
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, results, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done

"""A blocking call beside the loop, in a thread that the program's end does not wait for (to_thread's would be)."""

import asyncio
import contextlib
import threading
from collections.abc import Callable


async def call_in_thread(call: Callable[[], object], name: str) -> None:
    """Run `call` in a daemon thread of that name and wait for its end; raises what it raised."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: Exception | None = None
        try:
            call()
        except Exception as exc:  # noqa: BLE001 - handed over to the task that waits
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    await done

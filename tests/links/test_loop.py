"""Work that a stop ends, and signals that mean one."""

import asyncio
import os
import signal

import pytest

from links.loop import stop_on_signals, until


async def test_work_that_ends_first_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert await until(asyncio.Event(), work()) == 7


async def test_what_work_raises_is_raised() -> None:
    async def work() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await until(asyncio.Event(), work())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_after_a_stop_work_has_ended(number: signal.Signals) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append("in order")

    stop = stop_on_signals()
    try:
        assert await until(stop, work()) is None
        assert ended == ["in order"]
    finally:
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(each)

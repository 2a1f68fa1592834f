"""Keeps the steps of commands for good, from a program whose loop must not wait for a disk."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Executor

from scada.commands import Step
from scada.errors import LinkError
from storage.command_store import CommandLog

log = logging.getLogger(__name__)

MAX_WAITING = 50_000
"""Most steps kept in memory while the database cannot be written; beyond it the oldest are lost, and counted."""
PAUSE_S = 1.0
REMEMBERED_MS = 3_600_000
"""Commands live for seconds: older ones need not be known."""


class StepWriter:
    """Called from one loop; writes in `executor`."""

    def __init__(self, command_log: CommandLog, executor: Executor) -> None:
        self._log = command_log
        self._executor = executor
        self._waiting: deque[Step] = deque()
        self._ready = asyncio.Event()
        self._error: str | None = None
        self._empty = asyncio.Event()
        self._empty.set()
        self.lost = 0

    def store(self, steps: Iterable[Step]) -> None:
        """Take steps; they are written soon, in order."""
        self._waiting.extend(steps)
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self.lost += 1
        if self._waiting:
            self._empty.clear()
            self._ready.set()

    async def written(self) -> None:
        """Wait until everything stands in the database."""
        await self._empty.wait()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._ready.wait()
            batch = list(self._waiting)
            try:
                await loop.run_in_executor(self._executor, self._log.append, batch)
            except LinkError as error:
                if self._error is None:
                    log.error("commands: their steps cannot be stored for now: %s", error)
                self._error = str(error)
                await asyncio.sleep(PAUSE_S)
                continue
            except Exception:  # the top of this task: without it no step would be stored any more
                log.exception("commands: %d steps could not be stored, and are lost", len(batch))
                self.lost += len(batch)
            if self._error is not None:
                log.warning("commands: their steps are stored again, %d were lost", self.lost)
                self._error = None
            for step in batch:
                if self._waiting and self._waiting[0] is step:
                    self._waiting.popleft()
            if not self._waiting:
                self._ready.clear()
                self._empty.set()


async def recent_ids(command_log: CommandLog, executor: Executor) -> list[str]:
    """Ids of commands that an earlier run has seen, for who must not carry one out again; none where they cannot be read."""
    since_ms = time.time_ns() // 1_000_000 - REMEMBERED_MS
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, command_log.recent_ids, since_ms)
    except LinkError as error:
        log.error("commands of an earlier run are not known, so one that comes again is not recognised: %s", error)
        return []

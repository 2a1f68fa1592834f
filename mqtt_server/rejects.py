"""Counts what was not written and keeps the newest of it for the operator."""

import asyncio
import logging
from collections import Counter, deque
from concurrent.futures import Executor

from scada.errors import LinkError
from scada.payload import payload_head
from scada.values import RejectCode
from storage.event_store import RejectLog, RejectRow

log = logging.getLogger(__name__)

KEPT = 1000
FLUSH_S = 0.2
SUMMARY_S = 60.0


class Rejects:
    """The rejects of this program, written to the database a few times a second; the only writer of their tables."""

    def __init__(self, store: RejectLog, executor: Executor) -> None:
        self._store = store
        self._executor = executor
        self._rows: deque[RejectRow] = deque(maxlen=KEPT)
        self._counts: Counter[str] = Counter()
        self._since_summary: Counter[str] = Counter()
        self._ready = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._error: str | None = None

    def add(
        self,
        code: RejectCode,
        reason: str,
        *,
        time_ms: int,
        topic: str,
        payload: bytes,
        device: str | None,
        tag: str | None,
    ) -> None:
        """One message or value that was not written."""
        self._counts[code] += 1
        self._rows.append(RejectRow(time_ms, topic, payload_head(payload), code, reason, device, tag))
        self._ready.set()

    async def run(self) -> None:
        """Write until cancelled."""
        loop = asyncio.get_running_loop()
        summary_at = loop.time()
        while True:
            await self._ready.wait()
            await self.flush()
            if loop.time() >= summary_at and self._since_summary:
                summary_at = loop.time() + SUMMARY_S
                log.warning("not written: %s; see /api/v1/rejects", _summary(self._since_summary))
                self._since_summary.clear()
            await asyncio.sleep(FLUSH_S)

    async def flush(self) -> None:
        """Write what has come together; it is kept for the next time when the database fails."""
        async with self._flushing:
            await self._flush()

    def report_unwritten(self) -> None:
        """At the end: what the database could not take goes to the log, so that nothing is dropped in silence."""
        if self._counts:
            log.error("rejects: not in the database at the end: %s", _summary(self._counts))

    async def _flush(self) -> None:
        self._ready.clear()
        counts, self._counts = self._counts, Counter()
        rows, self._rows = self._rows, deque(maxlen=KEPT)
        if not counts:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._executor, self._store.append, list(rows), dict(counts)
            )
        except asyncio.CancelledError:
            self._put_back(rows, counts)
            raise
        except LinkError as error:
            if self._error is None:
                log.error("rejects: cannot be written, kept in memory: %s", error)
            self._error = str(error)
            self._put_back(rows, counts)
            self._ready.set()
            return
        self._since_summary.update(counts)
        self._error = None

    def _put_back(self, rows: deque[RejectRow], counts: Counter[str]) -> None:
        self._counts.update(counts)
        rows.extend(self._rows)
        self._rows = rows


def _summary(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {code}" for code, count in counts.most_common())

"""Puts values that wait for their device on disk, in the order things happened, many in one transaction.

A message is settled only after the transaction that holds its value; a value that reached its device is settled only after its
row is gone, or a restart would write it again over newer ones.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from links.backoff import Backoff
from mqtt_server.slots import Entry, Slot, Ticket
from scada.errors import LinkError
from scada.outputs import Write
from storage.outbox import Outbox, OutboxRow

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Batch:
    """What one transaction carries: the last word on each latest-value binding, queued entries by binding, rows to delete.

    `tickets` are settled after it, `leaving` are the bindings that lose rows in it.
    """

    latest: dict[int, Write | None] = field(default_factory=dict)
    queued: defaultdict[int, dict[Entry, None]] = field(default_factory=lambda: defaultdict(dict))
    done_rows: list[int] = field(default_factory=list)
    leaving: set[int] = field(default_factory=set)
    tickets: list[Ticket] = field(default_factory=list)


class Parking:
    """The gateway's outbox: the only writer of its table."""

    def __init__(self, outbox: Outbox, executor: Executor, settle: Callable[[Iterable[Ticket]], None]) -> None:
        self._outbox = outbox
        self._executor = executor
        self._settle = settle
        self._held: set[int] = set()
        self._batch = _Batch()
        self._underway = _Batch()
        self._ready = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._error: str | None = None

    async def load(self) -> list[OutboxRow]:
        """The rows that an earlier run left; raises LinkError."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._outbox.load)

    def restored(self, slot: Slot, entry: Entry, row: OutboxRow) -> None:
        """`entry` was made from `row`, which is still on disk."""
        entry.parked = True
        if slot.out.options.every_value:
            entry.row_id = row.id
        else:
            self._held.add(row.binding_id)

    def has(self, slot: Slot, entry: Entry) -> bool:
        """The value, or an older one that it follows, is on disk, or on its way there or from there."""
        binding_id = slot.out.binding_id
        if binding_id in self._batch.leaving or binding_id in self._underway.leaving:
            return True
        return entry.parked if slot.out.options.every_value else binding_id in self._held

    def put(self, slot: Slot, entry: Entry) -> None:
        """Keep a value until `remove`; its messages are settled once it is on disk."""
        entry.parked = True
        if slot.out.options.every_value:
            self._batch.queued[slot.out.binding_id][entry] = None
        else:
            self._held.add(slot.out.binding_id)
            self._batch.latest[slot.out.binding_id] = entry.write
        self._take_tickets(entry)

    def remove(self, slot: Slot, entry: Entry) -> None:
        """The value is settled: forget its row, then settle its messages."""
        binding_id = slot.out.binding_id
        self._batch.leaving.add(binding_id)
        if not slot.out.options.every_value:
            self._held.discard(binding_id)
            self._batch.latest[binding_id] = None
        elif entry in self._batch.queued.get(binding_id, ()):
            del self._batch.queued[binding_id][entry]
        elif entry.row_id is not None:
            self._batch.done_rows.append(entry.row_id)
        else:
            entry.parked = False  # its row is being written right now; `_commit` deletes it afterwards
        self._take_tickets(entry)

    def clear(self, binding_id: int) -> None:
        """Forget all rows of a binding, those too that are still to be written."""
        self._held.discard(binding_id)
        self._batch.latest[binding_id] = None
        self._batch.queued.pop(binding_id, None)
        self._batch.leaving.add(binding_id)
        self._wake()

    async def drained(self) -> None:
        """Wait until everything asked for is on disk."""
        await self._quiet.wait()

    async def run(self) -> None:
        """Write batches until cancelled; a database that fails is tried again, nothing is settled meanwhile."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            batch = self._underway = self._batch
            self._batch = _Batch()
            row_ids = await self._commit(batch)
            self._underway = _Batch()
            entries = [entry for queued in batch.queued.values() for entry in queued]
            for entry, row_id in zip(entries, row_ids, strict=True):
                entry.row_id = row_id
                if not entry.parked and row_id is not None:
                    self._batch.done_rows.append(row_id)
                    self._wake()
            self._settle(batch.tickets)
            if not self._ready.is_set():
                self._quiet.set()

    async def _commit(self, batch: _Batch) -> list[int | None]:
        """Write one batch, however often it takes. Returns the rows' ids of its queued entries."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(first_s=0.1, cap_s=5.0)
        while True:
            try:
                row_ids = await loop.run_in_executor(self._executor, self._write, batch)
            except LinkError as error:
                if self._error is None:
                    log.error("outbox: cannot be written, messages stay unacknowledged: %s", error)
                self._error = str(error)
                await asyncio.sleep(backoff.next_delay_s())
                continue
            if self._error is not None:
                log.warning("outbox: can be written again")
                self._error = None
            return row_ids

    def _wake(self) -> None:
        self._ready.set()
        self._quiet.clear()

    def _write(self, batch: _Batch) -> list[int | None]:
        """In the worker thread."""
        return self._outbox.apply(
            done=batch.done_rows,
            cleared=[binding_id for binding_id, write in batch.latest.items() if write is None],
            latest=[_row(binding_id, write) for binding_id, write in batch.latest.items() if write is not None],
            queued=[_row(binding_id, entry.write) for binding_id, queued in batch.queued.items() for entry in queued],
        )

    def _take_tickets(self, entry: Entry) -> None:
        self._batch.tickets += entry.take_tickets()
        self._wake()


def _row(binding_id: int, write: Write) -> OutboxRow:
    return OutboxRow(None, binding_id, write.value, write.time_ms)

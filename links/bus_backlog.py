"""What an owner could not hand to the broker yet: batches in order, in memory as far as they are next, the others on disk.

All bookkeeping happens in the loop, so counts are exact; the store's calls run one after the other in a thread of their own.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from links.bus_losses import Losses
from scada.bus_batches import Batch
from scada.errors import ConfigError, LinkError

log = logging.getLogger(__name__)

IN_MEMORY_SAMPLES = 100_000
"""Most samples kept in memory: all there are without a disk, the next ones with it."""
UNWRITTEN_SAMPLES = 300_000
"""Most samples that wait for the disk: seconds of the fastest program's."""
LOW_SAMPLES = IN_MEMORY_SAMPLES // 2
"""Below so many in memory more are read from the disk."""
READ_BATCHES = 500
RETRY_S = 30.0
CLOSE_S = 5.0

R = TypeVar("R")


class BufferStore(Protocol):
    """Batches on disk, by number. Called from one thread; every method raises LinkError when the disk fails."""

    max_samples: int
    """Beyond so many the oldest are dropped."""

    def open(self) -> tuple[int, int]:
        """Called once, before all others: how many samples an earlier run left, their highest number (0: none)."""
        ...

    def apply(self, added: Sequence[Batch], gone: Sequence[tuple[int, int]]) -> None:
        """One transaction: keep `added`, then forget the numbers in `gone` (first and last of each range)."""
        ...

    def read(self, after: int, count: int) -> list[Batch]:
        """The next `count` batches behind the number `after`, in order."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Backlog:
    """A queue of batches. `add` at its end, `take` from its front, `put_back` what was taken and not delivered.

    Beyond the store's `max_samples` the oldest are dropped, and counted unless the broker has acknowledged them. `on_ready` is
    called when batches can be taken that could not before, `on_kept` with the numbers of batches that are on disk, or dropped.
    Without a store, or when it cannot be opened, all are kept in memory, at most IN_MEMORY_SAMPLES.
    """

    def __init__(
        self,
        store: BufferStore | None,
        on_ready: Callable[[], None],
        on_kept: Callable[[Iterable[int]], None] = lambda _: None,
    ) -> None:
        self._store: BufferStore | None = None
        self._wanted_store = store
        self._max_samples = IN_MEMORY_SAMPLES
        self._on_ready = on_ready
        self._on_kept = on_kept
        self._next: deque[Batch] = deque()  # the oldest, without a gap
        self._next_samples = 0
        self._loaded = 0  # all batches up to this number are, or were, in `_next`
        self._unwritten: deque[Batch] = deque()  # not on disk yet; those up to `_loaded` are in `_next` as well
        self._unwritten_samples = 0
        self._gone: list[tuple[int, int]] = []  # to be deleted on disk
        self._executor = ThreadPoolExecutor(1, "bus buffer")
        self._job: asyncio.Task[None] | None = None
        self._read_last = False  # reading and writing take turns
        self._write_again_at = 0.0
        self.newest = time.time_ns() // 1000  # numbers of a run are above those of all earlier ones
        self.samples = 0
        self.dropped = 0
        self._acknowledged: set[int] = set()
        self.acknowledged = 0
        """Samples that were not sent a second time, because there was no room to keep them for that."""
        self._losses = Losses()
        self.error: str | None = None

    async def open(self) -> None:
        """Take over what an earlier run left behind; `add` may have been called before."""
        store = self._wanted_store
        if store is None:
            return
        try:
            samples, last_number = await self._call(store.open)
        except (LinkError, ConfigError) as error:
            self._fails(f"{error}; samples are kept in memory only")
            return
        self._store = store
        self._max_samples = store.max_samples
        self.samples += samples
        self.newest = max(self.newest, last_number)
        if samples:
            log.info("bus buffer: %d samples of an earlier run are still to be sent", samples)
            # What came meanwhile stands behind them, and is read back in its turn.
            self._unwritten, self._unwritten_samples = self._next, self._next_samples
            self._next, self._next_samples, self._loaded = deque(), 0, 0
        else:
            self._unwritten, self._unwritten_samples = self._next.copy(), self._next_samples
        self._bound()
        self.work()

    async def close(self) -> None:
        """Put on disk what is in memory, bounded in time."""
        store = self._store
        if store is not None:
            try:
                async with asyncio.timeout(CLOSE_S):
                    while self.error is None and (self._job or self._unwritten or self._gone):
                        self.work()
                        if self._job is not None:
                            await asyncio.wait([self._job])
            except TimeoutError:
                self._fails(f"the disk did not take everything within {CLOSE_S:g} s")
            self._executor.submit(store.close)
        self._losses.end()
        lost = self._unwritten_samples if store is not None else self.samples
        if lost:
            log.error("bus buffer: %d samples were in memory only and are lost", lost)
        self._executor.shutdown(wait=False)

    def add(self, batch: Batch) -> None:
        """A batch that cannot be sent now; its number is above all others."""
        contiguous = self.samples == self._next_samples
        self.newest = batch.number
        self.samples += batch.size
        if self._store is None or (contiguous and self._next_samples < IN_MEMORY_SAMPLES):
            self._append_next(batch)
        if self._store is not None:
            self._unwritten.append(batch)
            self._unwritten_samples += batch.size
        self._bound()
        self.work()

    def put_back(self, batches: Sequence[Batch], acknowledged: Collection[int] = ()) -> None:
        """Batches that were taken, or never were in here, and come before all that wait; in order.

        `acknowledged`: numbers of those that the broker has, unless its end made it forget them.
        """
        self._acknowledged.update(acknowledged)
        if batches and not self.samples:
            self._loaded = max(self._loaded, batches[-1].number)
        for batch in reversed(batches):
            self._next.appendleft(batch)
            self._next_samples += batch.size
            self.samples += batch.size
            if self._store is not None:
                self._unwritten.appendleft(batch)
                self._unwritten_samples += batch.size
            self.newest = max(self.newest, batch.number)
        self._bound()
        self.work()

    def take(self) -> Batch | None:
        """The oldest batch; None while there is none in memory. It stays on disk until it was `delivered`."""
        if not self._next:
            self.work()
            return None
        batch = self._next.popleft()
        self._acknowledged.discard(batch.number)
        self._next_samples -= batch.size
        self.samples -= batch.size
        if self._next_samples < LOW_SAMPLES < self.samples:
            self.work()
        if not self.samples:
            self._losses.end()
        return batch

    def delivered(self, numbers: Iterable[int]) -> None:
        """Batches that will never be put back."""
        if self._store is not None:
            for number in numbers:
                self._forget(number, number)
            self.work()

    def work(self) -> None:
        """Have the next thing done that the disk has to do; to be called now and then, for what failed is tried again."""
        if self._store is None or self._job is not None:
            return
        loop = asyncio.get_running_loop()
        may_write = bool(self._unwritten or self._gone) and loop.time() >= self._write_again_at
        may_read = self._loaded < self.newest and self.samples > self._next_samples and self._next_samples < LOW_SAMPLES
        if may_read and not (may_write and self._read_last):
            self._job = loop.create_task(self._read(self._store), name="bus buffer read")
        elif may_write:
            self._job = loop.create_task(self._write(self._store), name="bus buffer write")
        else:
            return
        self._read_last = may_read and not (may_write and self._read_last)
        self._job.add_done_callback(self._finished)

    def __bool__(self) -> bool:
        return self.samples > 0

    def _append_next(self, batch: Batch) -> None:
        self._next.append(batch)
        self._next_samples += batch.size
        self._loaded = batch.number

    def _bound(self) -> None:
        """Drop the oldest beyond the limit; those that are on disk only as soon as they were read."""
        while self.samples > self._max_samples and self._next:
            batch = self._next.popleft()
            self._next_samples -= batch.size
            self._drop(batch)
        while self._unwritten_samples > UNWRITTEN_SAMPLES:  # the disk fails or hangs
            batch = self._unwritten.popleft()
            self._unwritten_samples -= batch.size
            if batch.number > self._loaded:
                self._drop(batch)
        self._losses.tell()

    def _drop(self, batch: Batch) -> None:
        self.samples -= batch.size
        if batch.number in self._acknowledged:
            self._acknowledged.discard(batch.number)
            self.acknowledged += batch.size
        else:
            self._losses.add(batch.size)
            self.dropped += batch.size
        self._forget(batch.number, batch.number)
        self._on_kept([batch.number])

    def _forget(self, first: int, last: int) -> None:
        if self._store is None:
            return
        if self._gone and self._gone[-1][1] + 1 == first:
            self._gone[-1] = (self._gone[-1][0], last)
        else:
            self._gone.append((first, last))

    async def _write(self, store: BufferStore) -> None:
        added, self._unwritten = self._unwritten, deque()
        count, self._unwritten_samples = self._unwritten_samples, 0
        gone, self._gone = self._gone, []
        try:
            await self._call(lambda: store.apply(added, gone))
        except LinkError as error:
            self._fails(str(error))
            self._write_again_at = asyncio.get_running_loop().time() + RETRY_S
            added.extend(self._unwritten)
            self._unwritten = added
            self._unwritten_samples += count
            self._gone = [*gone, *self._gone]
            self._bound()
            return
        self._on_kept([batch.number for batch in added])
        if self.error is not None:
            log.info("bus buffer: the disk takes samples again")
            self.error = None

    async def _read(self, store: BufferStore) -> None:
        try:
            found = await self._call(lambda: store.read(self._loaded, READ_BATCHES))
        except LinkError as error:
            self._fails(str(error))
            found = []
            self._lose_unread()
        for batch in found:
            self._append_next(batch)
        if not found:
            for batch in self._unwritten:
                if batch.number > self._loaded:
                    self._append_next(batch)
        self._bound()
        self._on_ready()

    def _lose_unread(self) -> None:
        """The disk cannot be read: what is there and nowhere else is lost."""
        waiting = [batch for batch in self._unwritten if batch.number > self._loaded]
        lost = self.samples - self._next_samples - sum(batch.size for batch in waiting)
        last = (waiting[0].number if waiting else self.newest + 1) - 1
        self._forget(self._loaded + 1, last)
        self._loaded = last
        self.samples -= lost
        self.dropped += lost
        log.error("bus buffer: %d samples on disk cannot be read and are lost", lost)

    def _fails(self, error: str) -> None:
        if self.error != error:
            log.error("bus buffer: %s", error)
        self.error = error

    def _finished(self, job: asyncio.Task[None]) -> None:
        self._job = None
        if not job.cancelled() and job.exception() is not None:
            log.error("bus buffer: a fault of ours", exc_info=job.exception())
            self._write_again_at = asyncio.get_running_loop().time() + RETRY_S
            return
        self.work()

    async def _call(self, call: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

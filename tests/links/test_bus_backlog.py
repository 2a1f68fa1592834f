"""The backlog: order, exact counts, and a disk that fails; the store here is one in memory that can be told to fail."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from links import bus_backlog
from links.bus_backlog import Backlog
from scada.bus_batches import Batch
from scada.errors import LinkError
from storage.bus_buffer import BusBuffer


class Store:
    """Keeps batches as a disk would. `failing`: every call raises."""

    def __init__(self, max_samples: int = 1_000_000) -> None:
        self.max_samples = max_samples
        self.kept: dict[int, Batch] = {}
        self.failing = self.unreadable = False
        self.closed = False

    def open(self) -> tuple[int, int]:
        self._check()
        return sum(batch.size for batch in self.kept.values()), max(self.kept, default=0)

    def apply(self, added: Sequence[Batch], gone: Sequence[tuple[int, int]]) -> None:
        self._check()
        self.kept |= {batch.number: batch for batch in added}
        for first, last in gone:
            for number in [each for each in self.kept if first <= each <= last]:
                del self.kept[number]

    def read(self, after: int, count: int) -> list[Batch]:
        self._check()
        if self.unreadable:
            raise LinkError("database: the disk reports an error")
        return [self.kept[number] for number in sorted(self.kept) if number > after][:count]

    def close(self) -> None:
        self.closed = True

    def _check(self) -> None:
        if self.failing:
            raise LinkError("database: the disk is full")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_backlog, "IN_MEMORY_SAMPLES", 20)
    monkeypatch.setattr(bus_backlog, "UNWRITTEN_SAMPLES", 600)
    monkeypatch.setattr(bus_backlog, "LOW_SAMPLES", 10)
    monkeypatch.setattr(bus_backlog, "READ_BATCHES", 3)
    monkeypatch.setattr(bus_backlog, "RETRY_S", 0.05)


def batches(first: int, last: int, size: int = 1) -> list[Batch]:
    return [Batch(number, "d", size, b"") for number in range(first, last + 1)]


async def settled(backlog: Backlog) -> None:
    async with asyncio.timeout(5):
        while backlog._job is not None:
            await asyncio.wait([backlog._job])
            await asyncio.sleep(0)


async def drain(backlog: Backlog) -> list[int]:
    """Takes and delivers everything."""
    numbers = []
    async with asyncio.timeout(5):
        while backlog:
            batch = backlog.take()
            if batch is None:
                await asyncio.sleep(0.001)
                continue
            numbers.append(batch.number)
            backlog.delivered([batch.number])
    await settled(backlog)
    return numbers


async def make(store: Store | BusBuffer | None) -> Backlog:
    backlog = Backlog(store, lambda: None)
    await backlog.open()
    backlog.newest = 0 if store is None or not isinstance(store, Store) or not store.kept else max(store.kept)
    return backlog


async def test_far_more_than_memory_holds_comes_back_in_order_and_leaves_the_disk_empty() -> None:
    store = Store()
    backlog = await make(store)
    for batch in batches(1, 300):
        backlog.add(batch)
        if batch.number % 7 == 0:
            await asyncio.sleep(0)
    assert backlog.samples == 300
    assert await drain(backlog) == list(range(1, 301))
    assert not store.kept
    assert backlog.dropped == 0


async def test_what_comes_while_it_drains_stands_behind() -> None:
    backlog = await make(Store())
    for batch in batches(1, 100):
        backlog.add(batch)
    numbers, new = [], iter(batches(101, 200))
    async with asyncio.timeout(5):
        while backlog:
            for batch in [next(new, None)]:
                if batch is not None:
                    backlog.add(batch)
            taken = backlog.take()
            if taken is not None:
                numbers.append(taken.number)
            await asyncio.sleep(0)
    assert numbers == list(range(1, 201))


async def test_what_comes_back_from_a_lost_connection_is_first_again() -> None:
    store = Store()
    backlog = await make(store)
    for batch in batches(10, 50):
        backlog.add(batch)
    taken = [backlog.take() for _ in range(5)]
    backlog.put_back([*batches(5, 6), *(each for each in taken if each)])
    await settled(backlog)
    assert set(store.kept) == {5, 6, *range(10, 51)}, "all of it is on disk"
    assert await drain(backlog) == [5, 6, *range(10, 51)]
    assert not store.kept


async def test_overflow_drops_the_oldest_and_counts_exactly() -> None:
    store = Store(max_samples=50)
    backlog = await make(store)
    for batch in batches(1, 500):
        backlog.add(batch)
        if batch.number % 10 == 0:
            await settled(backlog)
    async with asyncio.timeout(5):
        while backlog.samples > 50:
            backlog.work()
            await asyncio.sleep(0.001)
    await settled(backlog)
    assert (backlog.samples, backlog.dropped) == (50, 450)
    assert sorted(store.kept) == list(range(451, 501))
    assert await drain(backlog) == list(range(451, 501))


async def test_what_the_broker_has_acknowledged_is_not_counted_as_lost() -> None:
    """The last second before an outage is kept to be sent again; dropped for want of room it had arrived all the same."""
    backlog = Backlog(Store(max_samples=50), lambda: None)
    await backlog.open()
    backlog.put_back(batches(1, 20), set(range(1, 16)))
    for batch in batches(21, 60):
        backlog.add(batch)
    await settled(backlog)
    assert (backlog.samples, backlog.dropped, backlog.acknowledged) == (50, 0, 10)
    for batch in batches(61, 70):
        backlog.add(batch)
    await settled(backlog)
    assert (backlog.samples, backlog.dropped, backlog.acknowledged) == (50, 5, 15)
    await backlog.close()


async def test_overflow_in_memory() -> None:
    backlog = await make(None)
    for batch in batches(1, 30):
        backlog.add(batch)
    assert (backlog.samples, backlog.dropped) == (20, 10)
    assert await drain(backlog) == list(range(11, 31))


async def test_what_is_dropped_is_told_once_a_minute_and_at_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> list[str]:
        lines = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
        caplog.clear()
        return lines

    backlog = await make(None)
    for batch in batches(1, 20):
        backlog.add(batch)
    assert told() == []
    for batch in batches(21, 40):
        backlog.add(batch)
    assert told() == ["bus buffer: full: the oldest samples are dropped, 1 so far"]
    with monkeypatch.context() as later:
        later.setattr("links.bus_losses.time.monotonic", lambda: time.monotonic_ns() / 1e9 + 61)
        for batch in batches(41, 60):
            backlog.add(batch)
    assert told() == ["bus buffer: full: the oldest samples are dropped, 21 so far"]
    await drain(backlog)
    assert told() == ["bus buffer: 40 samples were dropped, the oldest ones, since it was full"]
    assert backlog.dropped == 40
    for batch in batches(61, 90):
        backlog.add(batch)
    await backlog.close()
    assert "bus buffer: 10 samples were dropped, the oldest ones, since it was full" in told()


async def test_a_store_that_does_not_open_leaves_memory(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.failing = True
    backlog = Backlog(store, lambda: None)
    backlog.add(batches(1, 1)[0])
    await backlog.open()
    for batch in batches(2, 10):
        backlog.add(batch)
    assert backlog.error is not None
    assert caplog.text.count("kept in memory only") == 1
    assert await drain(backlog) == list(range(1, 11))


async def test_a_full_disk_holds_what_memory_can_until_there_is_room(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    backlog = await make(store)
    for batch in batches(1, 40):
        backlog.add(batch)
    await settled(backlog)
    store.failing = True
    for batch in batches(41, 55):
        backlog.add(batch)
    await settled(backlog)
    assert backlog.error == "database: the disk is full"
    store.failing = False
    await asyncio.sleep(0.1)
    backlog.work()
    await settled(backlog)
    assert backlog.error is None
    assert caplog.text.count("the disk is full") == 1
    assert await drain(backlog) == list(range(1, 56))
    assert backlog.dropped == 0


async def test_a_disk_that_stays_full_costs_only_what_memory_does_not_hold() -> None:
    store = Store()
    backlog = await make(store)
    for batch in batches(1, 100):
        backlog.add(batch)
    await settled(backlog)
    store.failing = True
    for batch in batches(101, 1000):
        backlog.add(batch)
        await asyncio.sleep(0)
    await settled(backlog)
    assert (backlog.samples, backlog.dropped) == (700, 300)
    store.failing = False
    await asyncio.sleep(0.1)
    assert await drain(backlog) == [*range(1, 101), *range(401, 1001)]
    assert not store.kept


async def test_what_cannot_be_read_is_counted_and_the_rest_delivered() -> None:
    store = Store()
    backlog = await make(store)
    for batch in batches(1, 60):
        backlog.add(batch)
    await settled(backlog)
    store.unreadable = True
    numbers = await drain(backlog)
    assert numbers == list(range(1, 21)), "what was in memory"
    assert backlog.dropped == 40
    store.unreadable = False
    backlog.add(Batch(61, "d", 1, b""))
    assert await drain(backlog) == [61]


async def test_the_next_run_sends_what_the_last_one_left_first(tmp_path: Path) -> None:
    path = tmp_path / "bus.sqlite"
    backlog = await make(BusBuffer(path))
    for batch in batches(1, 30, size=2):
        backlog.add(batch)
    await backlog.close()
    backlog = Backlog(BusBuffer(path), lambda: None)
    backlog.newest = 30
    backlog.add(batches(31, 31)[0])
    await backlog.open()
    assert backlog.samples == 61
    assert await drain(backlog) == list(range(1, 32))
    await backlog.close()


async def test_close_puts_everything_on_disk() -> None:
    store = Store()
    backlog = await make(store)
    for batch in batches(1, 100):
        backlog.add(batch)
    await backlog.close()
    assert sorted(store.kept) == list(range(1, 101))
    for _ in range(100):
        if store.closed:
            break
        await asyncio.sleep(0.01)
    assert store.closed

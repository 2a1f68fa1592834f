"""What stands on disk, and when its messages are settled, while the disk is slow."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mqtt_server.parking import Parking
from mqtt_server.slots import Slot, Ticket
from scada.outputs import Write
from storage.outbox import OutboxRow
from tests.support.bindings import out_plan


class SlowOutbox:
    """An outbox in memory whose transactions wait for `open`."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.rows: dict[int, OutboxRow] = {}
        self._next = 0

    def apply(self, *, done: Any, cleared: Any, latest: Any, queued: Any) -> list[int | None]:
        assert self.open.wait(5)
        gone = {*cleared, *(row.binding_id for row in latest)}
        self.rows = {key: row for key, row in self.rows.items() if key not in done and row.binding_id not in gone}
        ids: list[int | None] = []
        for row in (*latest, *queued):
            self._next += 1
            self.rows[self._next] = row
            ids.append(self._next)
        return ids[len(latest) :]

    def values(self) -> list[Any]:
        return [row.value for row in self.rows.values()]


class Bench:
    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.outbox = SlowOutbox()
        self.settled: list[Ticket] = []
        self.parking = Parking(self.outbox, executor, self._settle)  # type: ignore[arg-type]

    def _settle(self, tickets: Iterable[Ticket]) -> None:
        self.settled += tickets

    def offer(self, slot: Slot, value: int) -> Ticket:
        ticket = Ticket(None)
        slot.offer(Write(slot.out, value.to_bytes(2, "big"), value, 0), ticket)
        return ticket


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    with ThreadPoolExecutor(1) as executor:
        made = Bench(executor)
        task = asyncio.create_task(made.parking.run())
        yield made
        made.outbox.open.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_rows_not_yet_written_go_with_their_binding(bench: Bench) -> None:
    """They stayed behind without an owner, and came back at the next start, over newer values."""
    slot = Slot(out_plan(every_value=True))
    bench.offer(slot, 1)
    bench.parking.put(slot, slot.queue[0])
    bench.parking.clear(slot.out.binding_id)
    await bench.parking.drained()
    assert bench.outbox.values() == []


@pytest.mark.parametrize("every_value", [False, True])
async def test_a_newer_value_is_settled_only_after_the_older_one_left_the_disk(bench: Bench, every_value: bool) -> None:
    """Acknowledged before, a crash brought the older one back and nobody sent the newer one again."""
    slot = Slot(out_plan(every_value=every_value))
    bench.offer(slot, 1)
    bench.parking.put(slot, slot.queue[0])
    await bench.parking.drained()
    assert bench.outbox.values() == [1]
    bench.outbox.open.clear()
    first = slot.take()
    assert first is not None
    slot.confirmed(0.0)
    bench.parking.remove(slot, first)
    await asyncio.sleep(0.05)
    newer = bench.offer(slot, 2)
    second = slot.take()
    assert second is not None
    slot.confirmed(0.0)
    assert bench.parking.has(slot, second), "its message must wait for the disk"
    bench.parking.remove(slot, second)
    assert newer not in bench.settled
    bench.outbox.open.set()
    await bench.parking.drained()
    assert newer in bench.settled
    assert bench.outbox.values() == []

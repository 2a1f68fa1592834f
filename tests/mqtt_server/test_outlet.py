"""An outlet whose device is not there: faults of ours, full queues, what is settled."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace

import pytest

from mqtt_server import slots
from mqtt_server.outlet import Outlet
from mqtt_server.slots import Entry, Slot, Ticket
from scada.errors import DeviceRefused, LinkError, ProtocolError, Side
from scada.modbus.writes import WriteRequest
from scada.outputs import OutPlan, Write
from scada.protocols.modbus import Failsafe
from scada.values import BadValue, RejectCode, Value
from tests.support.bindings import out_plan


class NoParking:
    """A disk that takes nothing: every value stays with its outlet."""

    def put(self, slot: Slot, entry: Entry) -> None:
        return

    def has(self, slot: Slot, entry: Entry) -> bool:
        return False


class Writer:
    """Takes the driver's place: fails once with `error`, then takes every value."""

    def __init__(self, error: Exception | None = None) -> None:
        self.connected = True
        self.error = error
        self.written: list[bytes] = []

    async def write(self, request: WriteRequest) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.written.append(request.data)

    async def connect(self) -> None:
        self.connected = True

    async def close(self) -> None:
        return


class Bench:
    """An outlet with one slot, and what it said."""

    def __init__(self, out: OutPlan, writer: Writer) -> None:
        self.settled: list[Ticket] = []
        self.reports: list[RejectCode] = []
        self.sources: list[str] = []
        self.outlet = Outlet(out.endpoint, NoParking(), self._settle, self._report)  # type: ignore[arg-type]
        self.outlet._writer = writer  # type: ignore[assignment]
        self.slot = self.outlet.add(out)

    def _settle(self, tickets: Iterable[Ticket]) -> None:
        self.settled += tickets

    def _report(self, code: RejectCode, reason: str, out: OutPlan, value: Value, source: Ticket | None) -> None:
        self.reports.append(code)
        self.sources.append(f"{reason} / {value} / {source and source.topic}")

    def offer(self, value: int) -> Ticket:
        ticket = Ticket(None, f"topic {value}")
        self.outlet.offer(self.slot, Write(self.slot.out, value.to_bytes(2, "big"), value, 0), ticket)
        return ticket


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(8):
        while not condition():  # noqa: ASYNC110 - an outlet has no event for it
            await asyncio.sleep(0.01)


@pytest.fixture
async def running() -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_fault_of_ours_is_logged_and_the_value_tried_again(
    running: list[asyncio.Task[None]], caplog: pytest.LogCaptureFixture
) -> None:
    """The task died in silence: the endpoint was never written to again."""
    writer = Writer(RuntimeError("a bug"))
    bench = Bench(out_plan(), writer)
    running.append(asyncio.create_task(bench.outlet.run()))
    ticket = bench.offer(7)
    async with asyncio.timeout(5):
        await bench.outlet.quiet.wait()
    assert writer.written == [b"\0\7"]
    assert bench.settled == [ticket]
    assert "a bug" in caplog.text


async def test_what_no_request_can_carry_is_rejected_and_not_tried_for_ever(running: list[asyncio.Task[None]]) -> None:
    bench = Bench(out_plan(), Writer(ProtocolError("unit 0 of a serial line", Side.LOCAL)))
    running.append(asyncio.create_task(bench.outlet.run()))
    ticket = bench.offer(7)
    async with asyncio.timeout(1):
        await bench.outlet.quiet.wait()
    assert bench.reports == [RejectCode.BAD_CONFIG]
    assert bench.settled == [ticket]


async def test_a_full_queue_settles_what_a_fail_safe_value_pushes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message was neither acknowledged nor reported."""
    monkeypatch.setattr(slots, "MAX_QUEUE", 2)
    bench = Bench(out_plan(every_value=True, failsafe=Failsafe(value=9, after_s=0.1)), Writer())
    tickets = [bench.offer(value) for value in (1, 2)]
    await asyncio.sleep(0.3)
    assert bench.settled == tickets[:1]
    assert bench.reports == [RejectCode.OVERFLOW]
    assert bench.sources[0].endswith("/ 1 / topic 1")
    assert [entry.write.value for entry in bench.slot.entries()] == [2, 9]


async def test_a_fail_safe_value_that_cannot_be_written_is_listed() -> None:
    """It stood in the log only. The configuration refuses such a value; one that was stored before may be there."""

    def refuse(_: Value) -> bytes:
        raise BadValue(RejectCode.OUT_OF_RANGE, "70000 does not fit")

    out = replace(out_plan(failsafe=Failsafe(value=70000, after_s=0.1)), encode=refuse)
    bench = Bench(out, Writer())
    await asyncio.sleep(0.3)
    assert bench.reports == [RejectCode.OUT_OF_RANGE]
    assert "fail-safe value cannot be written: 70000 does not fit / 70000 / None" in bench.sources[0]
    assert list(bench.slot.entries()) == []


@pytest.mark.parametrize("code", [11, 10, 6, 5, 4, None])
@pytest.mark.parametrize("option", [{"on_change": True}, {"deadband": 0.5}])
async def test_after_an_attempt_that_may_have_succeeded_the_value_before_is_written_again(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch, code: int | None, option: dict[str, float]
) -> None:
    """It counted as unchanged: acknowledged, never written, and the register kept what a late answer had hidden."""
    monkeypatch.setattr(slots, "REFUSED_PAUSE_S", 0.2)
    error = LinkError("no reply") if code is None else DeviceRefused(f"exception {code}", code)
    writer = Writer()
    bench = Bench(out_plan(**option), writer)
    running.append(asyncio.create_task(bench.outlet.run()))
    bench.offer(1)
    await eventually(lambda: writer.written == [b"\0\1"])
    writer.error = error
    bench.offer(2)
    await eventually(lambda: writer.error is None)
    await asyncio.sleep(0.3)
    bench.offer(1)
    await eventually(lambda: writer.written[1:] and writer.written[-1] == b"\0\1")
    assert not list(bench.slot.entries())

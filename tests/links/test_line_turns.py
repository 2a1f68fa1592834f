"""Turns on a serial line: one at a time, in turn, and a note about what may still be on its way."""

import asyncio
import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from links.line_turns import EVERY_UNIT, LineTurns, Note, ahead, silence_s
from scada.errors import LinkError
from tests.support.processes import Process, clean_environment

SILENCE_S = 0.00175
TIMES = st.integers(0, (1 << 24) - 1)
UNITS = st.integers(0, 255)


@pytest.fixture
def path() -> Iterator[str]:
    """A terminal that nobody has open."""
    inner, outer = os.openpty()
    try:
        yield os.ttyname(outer)
    finally:
        os.close(inner)
        os.close(outer)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@given(UNITS, TIMES, UNITS, TIMES)
def test_a_note_comes_back_as_it_was_written(asked: int, until: int, late: int, late_until: int) -> None:
    note = Note(asked, until, late, late_until)
    assert Note.unpack(note.pack()) == note


@pytest.mark.parametrize("now", [100, (1 << 24) - 10])
def test_a_time_is_ahead_for_a_while_and_then_over(now: int) -> None:
    def at(seconds: float) -> int:
        return (now + round(seconds * 4000)) % (1 << 24) or 1

    assert abs(ahead(at(60), now) - 240_000) <= 1
    assert ahead(at(1), at(2)) == 0
    assert ahead(at(1), at(1)) == 0
    assert ahead(at(1), at(3600)) == 0
    assert ahead(0, now) == 0


def test_what_the_next_user_makes_of_a_note() -> None:
    fresh = Note()
    assert fresh.settled(100) == fresh
    assert fresh.wait(1, 100) == 0
    killed = Note(asked=7, asked_until=900)
    assert killed.settled(100) == Note(EVERY_UNIT, 0, 7, 900)
    assert (killed.settled(100).wait(7, 100), killed.settled(100).wait(8, 100)) == (800, 0)
    assert killed.settled(900).wait(7, 900) == 0
    late = Note(asked=7, asked_until=900).failed(110, 100)
    assert late == Note(EVERY_UNIT, 110, 7, 900)
    assert late.settled(899) == late
    assert late.settled(900) == Note(EVERY_UNIT, 110)


def test_there_is_room_for_one_late_unit_so_with_two_every_one_is_late() -> None:
    first = Note(asked=7, asked_until=900).failed(110, 100)
    again = Note(7, 700, first.late, first.late_until).failed(210, 200)
    assert (again.late, again.late_until) == (7, 900)
    second = Note(8, 1000, first.late, first.late_until).failed(210, 200)
    assert (second.late, second.late_until) == (EVERY_UNIT, 1000)
    assert {second.wait(unit, 200) for unit in (7, 8, 9)} == {800}


@pytest.mark.parametrize(("baudrate", "milliseconds"), [(9600, 3.65), (19_200, 1.82), (38_400, 1.75), (115_200, 1.75)])
def test_the_silence_between_two_frames(baudrate: int, milliseconds: float) -> None:
    assert silence_s(baudrate, 10) * 1000 == pytest.approx(milliseconds, abs=0.005)


async def test_one_at_a_time_and_in_turn(path: str) -> None:
    one, other = LineTurns(path, SILENCE_S), LineTurns(path, SILENCE_S)
    order: list[str] = []

    async def ask(turns: LineTurns, name: str) -> None:
        for _ in range(20):
            await turns.take(1, 5)
            turns.asks(1, 1)
            order.append(name)
            await asyncio.sleep(0.005)
            order.append(name)
            turns.answered()

    await asyncio.gather(ask(one, "one"), ask(other, "other"))
    assert order == ["one", "one", "other", "other"] * 20
    one.close()
    other.close()


async def test_a_line_that_is_not_left_is_given_up_and_taken_when_it_is_free(path: str) -> None:
    one, other = LineTurns(path, SILENCE_S), LineTurns(path, SILENCE_S)
    await one.take(1, 1)
    with pytest.raises(LinkError, match=r"another program has held the line for 0\.05 s"):
        await other.take(1, 0.05)
    one.let_go()
    await other.take(1, 0.05)
    one.close()
    other.close()


async def test_who_is_cancelled_or_closed_while_waiting_holds_nothing(path: str) -> None:
    before = descriptors()
    one, other, third = (LineTurns(path, SILENCE_S) for _ in range(3))
    await one.take(1, 1)
    cancelled, closed = asyncio.create_task(other.take(1, 60)), asyncio.create_task(third.take(1, 60))
    await asyncio.sleep(0.02)
    cancelled.cancel()
    third.close()
    with contextlib.suppress(asyncio.CancelledError):
        await cancelled
    with pytest.raises(ConnectionError):
        await closed
    one.answered()
    for turns in (other, one, other):
        await turns.take(1, 1)
        turns.let_go()
    one.close()
    other.close()
    assert descriptors() == before


async def test_who_is_cancelled_while_the_line_falls_silent_holds_nothing(path: str) -> None:
    one, other = LineTurns(path, 0.3), LineTurns(path, 0.3)
    await one.take(1, 1)
    one.asks(1, 1)
    one.answered()
    cancelled = asyncio.create_task(other.take(1, 1))
    await asyncio.sleep(0.05)
    cancelled.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await cancelled
    await one.take(1, 0.1)
    one.close()
    other.close()


async def test_a_unit_that_failed_one_user_is_not_asked_by_another_until_it_cannot_answer_any_more(path: str) -> None:
    one, other = LineTurns(path, SILENCE_S), LineTurns(path, SILENCE_S)
    await one.take(1, 1)
    asked_s = time.monotonic()
    one.asks(1, 0.3)
    one.failed()
    one.close()  # it keeps the note alive meanwhile
    await other.take(2, 5)
    other.asks(2, 1)
    other.answered()
    with pytest.raises(LinkError, match="its answer to another program is late"):
        await other.take(1, 0.1)
    await other.take(1, 5)
    assert time.monotonic() - asked_s >= 0.299
    other.close()


async def test_what_is_closed_while_a_reply_is_late_leaves_nothing_open(path: str) -> None:
    before = descriptors()
    turns = LineTurns(path, SILENCE_S)
    await turns.take(1, 1)
    turns.asks(1, 0.1)
    turns.failed()
    turns.close()
    assert descriptors() == before + 1
    deadline = time.monotonic() + 5
    while descriptors() > before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_nor_does_it_when_the_loop_ends_before(path: str) -> None:
    async def fail() -> None:
        turns = LineTurns(path, SILENCE_S)
        await turns.take(EVERY_UNIT, 1)
        turns.asks(1, 60)
        turns.failed()
        turns.close()

    before = descriptors()
    asyncio.run(fail())
    assert descriptors() == before


HOLDER = """
import asyncio, sys
from links.line_turns import LineTurns
async def hold():
    turns = LineTurns(sys.argv[1], 0.00175)
    await turns.take(3, 5)
    turns.asks(3, 0.5)
    print("asking", flush=True)
    await asyncio.sleep(60)
asyncio.run(hold())
"""


async def test_a_program_that_is_killed_while_it_asks_leaves_the_line_and_a_warning(path: str) -> None:
    turns = LineTurns(path, SILENCE_S)  # the note is the line's, as long as anybody has it open
    process = Process([sys.executable, "-c", HOLDER, path], clean_environment())
    try:
        process.wait_output("asking")
        asked_s = time.monotonic()
        with pytest.raises(LinkError, match="another program"):
            await turns.take(4, 0.05)
        process.kill()
        await turns.take(4, 1)
        turns.let_go()
        await turns.take(3, 2)
        # It asked a moment before it said so.
        assert time.monotonic() - asked_s > 0.2
    finally:
        process.close()
        turns.close()


async def test_a_foreign_program_with_the_usual_lock_keeps_us_out(path: str) -> None:
    turns = LineTurns(path, SILENCE_S)
    foreign = os.open(path, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(foreign, fcntl.LOCK_EX)
    with pytest.raises(LinkError, match="another program"):
        await turns.take(1, 0.02)
    os.close(foreign)
    await turns.take(1, 1)
    turns.close()

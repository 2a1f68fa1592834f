"""What becomes of a request that is refused as wrong: it is asked for in parts, and left alone where that finds nothing. Pure.

As long as no part was answered the request stays in its turn as it was, and its parts are only tried: a device that refuses
everything for a while says nothing about addresses by that. With the first answer the parts take its place.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from drivers.contract import Link, Request
from field_server.samples import Readings
from field_server.turns import PATIENCE, SLOWER, DeviceTurns, Job, Search, Turn
from scada.errors import DeviceRefused

_LEAST: Final = 2
_LEAST_BESIDE_ANSWERS: Final = 8
"""So many parts of a request are tried in one turn without an answer, however many requests of that kind the turn has.

The parts that are left are tried when the whole was refused once more, the larger ones first.
"""

Failed = list[tuple[Job, DeviceRefused]]
"""Jobs whose tags are bad, and why."""


def answered(device: DeviceTurns, turn: Turn, job: Job, now: float) -> tuple[Job, Failed]:
    """The present job of a turn was answered: the job that the values belong to, and those that are known to be bad by now."""
    turn.answers = True
    turn.patience = PATIENCE
    failed: Failed = []
    if job is turn.trial:
        search, turn.trial = turn.jobs[turn.position].search, None
        assert search is not None
        alone = [request for request, _ in search.refused]
        parts = device.replace(turn, [*search.parts, *alone])  # the one that was answered is still the first
        for part, (_, error) in zip(parts[len(search.parts) :], search.refused, strict=True):
            part.not_before = now + SLOWER * turn.period_s
            failed.append((part, error))
        parts[0].mean_s = job.mean_s
        job = parts[0]
    elif job.was_refused:
        job.forget_refusals()
        turn.is_changed = True
    turn.position += 1
    return job, failed


def refused(device: DeviceTurns, turn: Turn, job: Job, error: DeviceRefused, link: Link, now: float) -> Failed:
    """The present job of a turn was refused as wrong. `link` learns from it and says how to divide it. The jobs that are bad."""
    whole = turn.jobs[turn.position]
    if job is whole:
        goes_on = whole.search is not None
        if not goes_on:
            instead = link.refused(job.request, error.code)
            if instead is None:
                return _leave_alone(turn, whole, error, now)
            if whole.is_part:
                return _divide(device, turn, error, instead)
            whole.search = Search(error, deque(instead))
        answers = turn.answers or (goes_on and turn.answered_last)
        turn.patience = max(PATIENCE // len(turn.jobs), _LEAST_BESIDE_ANSWERS if answers else _LEAST)
    search = whole.search
    assert search is not None
    if job is not whole:
        turn.patience -= 1
        instead = link.refused(search.parts.popleft(), error.code)
        if instead is None:
            search.refused.append((job.request, error))
        else:
            search.parts += instead
    if search.parts and turn.patience > 0:
        turn.trial = Job(search.parts[0], Readings(()))
        return []
    if not search.parts:
        whole.search, whole.is_searched = None, True
    return _leave_alone(turn, whole, search.error, now)


def failed(turn: Turn, error: DeviceRefused) -> Failed:
    """The present job of a turn was refused, and not because it is wrong."""
    return _next(turn, error)


def _divide(device: DeviceTurns, turn: Turn, error: DeviceRefused, instead: Sequence[Request]) -> Failed:
    """Ask for the parts from now on; in the next turn, when too much was refused in this one."""
    job = turn.jobs[turn.position]
    job.is_open = turn.patience <= 0
    if job.is_open:
        return _next(turn, error)
    turn.patience -= 1
    device.replace(turn, instead)
    return []


def _leave_alone(turn: Turn, job: Job, error: DeviceRefused, now: float) -> Failed:
    job.not_before = now + SLOWER * turn.period_s
    return _next(turn, error)


def _next(turn: Turn, error: DeviceRefused) -> Failed:
    """On to the next job; this one is bad."""
    job, turn.trial = turn.jobs[turn.position], None
    turn.position += 1
    return [(job, error)]

"""What becomes of a request that is refused as wrong: it is asked for in parts, and left alone where that finds nothing. Pure.

As long as no part was answered the request stays in its turn as it was, and its parts are only tried: a device that refuses
everything for a while says nothing about addresses by that. With the first answer the parts take its place.
"""

from collections.abc import Sequence
from typing import Final

from drivers.contract import Link, Request
from field_server.samples import Readings
from field_server.search import Search
from field_server.turns import PATIENCE, SLOWER, DeviceTurns, Job, Turn
from scada.errors import DeviceRefused

_SHARE: Final = 16
"""So many parts of one request are tried in a turn without an answer; of a turn's only request, `PATIENCE`. Every second one is
the smallest, so one value is reached with them."""

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
        requests = search.answered()
        parts = device.replace(turn, [*requests, *(request for request, _ in search.alone)])
        for part, (_, error) in zip(parts[len(requests) :], search.alone, strict=True):
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
        if whole.search is None:
            instead = link.refused(job.request, error.code)
            if instead is None:
                return _leave_alone(turn, whole, error, now)
            if whole.is_part:
                return _divide(device, turn, error, instead)
            whole.search = Search(error, instead, _fewest_rounds(turn))
        _grant(turn, whole.search)
    search = whole.search
    assert search is not None
    if job is not whole:
        search.refused(error, link.refused(job.request, error.code))
        search.share -= 1
        turn.patience -= 1
    if search and search.share > 0 and turn.patience > 0:
        turn.trial = Job(search.next, Readings(()))
        return []
    if not search:
        whole.search, whole.is_searched = None, True
    return _leave_alone(turn, whole, search.error, now)


def failed(turn: Turn, error: DeviceRefused) -> Failed:
    """The present job of a turn was refused, and not because it is wrong."""
    return _next(turn, error)


def _grant(turn: Turn, search: Search) -> None:
    """How many parts may be tried in this turn. When nothing is answered those come first that were tried in fewer turns."""
    search.share = 0
    if turn.patience > 0 and (turn.answers or search.rounds <= _fewest_rounds(turn)):
        search.rounds += 1
        search.share = max(_SHARE, PATIENCE // len(turn.jobs))


def _fewest_rounds(turn: Turn) -> int:
    return min((job.search.rounds for job in turn.jobs if job.search is not None), default=0)


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

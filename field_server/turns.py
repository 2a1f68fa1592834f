"""What is read together and when: the requests of one device, unit and period, and how they went."""

import heapq
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from drivers.contract import Link, Request
from field_server.plans import Part
from field_server.samples import Readings, Source
from field_server.schedule import next_due, phase_s
from field_server.search import Search
from links.logs import Rationed
from scada.values import BadValue, Sample, Value

log = logging.getLogger(__name__)

FIRST_SPREAD_S = 1.0
"""The first reads of everything are spread over this time (or the period, when that is shorter)."""

PLAN_PERIOD_S = 60.0
FIRST_PLAN_S = 5.0  # after the first one, whose times are those of one round

LINES_A_MINUTE = 6

SLOWER = 10
"""So many times less often is a request asked for that was refused as wrong."""

PATIENCE = 32
"""So many requests that are refused one after another are divided in a turn. Where one address is illegal it takes as many as a
request can be halved, at most 11 (2000 bits); a device that refuses everything is not flooded with questions."""

_SMOOTHING = 0.1
"""Weight of the newest duration in a request's mean."""


@dataclass(slots=True, eq=False)
class Job:
    """One request and the readings of its tags. A refused one is left alone until `not_before`."""

    request: Request
    readings: Readings
    not_before: float = 0.0
    mean_s: float | None = None
    is_part: bool = False
    """Of a request that was refused and of which another part was answered."""
    is_open: bool = False
    """Refused, and to be divided when its turn comes again."""
    is_searched: bool = False
    """Every part of it was refused."""
    search: Search | None = None

    @property
    def was_refused(self) -> bool:
        """The last time it was asked for."""
        return self.not_before > 0.0 or self.is_open or self.search is not None or self.is_searched

    @property
    def is_undivided(self) -> bool:
        """It is refused, and its next turn may show what of it."""
        return self.is_open or (self.search is not None and not self.is_searched)

    def forget_refusals(self) -> None:
        """It was answered."""
        self.not_before, self.is_open, self.is_searched, self.search = 0.0, False, False, None

    def took(self, seconds: float) -> None:
        """Note how long an answer took."""
        mean = self.mean_s
        self.mean_s = seconds if mean is None else mean + _SMOOTHING * (seconds - mean)


@dataclass(slots=True, eq=False)
class Turn:
    """The jobs of one device, unit and period; one job is done at a time, so that others get in between."""

    device_id: int
    unit: int
    period_s: float
    due: float
    grid: float
    """A time on the grid that later turns keep to."""
    jobs: list[Job]
    position: int = 0
    alive: bool = True
    done_once: bool = False
    tries: int = 0
    """How often the present job was asked for without an answer."""
    trial: Job | None = None
    """A part of the job at `position`, asked instead of it. Its readings are made when it is answered."""
    patience: int = PATIENCE
    """So many more refusals are divided before there is an answer."""
    answers: bool = False
    """Something was answered in this turn."""
    answered_last: bool = False
    """Something was answered in the turn before."""
    is_changed: bool = False
    """Jobs were divided, or answered after a refusal: it is time to plan anew."""

    @property
    def present(self) -> Job:
        """The job to ask."""
        return self.jobs[self.position] if self.trial is None else self.trial

    def restart(self) -> None:
        """Begin with the first job again: the unit is away."""
        self.position = self.tries = 0
        self.trial = None

    def finish(self, now: float) -> None:
        """All jobs are done: when is the next turn?"""
        self.position = 0
        if self.answers:
            for job in self.jobs:
                if job.is_undivided:
                    job.not_before = 0.0  # not everything is refused, so the search is worth while
        self.answered_last, self.answers, self.patience = self.answers, False, PATIENCE
        if not self.done_once:
            self.done_once = True
            self.due = self.grid
            while self.due <= now:
                self.due += self.period_s
            return
        if now < self.due:
            return  # it came early, and its own time comes all the same
        self.due = next_due(self.due, self.period_s, now)


@dataclass(slots=True, eq=False)
class DeviceTurns:
    """One device on a link. `allowed_at` is when its ceiling lets the next request through; `askers`: who waits besides turns.

    `errors` has what is wrong with each of its units, None where it answers; it is empty as long as nothing is known.
    """

    part: Part
    turns: list[Turn]
    interval_s: float
    retries: int
    allowed_at: float = 0.0
    askers: int = 0
    show_plan_at: float = 0.0
    shown_at: float = float("-inf")
    is_shown: bool = False
    errors: dict[int, str | None] = field(default_factory=dict)
    reported: tuple[bool, str | None] | None = None
    learned: tuple[str, ...] = ()
    """What the link had learned when the turns were planned."""
    lines: Rationed = field(init=False)
    """What the log says of its state: a device that comes and goes all the time must not fill it."""
    _places: dict[str, tuple[Job, int]] = field(default_factory=dict)
    _asked_last: bool = False

    def __post_init__(self) -> None:
        self.lines = Rationed(log, LINES_A_MINUTE, f"changes of {self.part.device}")
        self.index()

    def take_place(self, now: float, *, by_turn: bool) -> bool:
        """Whether the ceiling lets a request through just now, a turn's or an asker's; the next one has to wait then."""
        is_free = self.allowed_at <= now
        if is_free and self.interval_s:
            self.allowed_at, self._asked_last = now + self.interval_s, not by_turn
        return is_free

    @property
    def lets_askers_first(self) -> bool:
        """Whether the next place is that of somebody who asks; reads and askers take turns."""
        return self.askers > 0 and not self._asked_last

    def index(self) -> None:
        """Note which job reads which tag; after every change of a turn's jobs."""
        self._places = {
            source.tag: (job, number) for job in self.jobs for number, source in enumerate(job.readings.sources)
        }

    def replace(self, turn: Turn, requests: Sequence[Request]) -> list[Job]:
        """Ask `requests` instead of a turn's job, which they divide; what was told of its tags stays as it is."""
        job = turn.jobs[turn.position]
        parts = make_jobs(requests, job.readings.sources, _told([job]))
        for part in parts:
            part.is_part = True
        turn.jobs[turn.position : turn.position + 1] = parts
        turn.is_changed = True
        self.index()
        return parts

    def news(self) -> tuple[bool, str | None] | None:
        """Whether the device answers and what is wrong, when that is not as it was reported last."""
        wrong = [error for error in self.errors.values() if error is not None]
        report = (len(wrong) < len(self.errors), wrong[0] if wrong else None)
        if self.reported is not None and (self.reported[0], self.reported[1] is None) == (report[0], not wrong):
            return None
        self.reported = report
        return report

    def end(self) -> None:
        """An answer that is still under way is nobody's any more."""
        for turn in self.turns:
            turn.alive = False

    def shows_plan(self, now: float) -> bool:
        """Whether it is time to tell how the device is read: soon after a change, and once more when its durations are known."""
        if now < self.show_plan_at or not all(turn.done_once for turn in self.turns):
            return False
        self.show_plan_at = now + (PLAN_PERIOD_S if self.is_shown else FIRST_PLAN_S)
        self.is_shown = True
        self.shown_at = now
        return True

    def settle(self, turn: Turn, link: Link) -> None:
        """A turn is over: it is planned anew at once when it was changed, unless its refusals are still to be divided."""
        if not turn.is_changed or (turn.answered_last and any(job.is_undivided for job in turn.jobs)):
            return
        turn.is_changed = False
        for job in turn.jobs:
            job.is_part = job.is_open = False
        self._plan(turn, link)
        self.index()
        self.is_shown = False
        self.show_plan_at = self.shown_at + FIRST_PLAN_S

    def plan_again(self, link: Link) -> None:
        """Plan every turn that is not under way by what the link has learned since; what is told stays as it is."""
        learned = tuple(link.learned)
        if learned == self.learned:
            return
        self.learned = learned
        for turn in self.turns:
            if not turn.position and turn.trial is None and not turn.is_changed:
                self._plan(turn, link)
        self.index()

    def _plan(self, turn: Turn, link: Link) -> None:
        """Ask for a turn's tags with fewer requests, if that can be; a request that stays the same goes on as it was."""
        sources = [source for job in turn.jobs for source in job.readings.sources]
        requests = link.plan([source.point for source in sources])
        if len(requests) >= len(turn.jobs):
            return
        old = {job.request.points: job for job in turn.jobs}
        until = {source.tag: job.not_before for job in turn.jobs for source in job.readings.sources}
        jobs = []
        for job in make_jobs(requests, sources, _told(turn.jobs)):
            same = old.get(job.request.points)
            if same is None:
                job.not_before = min(until[source.tag] for source in job.readings.sources)
            else:
                job = same
            jobs.append(job)
        turn.jobs = jobs

    @property
    def jobs(self) -> Iterator[Job]:
        """All jobs of the device."""
        return (job for turn in self.turns for job in turn.jobs)

    def last(self, tag: str) -> Sample | None:
        """The sample of a tag that was told last."""
        place = self._places.get(tag)
        return None if place is None else place[0].readings.told[place[1]]

    def last_raw(self, tag: str) -> Value | BadValue | None:
        """What was read of a tag last; None while that is not known."""
        place = self._places.get(tag)
        return None if place is None else place[0].readings.raw(place[1])

    def jobs_of(self, tags: Iterable[str]) -> list[Job]:
        """The jobs that read `tags`, each once; raises KeyError for a tag that is not read."""
        return list(dict.fromkeys(self._places[tag][0] for tag in tags))

    def told(self) -> dict[str, tuple[Source, Sample]]:
        """The samples told last, by tag, with the sources that they are of."""
        return _told(self.jobs)


class Agenda:
    """Turns by time; of those that are due the one that waits longest."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Turn]] = []
        self._count = 0

    def add(self, turn: Turn, at: float) -> None:
        """Have `turn` come at `at`."""
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, turn))

    def pop(self) -> Turn:
        """The next turn."""
        return heapq.heappop(self._heap)[2]

    def next_at(self) -> float | None:
        """When the next turn is; None when there is none."""
        while self._heap and not self._heap[0][2].alive:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[tuple[float, Turn]]:
        """The turns whose time has come, with it."""
        return [(at, turn) for at, _, turn in self._heap if turn.alive and at <= now]

    def take(self, unit_fits: Callable[[int], bool], device_fits: Callable[[int], bool]) -> Turn | None:
        """The next turn whose unit and device (its id) fit, due or not; it is taken out."""
        found = [
            entry
            for entry in self._heap
            if entry[2].alive and unit_fits(entry[2].unit) and device_fits(entry[2].device_id)
        ]
        if not found:
            return None
        first = min(found)
        self._heap.remove(first)
        heapq.heapify(self._heap)
        return first[2]

    def advance(self, turns: Iterable[Turn], at: float) -> None:
        """Have these come at `at` already."""
        chosen = set(map(id, turns))
        self._heap = [entry for entry in self._heap if id(entry[2]) not in chosen]
        heapq.heapify(self._heap)
        for turn in turns:
            self.add(turn, at)


def make_turns(part: Part, link: Link, now: float, known: dict[str, tuple[Source, Sample]]) -> list[Turn]:
    """The turns of a device; tags in `known` whose binding is the same go on from the sample told last."""
    groups: dict[tuple[int, int], list[Source]] = {}
    for source in part.sources:
        groups.setdefault((source.period_ms, source.point.unit), []).append(source)
    turns = []
    for number, ((period_ms, unit), sources) in enumerate(sorted(groups.items(), key=lambda group: group[0])):
        period_s = period_ms / 1000
        index = part.device_id + number
        due = now + phase_s(index, min(period_s, FIRST_SPREAD_S))
        jobs = make_jobs(link.plan([source.point for source in sources]), sources, known)
        turns.append(Turn(part.device_id, unit, period_s, due, now + phase_s(index, period_s), jobs))
    return turns


def make_jobs(
    requests: Sequence[Request], sources: Iterable[Source], known: dict[str, tuple[Source, Sample]]
) -> list[Job]:
    """One job for each request over the points of `sources`."""
    by_point = {id(source.point): source for source in sources}
    jobs = []
    for request in requests:
        own = [by_point[id(point)] for point in request.points]
        jobs.append(Job(request, Readings(own, [_known(source, known) for source in own])))
    return jobs


def _told(jobs: Iterable[Job]) -> dict[str, tuple[Source, Sample]]:
    return {
        source.tag: (source, sample)
        for job in jobs
        for source, sample in zip(job.readings.sources, job.readings.told, strict=True)
        if sample is not None
    }


def _known(source: Source, known: dict[str, tuple[Source, Sample]]) -> Sample | None:
    old = known.get(source.tag)
    if old is None:
        return None
    before, now = old[0].point, source.point
    same = (before.binding_id, before.address, before.network) == (now.binding_id, now.address, now.network)
    return old[1] if same else None


def plan_document(device: DeviceTurns, learned: Sequence[str]) -> dict[str, Any]:
    """What is read of a device, how often and at what cost, for people."""
    rows = []
    per_s = single = load = 0.0
    for turn in device.turns:
        for job in turn.jobs:
            period_s = turn.period_s * (SLOWER if job.not_before else 1)
            per_s += 1 / period_s
            single += len(job.request.points) / turn.period_s
            load += (job.mean_s or 0.0) / period_s
            rows.append(
                {
                    "text": job.request.text,
                    "unit": job.request.unit,
                    "tags": len(job.request.points),
                    "period_ms": round(period_s * 1000),
                    "duration_ms": None if job.mean_s is None else round(job.mean_s * 1000, 3),
                }
            )
    ceiling = None if device.interval_s == 0 else 1 / device.interval_s
    allowed = 1.0 if ceiling is None or per_s <= ceiling else ceiling / per_s
    return {
        "requests": rows,
        "requests_per_s": round(per_s * allowed, 3),
        "wanted_requests_per_s": round(per_s, 3),
        "single_requests_per_s": round(single, 3),
        "load": round(load * allowed, 4),
        "ceiling": ceiling,
        "learned": list(learned),
        "tags": len(device.part.sources),
    }

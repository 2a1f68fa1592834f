"""What messages say of tags becomes samples on the bus: changes only, and bad ones where a source is silent or cannot be heard.

Values of a device that come within a few milliseconds go to the bus together.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from scada.mapping import DevicePlan, Doubt, Reading, Report, TagPlan
from scada.scaling import exceeds_deadband
from scada.values import Quality, Reason, Sample, Value

LOOK_S = 0.25
"""How often silence is looked for."""
AWAY_S = 5.0
"""A broker that is back sooner was not away: its sessions keep what is sent meanwhile."""
SECONDS_PER_BATCH = 0.001
MAX_PAUSE_S = 0.05
"""So many batches a second are told at most, however fast messages come; a change waits no longer than the second."""


class Sink(Protocol):
    """The bus, or a test's notebook."""

    def publish(self, device: str, samples: Sequence[Sample]) -> None:
        """Changes of a device's tags, in order."""

    def link(self, device: str, online: bool, error: str | None) -> None:
        """Whether the device is heard."""

    def forget(self, device: str, tags: Iterable[str] | None = None) -> None:
        """The device is gone, or these tags of it."""


class _Nothing:
    """Equals no reading."""


_NOTHING: Final = _Nothing()


class _Source:
    """One device: the last readings and samples of its tags, in the plan's order. Times are monotonic seconds."""

    __slots__ = (
        "heard", "heard_whole", "is_silent", "last", "missed", "name", "pending", "session", "silent_after_s", "tags", "told",
    )  # fmt: skip

    def __init__(self, plan: DevicePlan, now: float) -> None:
        self.name = plan.name
        self.tags: tuple[TagPlan, ...] = plan.tags
        self.silent_after_s = plan.silent_after_s
        self.last: list[object] = [_NOTHING] * len(plan.tags)
        self.told: list[Sample | None] = [None] * len(plan.tags)
        self.heard = [now] * len(plan.tags)
        self.heard_whole = now
        """When a message last spoke of every tag; `heard` is behind it for each."""
        self.pending: list[Sample] = []
        self.is_silent = False
        """No message has spoken of any of the tags for too long."""
        self.session = 0
        """The connection over which the newest message came for the first time."""
        self.missed: dict[int, Sample] = {}
        """What was told of tags before the broker was away, by their place."""


class Samples:
    """Every device that is read. Runs in one event loop."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._sources: dict[int, _Source] = {}
        self._by_name: dict[str, _Source] = {}
        self._dirty: list[_Source] = []
        self._flush_at: asyncio.TimerHandle | None = None
        self._pause_s = 0.0
        self._away_since: float | None = self._loop.time()
        self._is_away = False
        self._error: str | None = None

    def put(self, plan: DevicePlan) -> None:
        """Read a device from now on, or otherwise than before; tags that it still has keep what was told of them."""
        now = self._loop.time()
        old = self._sources.get(plan.device_id)
        if old is not None and old.name != plan.name:
            self.remove(plan.device_id)
            old = None
        if not plan.tags:
            if old is not None:
                self.remove(plan.device_id)
            return
        source = self._sources[plan.device_id] = self._by_name[plan.name] = _Source(plan, now)
        if old is not None:
            self._flush()
            known = {tag.name: place for place, tag in enumerate(old.tags)}
            for place, tag in enumerate(source.tags):
                if tag.name in known:
                    before = known.pop(tag.name)
                    source.told[place] = old.told[before]
                    source.heard[place] = max(old.heard[before], old.heard_whole)
            source.heard_whole = float("-inf")
            source.session = old.session
            if known:
                self._sink.forget(plan.name, known)
        self._report(source)

    def remove(self, device_id: int) -> None:
        """A device that is gone: what was told of it is withdrawn."""
        source = self._sources.pop(device_id, None)
        if source is None:
            return
        self._flush()
        if self._by_name.get(source.name) is source:
            del self._by_name[source.name]
            self._sink.forget(source.name)

    def told(self, device: str) -> dict[str, Sample]:
        """The samples told last of a device's tags."""
        source = self._by_name.get(device)
        return {} if source is None else {sample.tag: sample for sample in source.told if sample is not None}

    def recall(self, device: str, samples: Iterable[Sample]) -> None:
        """What an earlier run told last; it holds where nothing newer is known."""
        source = self._by_name.get(device)
        if source is None:
            return
        places = {tag.name: place for place, tag in enumerate(source.tags)}
        known = []
        for sample in samples:
            place = places.get(sample.tag)
            if place is not None and source.told[place] is None:
                source.told[place] = sample
                known.append(sample)
        self._tell(source, known)  # once more: our state message would lack it

    def take(
        self, device_id: int, reports: Iterable[Report], session: int, is_repeat: bool, retained: bool = False
    ) -> None:
        """What a message says. A repeat that comes behind newer messages says nothing; a retained one tells values, but not
        that the source is there.
        """
        source = self._sources.get(device_id)
        if source is None or (is_repeat and source.session == session):
            return
        if not is_repeat and not retained:
            source.session = session
        if retained:
            reports = [Report(time_ms, self._not_stale(source, readings)) for time_ms, readings in reports]
        elif source.is_silent:
            source.is_silent = False
            self._report(source)
        for time_ms, readings in reports:
            last = source.last
            if None in readings:
                if not retained:
                    now = self._loop.time()
                    for place, reading in enumerate(readings):
                        if reading is not None:
                            source.heard[place] = now
            else:
                if not retained:
                    source.heard_whole = self._loop.time()
                if readings == last:
                    continue
            for place, reading in enumerate(readings):
                if reading is None or reading == last[place]:
                    continue
                last[place] = reading
                sample = _sample(source.tags[place], reading, time_ms, source.told[place])
                if sample is not None:
                    source.told[place] = sample
                    if not source.pending:
                        self._dirty.append(source)
                    source.pending.append(sample)
        if self._dirty and self._flush_at is None:
            self._flush_at = self._loop.call_later(self._pause_s, self._on_time)

    def broker(self, online: bool, resumed: bool, error: str | None) -> None:
        """The link to the devices' broker came or went; `resumed`: the broker has kept what was sent meanwhile."""
        if not online:
            self._away_since = self._loop.time()
            self._error = error
            return
        self._away_since = None
        if self._is_away:
            self._is_away = False
            for source in self._sources.values():
                self._recover(source, resumed)
        for source in self._sources.values():
            self._report(source)

    async def watch(self) -> None:
        """Until cancelled: makes samples bad where nothing is heard."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._loop.time()
            if self._away_since is not None and not self._is_away and now - self._away_since >= AWAY_S:
                self._is_away = True
                for source in self._sources.values():
                    self._doubt(source)
            for source in self._sources.values():
                if source.silent_after_s and now - source.heard_whole >= source.silent_after_s:
                    self._check_silence(source, now)

    def close(self) -> None:
        """Hand everything to the bus."""
        self._flush()

    def _check_silence(self, source: _Source, now: float) -> None:
        stale = []
        for place, heard in enumerate(source.heard):
            told = source.told[place]
            if now - max(heard, source.heard_whole) < source.silent_after_s:
                continue
            if told is not None and told.quality is Quality.BAD and told.reason is Reason.STALE:
                continue
            source.last[place] = _NOTHING
            source.missed.pop(place, None)
            sample = _unheard(source.tags[place], told, Quality.BAD, Reason.STALE)
            source.told[place] = sample
            stale.append(sample)
        if stale:
            self._tell(source, stale)
            if all(told is not None and told.reason is Reason.STALE for told in source.told):
                source.is_silent = True
                self._report(source)

    def _not_stale(self, source: _Source, readings: list[Reading]) -> list[Reading]:
        """The readings without those of tags that are stale: they are so until the source speaks."""
        return [
            None if told is not None and told.quality is Quality.BAD and told.reason is Reason.STALE else reading
            for reading, told in zip(readings, source.told, strict=True)
        ]

    def _doubt(self, source: _Source) -> None:
        """Nobody knows what the device has said since."""
        doubtful = []
        for place, told in enumerate(source.told):
            if told is not None and told.quality is Quality.BAD:
                continue
            if told is not None:
                source.missed[place] = told
            sample = source.told[place] = _unheard(
                source.tags[place], told, Quality.UNCERTAIN if told is not None else Quality.BAD, Reason.NOT_CONNECTED
            )
            doubtful.append(sample)
        self._tell(source, doubtful)
        self._report(source)

    def _recover(self, source: _Source, resumed: bool) -> None:
        """After that: where the broker has kept everything, what was true before is so until a message says otherwise."""
        time_ms = time.time_ns() // 1_000_000
        again = []
        for place, sample in source.missed.items():
            if resumed:
                source.told[place] = sample._replace(time_ms=time_ms)
                again.append(source.told[place])
            else:
                source.last[place] = _NOTHING
        source.missed = {}
        self._tell(source, [sample for sample in again if sample is not None])

    def _report(self, source: _Source) -> None:
        if self._is_away:
            self._sink.link(source.name, False, self._error or "no connection to the broker")
        elif source.is_silent:
            self._sink.link(source.name, False, f"silent for {source.silent_after_s:g} s")
        else:
            self._sink.link(source.name, True, None)

    def _tell(self, source: _Source, samples: Sequence[Sample]) -> None:
        """Behind what waits of the device already."""
        if samples:
            self._flush()
            self._sink.publish(source.name, samples)

    def _on_time(self) -> None:
        self._flush_at = None
        self._pause_s = min(len(self._dirty) * SECONDS_PER_BATCH, MAX_PAUSE_S)
        self._flush()

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for source in dirty:
            pending, source.pending = source.pending, []
            self._sink.publish(source.name, pending)


def _sample(tag: TagPlan, reading: Value | Doubt, time_ms: int, told: Sample | None) -> Sample | None:
    """The sample to tell of a reading that differs from the last one; None where that is no news."""
    if isinstance(reading, Doubt):
        value, quality, reason = reading
        if value is None and told is not None:
            value = told.value
        if (
            told is not None
            and told.quality is quality
            and told.reason is reason
            and not _moved(tag, told.value, value)
        ):
            return None
        return Sample(tag.name, value, quality, time_ms, reason)
    if tag.deadband and told is not None and told.quality is Quality.GOOD and not _moved(tag, told.value, reading):
        return None
    return Sample(tag.name, reading, Quality.GOOD, time_ms)


def _moved(tag: TagPlan, old: Value | None, new: Value | None) -> bool:
    return new is not None and exceeds_deadband(old, new, tag.deadband)


def _unheard(tag: TagPlan, told: Sample | None, quality: Quality, reason: Reason) -> Sample:
    return Sample(tag.name, None if told is None else told.value, quality, time.time_ns() // 1_000_000, reason)

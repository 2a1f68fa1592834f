"""The tags whose values stand in our registers: written by clients or by commands, told on the bus by exception. No clock."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from modbus_server.mailbox.places import Place
from modbus_server.mailbox.plans import BoundTag
from modbus_server.mailbox.status import show_status, status_of
from scada.modbus.image import Image
from scada.values import BadValue, Quality, Reason, Sample

logger = logging.getLogger(__name__)

Publish = Callable[[str, Sequence[Sample], bool], None]
"""Takes a device's samples, and whether somebody who wrote them is about to be answered. It must not raise."""


@dataclass(slots=True, eq=False)
class _Held:
    """`since_s`: since when it is known, `written_s`: when it was written last, both monotonic seconds; None when not since the
    start: nobody knows how old it is.

    `parts`: which of its registers were written since it was whole, by bits; 0 when it is whole.
    """

    tag: BoundTag
    image: Image
    since_s: float
    told: Sample | None = None
    written_s: float | None = None
    is_stale: bool = False
    parts: int = 0

    def write(self, address: int, count: int, now_s: float) -> None:
        """Addresses were written, of which at least one belongs to it. It is whole again when all of its own were."""
        place = self.tag.place
        first, end = max(address, place.first) - place.first, min(address + count, place.end) - place.first
        self.parts |= (1 << end) - (1 << first)
        if self.parts == (1 << place.count) - 1:
            self.parts = 0
        self.written_s = now_s

    def is_overdue(self, now_s: float) -> bool:
        """Whether nobody has written it for as long as its device allows."""
        last_s = self.since_s if self.written_s is None else self.written_s
        return 0 < self.tag.stale_after_s <= now_s - last_s


class Inbox:
    """Times are arguments: `time_ms` (UTC, milliseconds) stands in samples, `now_s` is monotonic."""

    def __init__(self, images: Mapping[int, Image], publish: Publish) -> None:
        """`images`: by unit id, as the server itself sees them."""
        self._images = images
        self._publish = publish
        self._held: dict[BoundTag, _Held] = {}
        self._by_name: dict[tuple[str, str], _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def apply(self, tags: Iterable[BoundTag], time_ms: int, now_s: float) -> None:
        """These tags from now on. What was known of the same registers stays known; the rest is told as it stands."""
        old, names = self._held, self._by_name
        places = {_key(held.tag): held for held in old.values()}
        self._held, self._by_name = {}, {}
        fresh: list[_Held] = []
        for tag in tags:
            held = old.get(tag)
            if held is None:
                held = _Held(tag, self._images[tag.place.unit_id], now_s)
                before = places.get(_key(tag))
                if before is not None:
                    held.since_s, held.written_s, held.parts = before.since_s, before.written_s, before.parts
                told = names.get((tag.device, tag.name))
                held.told = None if told is None else told.told
                fresh.append(held)
            self._held[tag] = self._by_name[tag.device, tag.name] = held
        self._tell(fresh, time_ms, now_s)

    def written(self, tags: Iterable[BoundTag], address: int, count: int, time_ms: int, now_s: float) -> None:
        """`count` addresses, registers of these tags among them, were written just now by one request."""
        news = [held for tag in tags if (held := self._held.get(tag)) is not None]
        for held in news:
            held.write(address, count, now_s)
        self._tell(news, time_ms, now_s, written=True)

    def put(self, values: Sequence[tuple[BoundTag, bytes]], time_ms: int, now_s: float) -> None:
        """Write encoded values into the registers, as a command does."""
        for tag, data in values:
            tag.place.write(self._images[tag.place.unit_id], data)
        news = [held for tag, _ in values if (held := self._held.get(tag)) is not None]
        for held in news:
            held.write(held.tag.place.first, held.tag.place.count, now_s)
        self._tell(news, time_ms, now_s, asked=True, written=True)

    def read(self, device: str, names: Collection[str], time_ms: int, now_s: float) -> list[Sample]:
        """What stands in the registers of a device's tags now; told as well, as somebody asked for it."""
        asked = [held for (of, name), held in self._by_name.items() if of == device and name in names]
        self._tell(asked, time_ms, now_s, asked=True)
        return [held.told for held in asked if held.told is not None]

    def expire(self, time_ms: int, now_s: float) -> None:
        """Tell which values were not written again in time."""
        stale = [held for held in self._held.values() if not held.is_stale and held.is_overdue(now_s)]
        self._tell(stale, time_ms, now_s)

    def last(self, device: str, tag: str) -> Sample | None:
        """The sample told last of one tag."""
        held = self._by_name.get((device, tag))
        return None if held is None else held.told

    def present(self, tag: BoundTag, time_ms: int) -> Sample:
        """What stands in a tag's registers, whoever wrote it and whether or not it was worth telling."""
        raw = tag.place.read(self._images[tag.place.unit_id])
        assert tag.source is not None
        return tag.source.sample(raw, time_ms, None)

    def _tell(
        self, news: Iterable[_Held], time_ms: int, now_s: float, *, asked: bool = False, written: bool = False
    ) -> None:
        by_device: dict[str, list[Sample]] = {}
        for held in news:
            source = held.tag.source
            assert source is not None
            sample = self._sample(held, time_ms, now_s)
            if asked or source.is_news(sample, held.told):
                held.told = sample
                by_device.setdefault(held.tag.device, []).append(sample)
            show_status(held.image, held.tag, status_of(held.told or sample))
        for device, samples in by_device.items():
            self._publish(device, samples, written)

    def _sample(self, held: _Held, time_ms: int, now_s: float) -> Sample:
        tag = held.tag
        assert tag.source is not None
        last = None if held.told is None else held.told.value
        raw = tag.place.read(held.image)
        sample = tag.source.sample(raw, time_ms, last)
        if isinstance(raw, BadValue) and (held.told is None or held.told.quality is not Quality.BAD):
            logger.warning("%s: %s holds no value: %s", tag.full_name, tag.place, raw)
        held.is_stale = held.is_overdue(now_s)
        if held.is_stale:
            return sample._replace(quality=Quality.BAD, reason=Reason.STALE)
        # A value of which one half is new and the other old was never sent by anybody.
        if (held.written_s is None or held.parts) and _is_good(sample):
            return sample._replace(quality=Quality.UNCERTAIN, reason=Reason.STALE)
        return sample


def _is_good(sample: Sample) -> bool:
    return sample.quality is Quality.GOOD


def _key(tag: BoundTag) -> tuple[int, Place]:
    return tag.binding.id, tag.place

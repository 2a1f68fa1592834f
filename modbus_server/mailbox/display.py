"""The tags of other programs that our registers show: which sample counts, and when it is not good any more. No clock.

A value is good only as long as somebody vouches for it: we are on the bus, its owner is, and the owner has told the value since
both are. Values that come late, or again, are taken when they are newer, but vouch for nothing.
"""

import logging
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from modbus_server.mailbox.plans import BoundTag
from modbus_server.mailbox.status import Status, is_dated, show_status, status_of
from scada.modbus.image import Image
from scada.values import BadValue, Sample, Value

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Shown:
    """`owner`: who told the sample. `told_s`: when it was vouched for last, monotonic; None: by nobody. `fits`: the registers can
    hold the value. `from_state`: the sample stood in a state message, which may be ahead of the changes. `was_away`: so was its
    owner, since it told the sample.
    """

    tag: BoundTag
    image: Image
    sample: Sample | None = None
    owner: str = ""
    told_s: float | None = None
    from_state: bool = False
    was_away: bool = False
    fits: bool = True
    status: Status | None = None


class Display:
    """`now_s` is monotonic."""

    def __init__(self, images: Mapping[int, Image]) -> None:
        """`images`: by unit id, as the server itself sees them."""
        self.hidden: set[object] = set()
        """Guarded tags that are not good: the same set for good, its content changes."""
        self._images = images
        self._shown: dict[str, dict[str, _Shown]] = {}
        self._misfits: dict[str, dict[str, BoundTag]] = {}
        self._online = False
        self._owners: dict[str, bool] = {}

    @property
    def devices(self) -> Set[str]:
        """The devices of which at least one tag is shown."""
        return self._shown.keys()

    def __len__(self) -> int:
        return sum(map(len, self._shown.values()))

    def apply(self, tags: Iterable[BoundTag], now_s: float) -> set[str]:
        """Show these tags from now on. Returns the devices of which a picture is needed: nothing is known of some tag."""
        old = self._shown
        self._shown, self._misfits = {}, {}
        unknown = set()
        for tag in tags:
            shown = old.get(tag.device, {}).get(tag.name)
            if shown is None or shown.tag is not tag:
                shown = self._changed(tag, shown, now_s)
            if shown.sample is None:
                unknown.add(tag.device)
            self._shown.setdefault(tag.device, {})[tag.name] = shown
            self._note_fit(shown)
        kept: set[object] = {shown.tag for shown in self._all()}
        self.hidden &= kept
        return unknown

    def take(
        self, owner: str, device: str, samples: Iterable[Sample], now_s: float, *, state: bool, again: bool
    ) -> bool:
        """Samples of a device's tags. `state`: from a state message; `again`: retained or repeated, so maybe behind.

        A state that was retained vouches for its values all the same: it is the owner's last word, unless the owner was away
        since and has not spoken.
        Returns whether `misfits` of the device are others now.
        """
        tags = self._shown.get(device, {})
        is_other = False
        for sample in samples:
            shown = tags.get(sample.tag)
            if shown is None or not _is_of(owner, shown.tag.owner):
                continue
            vouches = not sample.late and (state or not again)
            if not _counts(shown, owner, sample, state, again or sample.late):
                continue
            shown.sample, shown.owner, shown.from_state = sample, owner, state
            if vouches:
                shown.told_s, shown.was_away = now_s, False
            self._write(shown)
            is_other = self._note_fit(shown) or is_other
            self._judge(shown, now_s)
        return is_other

    def misfits(self, device: str) -> list[str]:
        """Which values of a device its registers cannot hold just now, for people."""
        return [
            f"{tag.full_name}: its value does not fit {tag.place}, which keeps the last one"
            for tag in self._misfits.get(device, {}).values()
        ]

    def forget(self, owner: str, device: str, now_s: float) -> None:
        """An owner has taken back what it told of a device."""
        for shown in self._shown.get(device, {}).values():
            if shown.owner == owner:
                shown.told_s = None
                self._judge(shown, now_s)

    def server(self, owner: str, online: bool, now_s: float) -> None:
        """Whether an owner is there. After it was away it has to tell everything again."""
        came_back = online and self._owners.get(owner) is False
        self._owners[owner] = online
        for shown in self._all():
            if shown.owner == owner:
                if came_back or not online:
                    shown.told_s, shown.was_away = None, True
                self._judge(shown, now_s)

    def bus(self, online: bool, now_s: float) -> None:
        """Whether we are on the bus. After we were away everybody has to tell everything again."""
        self._online = online
        if not online:
            self._owners.clear()
        for shown in self._all():
            if not online:
                shown.told_s, shown.was_away = None, False  # what happened meanwhile is not known
            self._judge(shown, now_s)

    def expire(self, now_s: float) -> None:
        """Find the values that were not told again in time."""
        for shown in self._all():
            if shown.tag.stale_after_s:
                self._judge(shown, now_s)

    def _all(self) -> Iterable[_Shown]:
        return (shown for tags in self._shown.values() for shown in tags.values())

    def _changed(self, tag: BoundTag, before: _Shown | None, now_s: float) -> _Shown:
        shown = _Shown(tag, self._images[tag.place.unit_id])
        if before is not None and before.tag.owner == tag.owner:
            shown.sample, shown.owner, shown.told_s = before.sample, before.owner, before.told_s
            shown.from_state, shown.was_away = before.from_state, before.was_away
            if shown.sample is not None:
                self._write(shown)
        self._judge(shown, now_s)
        return shown

    def _write(self, shown: _Shown) -> None:
        tag, value = shown.tag, shown.sample.value if shown.sample is not None else None
        fault = ""
        try:
            self._put(shown, value)
        except BadValue as error:
            fault = str(error)
        if fault and shown.fits and value is not None:
            logger.warning("%s does not fit %s, which keeps its last value: %s", tag.full_name, tag.place, fault)
        shown.fits = not fault

    def _note_fit(self, shown: _Shown) -> bool:
        """Returns whether that is news."""
        tag = shown.tag
        misfits = self._misfits.get(tag.device, {})
        if shown.fits is not (tag.name in misfits):
            return False
        if shown.fits:
            del misfits[tag.name]
        else:
            self._misfits.setdefault(tag.device, misfits)[tag.name] = tag
        return True

    def _put(self, shown: _Shown, value: Value | None) -> None:
        encode = shown.tag.encode
        assert encode is not None
        if value is not None:
            shown.tag.place.write(shown.image, encode(value))

    def _judge(self, shown: _Shown, now_s: float) -> None:
        status = self._status(shown, now_s)
        if status is shown.status:
            return
        shown.status = status
        show_status(shown.image, shown.tag, status)
        if shown.tag.is_guarded:
            if status is Status.BAD:
                self.hidden.add(shown.tag)
            else:
                self.hidden.discard(shown.tag)

    def _status(self, shown: _Shown, now_s: float) -> Status:
        if shown.sample is None or shown.sample.value is None or shown.told_s is None or not shown.fits:
            return Status.BAD
        if not self._online or not self._owners.get(shown.owner, False) or is_dated(shown.sample):
            return Status.BAD
        limit_s = shown.tag.stale_after_s
        return Status.BAD if limit_s and now_s - shown.told_s >= limit_s else status_of(shown.sample)


def _is_of(owner: str, program: str) -> bool:
    """Whether an owner on the bus is that program, or a shard of it."""
    return owner == program or owner.startswith(program + "-")


def _counts(shown: _Shown, owner: str, sample: Sample, state: bool, behind: bool) -> bool:
    """Whether a sample takes the place of the one that is shown.

    In order and for the first time, it does, whatever its time says (clocks are set back): but a state may be ahead of the
    changes that come after it. What may be behind has to be newer.
    """
    old = shown.sample
    if old is None or owner != shown.owner:
        return True
    if behind and shown.was_away:
        return sample.time_ms > old.time_ms
    if behind and (shown.told_s is not None or not state):
        return sample.time_ms >= old.time_ms
    return state or not shown.from_state or shown.told_s is None or sample.time_ms >= old.time_ms

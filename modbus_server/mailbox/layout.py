"""Which addresses of which image belong to which tag, over all devices; what collides is a fault. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from modbus_server.mailbox.plans import BoundTag, MailboxPlan, Role
from scada.claims import Claim, Claims
from scada.errors import DeviceRefused, Fault
from scada.modbus.image import Image
from scada.modbus.limits import Table
from scada.protocols.mailbox import NotGood

T = TypeVar("T")


class Index(Generic[T]):
    """Items of one table by their addresses. Items that overlap at all have the same addresses: bits of one register."""

    __slots__ = ("_ends", "_firsts", "_items")

    def __init__(self, items: Iterable[tuple[int, int, T]]) -> None:
        """`items`: first address, address behind the last, item."""
        ordered = sorted(items, key=lambda item: item[:2])
        self._firsts = [first for first, _, _ in ordered]
        self._ends = [end for _, end, _ in ordered]
        self._items = [item for _, _, item in ordered]

    def find(self, address: int, count: int) -> Sequence[T]:
        """The items of which at least one address is among `count` addresses from `address`."""
        return self._items[bisect_right(self._ends, address) : bisect_left(self._firsts, address + count)]

    def mark(self, flags: bytearray) -> None:
        """Set the byte of every address that an item has."""
        for first, end in zip(self._firsts, self._ends, strict=True):
            flags[first:end] = b"\x01" * (end - first)


@dataclass(frozen=True, slots=True)
class UnitLayout:
    """The bound addresses of one image, by table; a table without any is left out.

    `guarded`: reading them may be refused; `read_only`: writing them is refused; `written`: the tags that clients write.
    """

    guarded: Mapping[Table, Index[object]]
    read_only: Mapping[Table, Index[object]]
    written: Mapping[Table, Index[BoundTag]]


@dataclass(frozen=True, slots=True)
class Layout:
    """`tags` are those in force, `units` the images with bound addresses, `faults` what was left out, by device.

    `remarks`, by device as well: what is in force and cannot be what was meant.
    """

    tags: tuple[BoundTag, ...]
    units: Mapping[Image, UnitLayout]
    faults: Mapping[str, tuple[Fault, ...]]
    remarks: Mapping[str, tuple[Fault, ...]]


@dataclass(slots=True)
class _Unit:
    """One image while it is laid out."""

    claims: Claims = field(default_factory=Claims)
    items: dict[tuple[str, Table], list[tuple[int, int, object]]] = field(default_factory=dict)

    def put(self, kind: str, claim: Claim, item: object) -> None:
        """List an item under its addresses."""
        self.items.setdefault((kind, claim.table), []).append((claim.first, claim.end, item))

    def layout(self) -> UnitLayout:
        """What was put."""
        kinds: dict[str, dict[Table, Index[BoundTag]]] = {"guarded": {}, "read_only": {}, "written": {}}
        for (kind, table), items in self.items.items():
            kinds[kind][table] = Index(items)  # type: ignore[arg-type]  # only tags are listed as written
        return UnitLayout(**kinds)  # type: ignore[arg-type]


def lay_out(plans: Iterable[MailboxPlan], images: Mapping[int, Image]) -> Layout:
    """The layout of `plans`, by device and tag: who comes first has the addresses. `images` are the server's, by unit id.

    Without a map every unit id has the same image, so where a tag stands its unit id does not matter.
    """
    units: dict[Image, _Unit] = {}
    tags: list[BoundTag] = []
    faults: dict[str, tuple[Fault, ...]] = {}
    remarks: dict[str, tuple[Fault, ...]] = {}
    plans = sorted(plans, key=lambda plan: plan.device_id)
    choices, contradictions = _choices(plans)
    for plan in plans:
        found = [*plan.faults, *contradictions.get(plan.name, ())]
        for tag in plan.tags:
            image = images.get(tag.place.unit_id)
            claims = tag.claims
            tag = _chosen(tag, choices.get(tag.place.unit_id))
            fault = _outside(tag, image, claims)
            if not fault and image is not None:
                unit = units.setdefault(image, _Unit())
                fault = next(filter(None, map(unit.claims.collision, claims)), "")
            if fault or image is None:
                found.append(Fault(tag.full_name, fault))
                continue
            for claim in claims:
                unit.claims.take(claim)
            _list(unit, tag, claims)
            tags.append(tag)
            if tag.role is Role.SHOWN and tag.not_good is NotGood.STATUS and tag.status is None:
                text = f"has no status register: clients of unit {tag.place.unit_id} see the last value, good or not"
                remarks[plan.name] = (*remarks.get(plan.name, ()), Fault(tag.full_name, text))
        if found:
            faults[plan.name] = tuple(found)
    laid_out = {image: unit.layout() for image, unit in units.items() if unit.items}
    return Layout(tuple(tags), laid_out, faults, remarks)


def _choices(plans: Sequence[MailboxPlan]) -> tuple[Mapping[int, NotGood], Mapping[str, Sequence[Fault]]]:
    """What the terms of all devices say of a unit, the oldest device first; and by device, what contradicts that."""
    first: dict[int, tuple[NotGood, str]] = {}
    faults: dict[str, list[Fault]] = {}
    for plan in plans:
        for unit_id, not_good in plan.choices:
            chosen, by = first.setdefault(unit_id, (not_good, plan.name))
            if chosen is not not_good:
                message = f"unit {unit_id} shows {chosen}, as a term of {by} says, and not {not_good}"
                faults.setdefault(plan.name, []).append(Fault("terms", message))
    return {unit_id: chosen for unit_id, (chosen, _) in first.items()}, faults


def _chosen(tag: BoundTag, not_good: NotGood | None) -> BoundTag:
    """The tag with what its unit shows; the same object where that changes nothing, so that nothing has to be shown anew."""
    if not_good is None or not_good is tag.not_good or tag.role is not Role.SHOWN:
        return tag
    return replace(tag, not_good=not_good)


def _outside(tag: BoundTag, image: Image | None, claims: Sequence[Claim]) -> str:
    if image is None:
        return f"unit {tag.place.unit_id} is not in the server's map"
    for claim in claims:
        try:
            image.check(claim.table, claim.first, claim.end - claim.first)
        except DeviceRefused:
            return f"unit {tag.place.unit_id} {claim.table} {claim.first} is not in the server's map"
    return ""


def _list(unit: _Unit, tag: BoundTag, claims: Sequence[Claim]) -> None:
    value, *status = claims
    if tag.is_guarded:
        unit.put("guarded", value, tag)
    unit.put("read_only" if tag.is_read_only else "written", value, tag)
    for claim in status:
        unit.put("read_only", claim, tag)

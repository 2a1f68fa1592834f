"""What a device's refusals teach: a refused block is asked for in halves until it is known where nothing can be read.

Pure. Modbus says only that some address of a request is illegal (exception 2), not which one.
"""

from collections.abc import Iterator
from typing import Final

from scada.modbus.limits import Table
from scada.modbus.pdu import ExceptionCode
from scada.modbus.plan import ReadBlock, make_block

DIVISIBLE: Final = frozenset((ExceptionCode.ILLEGAL_DATA_ADDRESS, ExceptionCode.ILLEGAL_DATA_VALUE))
"""Refusals that may concern a part of a request only: an address, or its length (code 3, APS 6)."""

_MAX_TRIALS: Final = 1000
"""Halves not heard of, whose requests were never sent: beyond that many they are forgotten."""

_Range = tuple[int, Table, int, int]  # unit, table, address, end


class Learned:
    """The barriers known of the units behind one endpoint.

    A barrier is a range (first, end) that a block must not cover whole. After a single value was refused it is that value's
    range; after a block was refused but both its halves were answered it is the seam between them.

    Refusals of everything teach nothing of addresses: while no part of a planned block is answered, its values are no barriers.
    Nor is a seam before it was found twice, for the device may have begun to answer between the block and its halves.
    """

    def __init__(self) -> None:
        self.barriers: dict[tuple[int, Table], list[tuple[int, int]]] = {}
        self._trials: dict[_Range, tuple[_Range, _Range]] = {}
        """By half: both halves of a block that was refused, as long as neither has been refused."""
        self._answered: set[_Range] = set()
        self._parts: dict[_Range, _Planned] = {}
        """By part not heard of: what of its planned block is known."""
        self._seams: dict[tuple[int, Table], set[tuple[int, int]]] = {}
        """Found once."""

    def refused(self, block: ReadBlock) -> tuple[ReadBlock, ReadBlock] | None:
        """The halves to ask for instead of a refused block; None for a block of one span, which may be a barrier."""
        key, place = (block.unit_id, block.table), _range(block)
        planned = self._parts.pop(place, None)
        self._settle(place)
        if len(block.spans) == 1:
            if planned is None or planned.answers:
                self._add(*key, block.address, block.end)
            else:
                planned.refused.append((block.address, block.end))
            return None
        if planned is None:
            self._forget(block)
            planned = _Planned()
        left, right = _halves(block)
        if len(self._parts) >= _MAX_TRIALS:
            self._trials.clear()
            self._answered.clear()
            self._parts.clear()
        pair = (_range(left), _range(right))
        self._parts[pair[0]] = self._parts[pair[1]] = planned
        if pair[0] != pair[1]:
            self._trials[pair[0]] = self._trials[pair[1]] = pair
        return left, right

    def answered(self, block: ReadBlock) -> None:
        """A block was read: whatever barrier it covers is none, and both halves read show where the seam is."""
        key, place = (block.unit_id, block.table), _range(block)
        for ranges in (self.barriers.get(key), self._seams.get(key)):
            for each in [each for each in ranges or () if _covers(block, *each)]:
                ranges.remove(each)  # type: ignore[union-attr]  # None has no each
        planned = self._parts.pop(place, None)
        if planned is None:
            self._forget(block)
            return
        planned.answers = True
        while planned.refused:
            self._add(*key, *planned.refused.pop())
        pair = self._trials.get(place)
        if pair is None:
            return
        self._answered.add(place)
        if not self._answered.issuperset(pair):
            return
        (*_, left_end), (_, _, right_address, _) = pair
        self._settle(place)
        seam = (min(left_end, right_address) - 1, max(left_end, right_address) + 1)
        seams = self._seams.setdefault(key, set())
        if seam in seams:
            seams.remove(seam)
            self._add(*key, *seam)
        else:
            seams.add(seam)

    def concerns(self, block: ReadBlock) -> bool:
        """Whether an answer to `block` would teach something."""
        key, place = (block.unit_id, block.table), _range(block)
        known = (*self.barriers.get(key, ()), *self._seams.get(key, ()))
        return place in self._parts or any(_covers(block, *each) for each in known)

    def texts(self) -> Iterator[str]:
        """In words, for operators."""
        for (unit_id, table), known in sorted(self.barriers.items()):
            for first, end in sorted(known):
                if end == first + 1:
                    yield f"unit {unit_id} {table} {first}: illegal address"
                else:
                    yield f"unit {unit_id} {table} {first}-{end - 1}: refused as a whole, so not read in one request"

    def _add(self, unit_id: int, table: Table, first: int, end: int) -> None:
        known = self.barriers.setdefault((unit_id, table), [])
        if not any(first <= each[0] and each[1] <= end for each in known):  # a barrier inside says more
            known[:] = [each for each in known if not (each[0] <= first and end <= each[1])]
            known.append((first, end))

    def _forget(self, block: ReadBlock) -> None:
        """What was tried of a planned block before is of no more interest."""
        inside = [
            each for each in self._parts if each[:2] == (block.unit_id, block.table) and _covers(block, *each[2:])
        ]
        for each in inside:
            self._settle(each)
            self._parts.pop(each, None)

    def _settle(self, half: _Range) -> None:
        """The block of which this is a half was refused for a reason that is known now."""
        for each in self._trials.pop(half, ()):
            self._trials.pop(each, None)
            self._answered.discard(each)


class _Planned:
    """A planned block that was refused: whether any part of it was answered, and if none, which of its values were refused."""

    def __init__(self) -> None:
        self.answers = False
        self.refused: list[tuple[int, int]] = []


def _covers(block: ReadBlock, first: int, end: int) -> bool:
    return block.address <= first and end <= block.end


def _range(block: ReadBlock) -> _Range:
    return block.unit_id, block.table, block.address, block.end


def _halves(block: ReadBlock) -> tuple[ReadBlock, ReadBlock]:
    """`block` cut at the widest gap of its middle half: what is illegal is most likely what nobody asked for."""
    spans = block.spans
    count = len(spans)
    low, high = max(1, count // 4), min(count - 1, count - count // 4)
    end = 0
    best, at = (-block.count - 1, 0), 1
    for index, span in enumerate(spans):
        if low <= index <= high:
            best, at = max((best, at), ((span.address - end, -abs(2 * index - count)), index))
        end = max(end, span.end)
    key = (block.unit_id, block.table)
    return make_block(*key, spans[:at]), make_block(*key, spans[at:])

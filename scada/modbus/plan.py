"""Which requests read a set of values: neighbours share one, a gap is read over where that costs less, no value is torn.

Pure: extents in, blocks out. Cost is time: so much a request, so much a register; the plan of least cost is found exactly
where extents do not overlap, and it never costs more than one request for each value.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from scada.modbus.limits import MAX_READ_BITS, MAX_READ_REGISTERS, Table

Barriers = Mapping[tuple[int, Table], Sequence[tuple[int, int]]]
"""By unit and table: ranges (first, end) of addresses that no block may cover whole; a value's own range may."""

BITS_PER_REGISTER: Final = 16
_TIE_BREAK: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Extent:
    """Where one value stands: `count` registers, coils or discrete inputs from `address`."""

    unit_id: int
    table: Table
    address: int
    count: int


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What a device allows in one read. `max_gap`: most unused addresses in a row; None leaves that to the cost."""

    registers: int = MAX_READ_REGISTERS
    bits: int = MAX_READ_BITS
    max_gap: int | None = None


@dataclass(frozen=True, slots=True)
class ReadCost:
    """What a read costs: seconds for a request, and for each register (16 bits) in it."""

    per_request_s: float
    per_register_s: float


class Span(NamedTuple):
    """Addresses from `address` to before `end`, and which of the caller's extents stand just there, by index."""

    address: int
    end: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReadBlock:
    """One request: `spans` are by address, and `count` addresses from `address` hold them all."""

    unit_id: int
    table: Table
    address: int
    count: int
    spans: tuple[Span, ...]

    @property
    def members(self) -> tuple[int, ...]:
        """Indices of the extents that it reads, by address."""
        return tuple(member for span in self.spans for member in span.members)

    @property
    def end(self) -> int:
        """The first address behind the block."""
        return self.address + self.count


def plan_reads(extents: Iterable[Extent], limits: ReadLimits, cost: ReadCost, barriers: Barriers) -> list[ReadBlock]:
    """The blocks that read `extents`, each extent in exactly one, ordered by unit, table and address.

    An extent that is wider than the limits, or that has a barrier inside, has a block of its own.
    """
    places: dict[tuple[int, Table], dict[tuple[int, int], list[int]]] = {}
    for index, extent in enumerate(extents):
        ranges = places.setdefault((extent.unit_id, extent.table), {})
        ranges.setdefault((extent.address, extent.address + extent.count), []).append(index)
    blocks: list[ReadBlock] = []
    for key in sorted(places):
        spans = [Span(first, end, tuple(members)) for (first, end), members in sorted(places[key].items())]
        blocks += (make_block(*key, part) for part in _partition(spans, key[1], limits, cost, barriers.get(key, ())))
    return blocks


def make_block(unit_id: int, table: Table, spans: Sequence[Span]) -> ReadBlock:
    """The block that reads `spans`, which are ordered by address."""
    first = spans[0].address
    return ReadBlock(unit_id, table, first, max(span.end for span in spans) - first, tuple(spans))


def _partition(
    spans: Sequence[Span], table: Table, limits: ReadLimits, cost: ReadCost, barriers: Sequence[tuple[int, int]]
) -> list[Sequence[Span]]:
    """`spans` cut where that costs least.

    best[j] is the cost of the first j spans. A last block from span i to j-1 costs a request, and its length: so of all i
    that may be, the one with the least best[i] - length before i wins. Those i move forward only, and a queue holds the
    ones that can still win (a sliding window minimum), which makes this linear.
    """
    limit = min(limits.bits, MAX_READ_BITS) if table.is_bits else min(limits.registers, MAX_READ_REGISTERS)
    per_address = cost.per_register_s / BITS_PER_REGISTER if table.is_bits else cost.per_register_s
    if limits.max_gap is not None:  # then it decides, and length only between equals
        per_address = cost.per_request_s * _TIE_BREAK
    by_end = deque(sorted(barriers, key=lambda barrier: barrier[1]))
    best = [0.0]
    cut: list[int] = []
    window: deque[tuple[float, int, int]] = deque()  # key, address and index of the spans where a block may begin
    reach = floor = -1
    for index, span in enumerate(spans):
        if limits.max_gap is not None and span.address - reach > limits.max_gap:
            window.clear()
        reach = max(reach, span.end)
        while by_end and by_end[0][1] <= reach:
            floor = max(floor, by_end.popleft()[0])
        key = best[index] - per_address * span.address
        while window and window[-1][0] >= key:
            window.pop()
        window.append((key, span.address, index))
        while window and (reach - window[0][1] > limit or window[0][1] <= floor):
            window.popleft()
        alone = best[index] + cost.per_request_s + per_address * (span.end - span.address)
        shared = window[0][0] + cost.per_request_s + per_address * reach if window else alone
        best.append(min(alone, shared))
        cut.append(window[0][2] if window and shared <= alone else index)
    parts: list[Sequence[Span]] = []
    end = len(spans)
    while end:
        start = cut[end - 1]
        parts.append(spans[start:end])
        end = start
    parts.reverse()
    return parts if limits.max_gap is None else [each for part in parts for each in _without_gaps(part, limits.max_gap)]


def _without_gaps(part: Sequence[Span], max_gap: int) -> Iterator[Sequence[Span]]:
    """`part` cut where nothing of its own fills a gap: a span of another block, which overlaps it, may have hidden that."""
    start, reach = 0, part[0].end
    for index, span in enumerate(part):
        if span.address - reach > max_gap:
            yield part[start:index]
            start = index
        reach = max(reach, span.end)
    yield part[start:]

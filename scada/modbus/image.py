"""A unit's four tables in one block of memory: registers big-endian as on the wire, bits packed eight a byte.

Reading and writing are single slices of that memory, so with one thread nobody can see half of a multi-register value.
The memory is whatever the owner gives: an anonymous map, or a file mapped into memory that outlives the process.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from scada.errors import DeviceRefused
from scada.modbus.limits import MAX_ADDRESS, TABLE_SIZE, Table
from scada.modbus.pdu import ExceptionCode, packed_size, refuse

_REGISTERS_SIZE = 2 * TABLE_SIZE
_BITS_SIZE = TABLE_SIZE // 8

OFFSETS: Mapping[Table, int] = {
    Table.HOLDING_REGISTER: 0,
    Table.INPUT_REGISTER: _REGISTERS_SIZE,
    Table.COIL: 2 * _REGISTERS_SIZE,
    Table.DISCRETE_INPUT: 2 * _REGISTERS_SIZE + _BITS_SIZE,
}
"""Where each table begins in an image's memory. A saved image depends on it."""

IMAGE_SIZE = 2 * _REGISTERS_SIZE + 2 * _BITS_SIZE
"""Bytes of one image: four whole tables, however few of their addresses are mapped."""


class Memory(Protocol):
    """Bytes that are read and replaced by slices, such as mmap.mmap."""

    def __getitem__(self, part: slice, /) -> bytes: ...
    def __setitem__(self, part: slice, data: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Span:
    """Addresses `first` to `last`, both included."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= MAX_ADDRESS:
            raise ValueError(f"{self.first}-{self.last} is not a span within 0-{MAX_ADDRESS}")


WHOLE = Span(0, MAX_ADDRESS)


@dataclass(frozen=True, slots=True)
class UnitMap:
    """Which addresses of each table exist. A table that is not named has none."""

    spans: Mapping[Table, tuple[Span, ...]]

    @classmethod
    def whole(cls) -> "UnitMap":
        """Every address of every table."""
        return cls(dict.fromkeys(Table, (WHOLE,)))


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same addresses, ascending, neighbours and overlaps joined: a request may cross from one to the next."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: span.first):
        if merged and span.first <= merged[-1].last + 1:
            merged[-1] = Span(merged[-1].first, max(merged[-1].last, span.last))
        else:
            merged.append(span)
    return tuple(merged)


class Image:
    """The tables of one unit. An address outside its map raises DeviceRefused with code 2 and changes nothing."""

    __slots__ = ("_tables", "memory", "offset", "unit_map")

    def __init__(self, memory: Memory, unit_map: UnitMap | None = None, offset: int = 0) -> None:
        """Use IMAGE_SIZE bytes of `memory` from `offset`; without a map every address exists."""
        self.unit_map = unit_map or UnitMap.whole()
        self.memory = memory
        self.offset = offset
        # For each table: where it begins, then the first address and the end of each of its spans.
        self._tables: dict[Table, tuple[int, tuple[int, ...], tuple[int, ...]]] = {}
        for table, at in OFFSETS.items():
            spans = merge(self.unit_map.spans.get(table, ()))
            self._tables[table] = offset + at, tuple(s.first for s in spans), tuple(s.last + 1 for s in spans)

    def check(self, table: Table, address: int, count: int) -> None:
        """DeviceRefused (code 2) unless `count` addresses from `address` are all mapped."""
        _, firsts, ends = self._tables[table]
        span = bisect_right(firsts, address) - 1
        if span < 0 or address + count > ends[span]:
            raise _outside(table, address, count)

    def has_effects(self, table: Table, address: int, count: int, *, writing: bool) -> bool:
        """Whether reading, or writing, these addresses is more than a slice of `memory`: then nothing may keep that slice."""
        return False

    def registers(self, table: Table, address: int, count: int) -> slice:
        """The part of `memory` that holds `count` registers: what may be kept, once it was checked, and used many times."""
        base, firsts, ends = self._tables[table]
        span = bisect_right(firsts, address) - 1
        if span < 0 or address + count > ends[span]:
            raise _outside(table, address, count)
        at = base + 2 * address
        return slice(at, at + 2 * count)

    def read_registers(self, table: Table, address: int, count: int) -> bytes:
        """`count` registers, two bytes each, big-endian."""
        return self.memory[self.registers(table, address, count)]

    def write_registers(self, table: Table, address: int, data: bytes) -> None:
        """Replace len(data) / 2 registers by big-endian bytes."""
        self.memory[self.registers(table, address, len(data) // 2)] = data

    def read_bits(self, table: Table, address: int, count: int) -> bytes:
        """`count` bits, packed: the lowest address in the lowest bit of the first byte, filled up with zeros."""
        self.check(table, address, count)
        start, shift = self._tables[table][0] + address // 8, address % 8
        bits = int.from_bytes(self.memory[start : start + packed_size(shift + count)], "little") >> shift
        return (bits & ((1 << count) - 1)).to_bytes(packed_size(count), "little")

    def write_bits(self, table: Table, address: int, count: int, data: bytes) -> None:
        """Replace `count` bits by the packed bits in `data`; what its last byte has beyond them is ignored."""
        self.check(table, address, count)
        start, shift = self._tables[table][0] + address // 8, address % 8
        size = packed_size(shift + count)
        mask = ((1 << count) - 1) << shift
        old = int.from_bytes(self.memory[start : start + size], "little")
        new = int.from_bytes(data, "little") << shift & mask
        self.memory[start : start + size] = (old & ~mask | new).to_bytes(size, "little")


def _outside(table: Table, address: int, count: int) -> DeviceRefused:
    return refuse(ExceptionCode.ILLEGAL_DATA_ADDRESS, f"{table} {address}, {count} of them: not mapped")

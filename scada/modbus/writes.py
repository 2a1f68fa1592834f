"""Which requests carry a batch of values to a Modbus endpoint: contiguous values share one request, no value is torn.

Pure: cells in, requests out. A cell is one value of one binding; its registers always travel in the same request.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from scada.modbus.limits import MAX_WRITE_BITS, MAX_WRITE_REGISTERS, Table
from scada.modbus.registers import bit_masks


class Cell(Protocol):
    """A value to be written: register bytes (a coil: one byte, a bit: the register with only that bit) at a place.

    `limit` is the most registers (coils) its device takes in one write; `alone` keeps it out of other cells' requests.
    """

    @property
    def unit_id(self) -> int: ...
    @property
    def table(self) -> Table: ...
    @property
    def address(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def bit(self) -> int | None: ...
    @property
    def limit(self) -> int: ...
    @property
    def alone(self) -> bool: ...
    @property
    def data(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """One request on the wire. `data`: register bytes, or one byte a coil.

    Where `masks` is set, only some bits of the one register at `address` change: (AND mask, OR mask) of function 22.
    """

    unit_id: int
    table: Table
    address: int
    data: bytes
    cells: tuple[Cell, ...]
    masks: tuple[int, int] | None = None


def plan_writes(cells: Iterable[Cell]) -> list[WriteRequest]:
    """The fewest requests that write `cells`, ordered by unit, table and address."""
    ordered = sorted(cells, key=_place)
    blocks = _block_requests(cell for cell in ordered if cell.bit is None)
    return [*blocks, *_mask_requests(cell for cell in ordered if cell.bit is not None)]


def _place(cell: Cell) -> tuple[int, str, int]:
    return (cell.unit_id, cell.table, cell.address)


def _block_requests(cells: Iterable[Cell]) -> Iterator[WriteRequest]:
    run: list[Cell] = []
    end = limit = 0
    for cell in cells:
        head = run[0] if run else None
        if (
            head is not None
            and not (cell.alone or head.alone)
            and cell.address == end
            and (cell.unit_id, cell.table) == (head.unit_id, head.table)
            and end + cell.count - head.address <= min(limit, _limit(cell))
        ):
            run.append(cell)
        else:
            if run:
                yield _block(run)
            run = [cell]
            limit = _limit(cell)
        limit = min(limit, _limit(cell))
        end = cell.address + cell.count
    if run:
        yield _block(run)


def _limit(cell: Cell) -> int:
    return min(cell.limit, MAX_WRITE_BITS if cell.table is Table.COIL else MAX_WRITE_REGISTERS)


def _block(run: list[Cell]) -> WriteRequest:
    head = run[0]
    data = head.data if len(run) == 1 else b"".join(cell.data for cell in run)
    return WriteRequest(head.unit_id, head.table, head.address, data, tuple(run))


def _mask_requests(cells: Iterable[Cell]) -> Iterator[WriteRequest]:
    for (unit_id, address, _), group in groupby(cells, key=lambda c: (c.unit_id, c.address, c.alone)):
        members = tuple(group)
        and_mask, or_mask = 0xFFFF, 0
        for cell in members:
            bit = cell.bit or 0
            mask, _ = bit_masks(bit, False)
            and_mask &= mask
            or_mask |= int.from_bytes(cell.data, "big") & ~mask & 0xFFFF
        data = or_mask.to_bytes(2, "big")
        yield WriteRequest(unit_id, Table.HOLDING_REGISTER, address, data, members, (and_mask, or_mask))

"""Batches of values become as few requests as the specification and the device allow, and no value is torn."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.modbus.limits import MAX_WRITE_BITS, MAX_WRITE_REGISTERS, Table
from scada.modbus.writes import plan_writes


@dataclass(frozen=True)
class Cell:
    address: int
    data: bytes
    unit_id: int = 1
    table: Table = Table.HOLDING_REGISTER
    bit: int | None = None
    limit: int = 10_000
    alone: bool = False

    @property
    def count(self) -> int:
        return 1 if self.table is Table.COIL else len(self.data) // 2


def shapes(cells: list[Cell]) -> list[tuple[int, int, bytes]]:
    return [(r.unit_id, r.address, r.data) for r in plan_writes(cells)]


def test_contiguous_values_share_one_request_in_address_order() -> None:
    cells = [Cell(12, b"\x00\x03"), Cell(10, b"\x00\x01\x00\x02"), Cell(13, b"\x00\x04")]
    assert shapes(cells) == [(1, 10, bytes.fromhex("0001000200030004"))]


def test_a_gap_another_unit_and_another_table_start_new_requests() -> None:
    cells = [Cell(10, b"\0\1"), Cell(12, b"\0\2"), Cell(11, b"\0\3", unit_id=2), Cell(13, b"\1", table=Table.COIL)]
    assert [(r.unit_id, r.table, r.address) for r in plan_writes(cells)] == [
        (1, Table.COIL, 13),
        (1, Table.HOLDING_REGISTER, 10),
        (1, Table.HOLDING_REGISTER, 12),
        (2, Table.HOLDING_REGISTER, 11),
    ]


def test_two_values_for_one_register_are_not_merged() -> None:
    assert len(plan_writes([Cell(10, b"\0\1"), Cell(10, b"\0\2")])) == 2


def test_a_refused_value_travels_alone() -> None:
    cells = [Cell(10, b"\0\1"), Cell(11, b"\0\2", alone=True), Cell(12, b"\0\3")]
    assert [r.address for r in plan_writes(cells)] == [10, 11, 12]


@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        ({0: True}, (0xFFFE, 0x0001)),
        ({0: False}, (0xFFFE, 0x0000)),
        ({3: True, 15: False}, (0x7FF7, 0x0008)),
        (dict.fromkeys(range(16), True), (0x0000, 0xFFFF)),
    ],
)
def test_bits_of_one_register_are_one_masked_write(bits: dict[int, bool], masks: tuple[int, int]) -> None:
    cells = [Cell(7, (int(value) << bit).to_bytes(2, "big"), bit=bit) for bit, value in bits.items()]
    (request,) = plan_writes(cells)
    assert request.masks == masks
    assert request.address == 7
    assert len(request.cells) == len(bits)


@given(
    st.lists(
        st.builds(
            lambda address, words, unit, limit: Cell(address, bytes(2 * words), unit, limit=limit),
            st.integers(0, 400),
            st.sampled_from([1, 2, 4]),
            st.integers(1, 2),
            st.sampled_from([4, 10, 123]),
        ),
        max_size=60,
    )
)
def test_every_value_is_sent_once_whole_and_within_every_limit(cells: list[Cell]) -> None:
    requests = plan_writes(cells)
    sent = [cell for request in requests for cell in request.cells]
    assert sorted(map(id, sent)) == sorted(map(id, cells))
    for request in requests:
        count = len(request.data) // 2
        assert count <= MAX_WRITE_REGISTERS
        assert count <= min(cell.limit for cell in request.cells)
        address = request.address
        for cell in request.cells:
            assert cell.address == address
            address += cell.count
        assert address == request.address + count


def test_coils_keep_the_limit_of_function_15() -> None:
    cells = [Cell(address, b"\1", table=Table.COIL) for address in range(MAX_WRITE_BITS + 5)]
    assert [len(r.data) for r in plan_writes(cells)] == [MAX_WRITE_BITS, 5]

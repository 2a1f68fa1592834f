import mmap
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.errors import DeviceRefused
from scada.modbus.image import IMAGE_SIZE, Image, Span, UnitMap, merge
from scada.modbus.limits import Table

REGISTER_TABLES = [Table.HOLDING_REGISTER, Table.INPUT_REGISTER]
BIT_TABLES = [Table.COIL, Table.DISCRETE_INPUT]


def image(unit_map: UnitMap | None = None, offset: int = 0) -> Image:
    return Image(mmap.mmap(-1, offset + IMAGE_SIZE), unit_map, offset)


@pytest.mark.parametrize("table", REGISTER_TABLES)
def test_registers_stand_in_memory_as_on_the_wire(table: Table) -> None:
    one = image()
    one.write_registers(table, 65534, b"\x12\x34\x56\x78")
    assert one.read_registers(table, 65534, 2) == b"\x12\x34\x56\x78"
    assert one.memory[one.registers(table, 65535, 1)] == b"\x56\x78"


def test_tables_and_images_do_not_overlap() -> None:
    memory = mmap.mmap(-1, 100 + 2 * IMAGE_SIZE)
    images = [Image(memory, offset=100), Image(memory, offset=100 + IMAGE_SIZE)]
    for place, one in enumerate(images):
        for number, table in enumerate(REGISTER_TABLES):
            one.write_registers(table, 0, bytes([place * 16 + number]) * 2 * 65536)
        for number, table in enumerate(BIT_TABLES):
            for address in range(65536 // 1024):
                one.write_bits(table, address * 1024, 1024, bytes([place * 16 + 8 + number]) * 128)
    assert memory[:100] == bytes(100)
    for place, one in enumerate(images):
        for number, table in enumerate(REGISTER_TABLES):
            assert one.read_registers(table, 0, 65536) == bytes([place * 16 + number]) * 2 * 65536
        for number, table in enumerate(BIT_TABLES):
            assert one.read_bits(table, 0, 65536) == bytes([place * 16 + 8 + number]) * 8192


SPARSE = UnitMap({Table.HOLDING_REGISTER: (Span(10, 19), Span(20, 29), Span(100, 100)), Table.COIL: (Span(0, 7),)})


@pytest.mark.parametrize(
    ("table", "address", "count", "exists"),
    [
        (Table.HOLDING_REGISTER, 10, 1, True),
        (Table.HOLDING_REGISTER, 10, 20, True),  # across two spans that touch
        (Table.HOLDING_REGISTER, 9, 1, False),
        (Table.HOLDING_REGISTER, 9, 2, False),
        (Table.HOLDING_REGISTER, 29, 2, False),
        (Table.HOLDING_REGISTER, 100, 1, True),
        (Table.HOLDING_REGISTER, 101, 1, False),
        (Table.HOLDING_REGISTER, 10, 91, False),
        (Table.INPUT_REGISTER, 0, 1, False),
        (Table.COIL, 0, 8, True),
        (Table.COIL, 7, 2, False),
        (Table.DISCRETE_INPUT, 0, 1, False),
    ],
)
def test_addresses_outside_the_map_are_refused_and_nothing_changes(
    table: Table, address: int, count: int, exists: bool
) -> None:
    one = image(SPARSE)
    before = one.memory[:IMAGE_SIZE]
    data = b"\xff" * (2 * count)
    for access in (
        (lambda: one.write_bits(table, address, count, data), lambda: one.read_bits(table, address, count))
        if table.is_bits
        else (lambda: one.write_registers(table, address, data), lambda: one.read_registers(table, address, count))
    ):
        if exists:
            access()
        else:
            with pytest.raises(DeviceRefused) as caught:
                access()
            assert caught.value.code == 2
            assert one.memory[:IMAGE_SIZE] == before


@pytest.mark.parametrize("table", list(Table))
def test_the_end_of_the_address_space(table: Table) -> None:
    one = image()
    one.check(table, 65535, 1)
    for address, count in ((65535, 2), (65536, 1), (0, 65537)):
        with pytest.raises(DeviceRefused):
            one.check(table, address, count)


@given(st.integers(0, 200), st.lists(st.booleans(), min_size=1, max_size=300))
def test_bits_read_as_written_and_neighbours_stay(address: int, bits: list[bool]) -> None:
    one = image()
    for background in (b"\x00", b"\xff"):
        one.write_bits(Table.COIL, 0, 1024, background * 128)
        packed = sum(bit << at for at, bit in enumerate(bits)).to_bytes((len(bits) + 7) // 8, "little")
        # The unused bits of the last byte are the client's rubbish.
        dirty = packed[:-1] + bytes([packed[-1] | (0xFF << (len(bits) % 8 or 8)) & 0xFF])
        one.write_bits(Table.COIL, address, len(bits), dirty)
        assert one.read_bits(Table.COIL, address, len(bits)) == packed
        around = [one.read_bits(Table.COIL, at, 1) == b"\x01" for at in range(address + len(bits) + 9)]
        edge = background == b"\xff"
        assert around == [edge] * address + bits + [edge] * 9


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 20)), max_size=12))
def test_merging_spans_keeps_exactly_their_addresses(parts: list[tuple[int, int]]) -> None:
    spans = [Span(first, first + more) for first, more in parts]
    merged = merge(spans)
    wanted = {address for span in spans for address in range(span.first, span.last + 1)}
    assert {address for span in merged for address in range(span.first, span.last + 1)} == wanted
    assert all(one.last + 1 < other.first for one, other in pairwise(merged))


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (5, 4), (0, 65536)])
def test_an_impossible_span_is_refused(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="span"):
        Span(first, last)

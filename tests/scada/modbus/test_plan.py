"""Read plans: no value torn or forgotten, no limit or barrier crossed, never dearer than one request for each value."""

from itertools import combinations, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scada.modbus.limits import Table
from scada.modbus.plan import BITS_PER_REGISTER, Extent, ReadBlock, ReadCost, ReadLimits, plan_reads

COST = ReadCost(1e-3, 1e-5)
HOLDING = Table.HOLDING_REGISTER

extents = st.builds(
    Extent,
    unit_id=st.sampled_from([1, 2]),
    table=st.sampled_from(list(Table)),
    address=st.integers(0, 400),
    count=st.sampled_from([1, 1, 2, 2, 4, 10, 125]),
).map(lambda each: Extent(each.unit_id, each.table, each.address, 1) if each.table.is_bits else each)
limits = st.builds(
    ReadLimits, st.integers(1, 125), st.integers(1, 2000), st.one_of(st.none(), st.none(), st.integers(0, 200))
)
costs = st.builds(ReadCost, st.floats(1e-5, 1.0), st.floats(1e-7, 1e-2))
ranges = st.tuples(st.integers(0, 410), st.integers(1, 12)).map(lambda pair: (pair[0], sum(pair)))
barriers = st.dictionaries(
    st.tuples(st.sampled_from([1, 2]), st.sampled_from(list(Table))), st.lists(ranges, max_size=6), max_size=4
)

NARROW = ReadLimits(registers=3, bits=1, max_gap=0)


def floats(count: int, step: int = 2, start: int = 0) -> list[Extent]:
    return [Extent(1, HOLDING, start + step * index, 2) for index in range(count)]


def shapes(blocks: list[ReadBlock]) -> list[tuple[int, int]]:
    return [(block.address, block.count) for block in blocks]


def price(table: Table, count: int, cost: ReadCost) -> float:
    return cost.per_request_s + cost.per_register_s * (count / BITS_PER_REGISTER if table.is_bits else count)


@given(st.lists(extents, max_size=60), limits, costs, barriers)
@example([Extent(1, HOLDING, 0, 4), Extent(1, HOLDING, 2, 4)], ReadLimits(), COST, {(1, HOLDING): [(0, 4)]})
@example([Extent(1, HOLDING, 0, 1), Extent(1, HOLDING, 5, 10), Extent(1, HOLDING, 6, 1)], ReadLimits(12), COST, {})
@example([Extent(1, HOLDING, 87, 125), Extent(1, HOLDING, 210, 1), Extent(1, HOLDING, 212, 1)], NARROW, COST, {})
@example(
    [Extent(1, HOLDING, 0, 10), Extent(1, HOLDING, 5, 1), Extent(1, HOLDING, 12, 1)], ReadLimits(12, 1, 3), COST, {}
)
def test_every_plan_is_whole_and_within_its_bounds(
    wanted: list[Extent],
    limits: ReadLimits,
    cost: ReadCost,
    barriers: dict[tuple[int, Table], list[tuple[int, int]]],
) -> None:
    blocks = plan_reads(wanted, limits, cost, barriers)
    assert sorted(member for block in blocks for member in block.members) == list(range(len(wanted)))
    for block in blocks:
        own = [wanted[member] for member in block.members]
        assert {(each.unit_id, each.table) for each in own} == {(block.unit_id, block.table)}
        assert block.address == min(each.address for each in own)
        assert block.end == max(each.address + each.count for each in own)
        alone = all((each.address, each.count) == (block.address, block.count) for each in own)
        assert alone or block.count <= (limits.bits if block.table.is_bits else limits.registers)
        for first, end in barriers.get((block.unit_id, block.table), ()):
            assert alone or not (block.address <= first and end <= block.end)
        if limits.max_gap is not None:
            used = {address for each in own for address in range(each.address, each.address + each.count)}
            free = "".join("x" if address in used else "." for address in range(block.address, block.end))
            assert max(map(len, free.split("x"))) <= limits.max_gap
    if limits.max_gap is None:
        one_by_one = {(each.unit_id, each.table, each.address, each.count) for each in wanted}
        together = sum(price(block.table, block.count, cost) for block in blocks)
        assert together <= sum(price(table, count, cost) for _, table, _, count in one_by_one) * (1 + 1e-9)


@given(st.sets(st.integers(0, 60), min_size=1, max_size=9), st.integers(1, 40), costs)
def test_no_other_plan_costs_less(addresses: set[int], limit: int, cost: ReadCost) -> None:
    ordered = sorted(addresses)
    wanted = [Extent(1, HOLDING, address, 1) for address in ordered]
    planned = sum(price(HOLDING, b.count, cost) for b in plan_reads(wanted, ReadLimits(limit), cost, {}))
    for parts in range(len(ordered)):
        for cuts in combinations(range(1, len(ordered)), parts):
            edges = (0, *cuts, len(ordered))
            counts = [ordered[b - 1] - ordered[a] + 1 for a, b in pairwise(edges)]
            if max(counts) <= limit:
                assert planned <= sum(price(HOLDING, count, cost) for count in counts) * (1 + 1e-9)


def test_a_thousand_contiguous_floats_need_a_fiftieth_of_the_requests() -> None:
    blocks = plan_reads(floats(1000), ReadLimits(), COST, {})
    assert len(blocks) <= 1000 / 50
    assert all(block.address % 2 == 0 and block.count % 2 == 0 for block in blocks), "a float is torn"


def test_a_fifth_of_the_addresses_unused_costs_a_fifth_more_requests() -> None:
    wanted = [each for each in floats(1250) if (each.address // 2) % 5 != 4]
    assert len(wanted) == 1000
    assert len(plan_reads(wanted, ReadLimits(), COST, {})) <= 21


@pytest.mark.parametrize(("gap", "requests"), [(99, 1), (101, 2)])
def test_a_gap_is_bridged_when_that_is_cheaper_than_a_request(gap: int, requests: int) -> None:
    wanted = [Extent(1, HOLDING, 0, 1), Extent(1, HOLDING, 1 + gap, 1)]
    assert len(plan_reads(wanted, ReadLimits(), COST, {})) == requests


@pytest.mark.parametrize(("gap", "requests"), [(1599, 1), (1601, 2)])
def test_sixteen_bits_cost_as_much_as_a_register(gap: int, requests: int) -> None:
    wanted = [Extent(1, Table.COIL, 0, 1), Extent(1, Table.COIL, 1 + gap, 1)]
    assert len(plan_reads(wanted, ReadLimits(), COST, {})) == requests


@pytest.mark.parametrize(("gap", "requests"), [(100, 1), (101, 2)])
def test_the_configured_gap_overrides_the_cost(gap: int, requests: int) -> None:
    wanted = [Extent(1, HOLDING, 0, 1), Extent(1, HOLDING, 1 + gap, 1)]
    for cost in (ReadCost(1e-6, 1.0), ReadCost(1.0, 1e-6)):
        assert len(plan_reads(wanted, ReadLimits(max_gap=100), cost, {})) == requests


def test_what_a_longer_value_covers_is_no_gap() -> None:
    wanted = [Extent(1, HOLDING, 0, 10), Extent(1, HOLDING, 1, 1), Extent(1, HOLDING, 11, 1)]
    assert shapes(plan_reads(wanted, ReadLimits(max_gap=1), COST, {})) == [(0, 12)]


def test_a_cut_that_the_limit_asks_for_falls_into_a_gap() -> None:
    wanted = [*floats(40), *floats(40, start=100)]
    assert shapes(plan_reads(wanted, ReadLimits(), COST, {})) == [(0, 80), (100, 80)]


def test_bits_of_one_register_and_equal_tags_share_its_place() -> None:
    wanted = [Extent(1, HOLDING, 7, 1)] * 16 + [Extent(1, HOLDING, 6, 2)]
    (block,) = plan_reads(wanted, ReadLimits(), COST, {})
    assert (block.address, block.count) == (6, 2)
    assert block.members == (16, *range(16))


def test_a_value_wider_than_the_limit_is_asked_for_alone_because_it_cannot_be_torn() -> None:
    wanted = [Extent(1, HOLDING, 0, 1), Extent(1, HOLDING, 1, 4), Extent(1, HOLDING, 5, 1)]
    assert shapes(plan_reads(wanted, ReadLimits(registers=2), COST, {})) == [(0, 1), (1, 4), (5, 1)]


def test_two_thousand_coils_are_one_request() -> None:
    wanted = [Extent(1, Table.COIL, address, 1) for address in range(2001)]
    assert shapes(plan_reads(wanted[:-1], ReadLimits(), COST, {})) == [(0, 2000)]
    assert len(plan_reads(wanted, ReadLimits(), COST, {})) == 2


def test_units_and_tables_are_never_mixed() -> None:
    wanted = [Extent(unit, table, 0, 1) for unit in (2, 1) for table in Table]
    assert len(plan_reads(wanted, ReadLimits(), COST, {})) == 8


def test_a_known_illegal_address_is_left_out() -> None:
    wanted = floats(20, step=3)
    assert shapes(plan_reads(wanted, ReadLimits(), COST, {(1, HOLDING): [(30, 32)]})) == [(0, 29), (30, 2), (33, 26)]
    # An unused one in between is not read across either; another unit's says nothing.
    assert shapes(plan_reads(wanted, ReadLimits(), COST, {(1, HOLDING): [(32, 33)]})) == [(0, 32), (33, 26)]
    assert shapes(plan_reads(wanted, ReadLimits(), COST, {(2, HOLDING): [(32, 33)]})) == [(0, 59)]

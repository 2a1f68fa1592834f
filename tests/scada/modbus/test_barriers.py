"""Illegal addresses are found by halving what was refused, and are not asked for again."""

from math import log2

from hypothesis import given, settings
from hypothesis import strategies as st

from scada.modbus.barriers import Learned
from scada.modbus.limits import Table
from scada.modbus.plan import Extent, ReadBlock, ReadCost, ReadLimits, Span, make_block, plan_reads

HOLDING = Table.HOLDING_REGISTER
COST = ReadCost(1e-3, 1e-5)


class Device:
    """Refuses what touches an illegal address, or is longer than `longest`."""

    def __init__(self, illegal: set[int], longest: int = 125) -> None:
        self.illegal, self.longest = illegal, longest
        self.asked = self.refused = 0
        self.refused_with_legal = 0
        """Refused requests for something that is legal."""

    def poll(self, wanted: list[Extent], learned: Learned, limits: ReadLimits | None = None) -> set[int]:
        """One cycle as field_server does it; the members that were read."""
        read: set[int] = set()
        queue = plan_reads(wanted, limits or ReadLimits(), COST, learned.barriers)
        while queue:
            block = queue.pop(0)
            self.asked += 1
            if self._answers(block):
                learned.answered(block)
                read.update(block.members)
                continue
            self.refused += 1
            self.refused_with_legal += any(map(self._answers, map(_alone, block.spans)))
            queue += learned.refused(block) or ()
        return read

    def _answers(self, block: ReadBlock) -> bool:
        return block.count <= self.longest and self.illegal.isdisjoint(range(block.address, block.end))


def _alone(span: Span) -> ReadBlock:
    return make_block(1, HOLDING, [span])


def tags(addresses: list[int], count: int = 1) -> list[Extent]:
    return [Extent(1, HOLDING, address, count) for address in addresses]


def test_one_illegal_tag_is_found_in_few_requests_and_then_asked_for_alone() -> None:
    device, learned = Device({77}), Learned()
    wanted = tags(list(range(125)))
    assert device.poll(wanted, learned) == set(range(125)) - {77}
    assert device.refused <= 2 + log2(125) * 2
    assert learned.barriers == {(1, HOLDING): [(77, 78)]}
    assert [*learned.texts()] == ["unit 1 holding_register 77: illegal address"]
    device.asked = device.refused = 0
    assert device.poll(wanted, learned) == set(range(125)) - {77}
    assert (device.asked, device.refused) == (3, 1)


def test_an_illegal_address_that_nobody_asked_for_becomes_a_seam() -> None:
    device, learned = Device({50}), Learned()
    wanted = tags([*range(0, 50, 2), *range(52, 100, 2)])
    for _ in range(2):
        assert device.poll(wanted, learned) == set(range(len(wanted)))
    device.asked = device.refused = 0
    assert device.poll(wanted, learned) == set(range(len(wanted)))
    assert (device.asked, device.refused) == (2, 0)


def test_a_device_that_answers_less_than_it_should_is_asked_for_less() -> None:
    device, learned = Device(set(), longest=64), Learned()
    wanted = tags(list(range(0, 1000, 2)), 2)
    for _ in range(4):
        assert device.poll(wanted, learned) == set(range(500))
    device.asked = device.refused = 0
    assert device.poll(wanted, learned) == set(range(500))
    assert device.refused == 0
    assert device.asked <= 17


def test_an_address_that_became_legal_is_read_with_the_others_again() -> None:
    device, learned = Device({5}), Learned()
    wanted = tags(list(range(10)))
    device.poll(wanted, learned)
    device.illegal.clear()
    assert device.poll(wanted, learned) == set(range(10))
    device.asked = 0
    device.poll(wanted, learned)
    assert device.asked == 1
    assert learned.barriers == {(1, HOLDING): []}


def test_a_device_that_refuses_everything_teaches_nothing() -> None:
    """Each of its values was called illegal, and asked for alone from then on."""
    device, learned = Device(set(range(200))), Learned()
    wanted = tags(list(range(200)))
    for _ in range(3):
        assert device.poll(wanted, learned) == set()
    assert [*learned.texts()] == []
    device.illegal.clear()
    device.asked = 0
    assert device.poll(wanted, learned) == set(range(200))
    assert device.asked == 2


def test_a_device_that_answers_again_between_a_block_and_its_halves_has_no_seam() -> None:
    device, learned = Device(set()), Learned()
    wanted = tags(list(range(125)))
    for _ in range(3):
        (block,) = plan_reads(wanted, ReadLimits(), COST, learned.barriers)
        halves = learned.refused(block)
        assert halves is not None
        for half in halves:
            learned.answered(half)
        assert device.poll(wanted, learned) == set(range(125))
    assert [*learned.texts()] == []


def test_what_was_refused_while_everything_was_is_not_illegal_once_a_part_is_answered() -> None:
    device, learned = Device(set(range(20))), Learned()
    wanted = tags(list(range(20)))
    device.poll(wanted, learned)
    device.illegal = {3}
    assert device.poll(wanted, learned) == set(range(20)) - {3}
    assert [*learned.texts()] == ["unit 1 holding_register 3: illegal address"]


def test_only_the_block_that_taught_something_concerns() -> None:
    learned = Learned()
    (block,) = plan_reads(tags([1, 2, 3, 4]), ReadLimits(), COST, {})
    assert not learned.concerns(block)
    halves = learned.refused(block)
    assert halves is not None
    assert all(map(learned.concerns, halves))
    for half in halves:
        learned.answered(half)
    assert not any(map(learned.concerns, halves))


@settings(max_examples=60)
@given(
    st.lists(
        st.builds(Extent, st.just(1), st.just(HOLDING), st.integers(0, 200), st.sampled_from([1, 2, 4])), max_size=60
    ),
    st.sets(st.integers(0, 204), max_size=8),
    st.sampled_from([None, 0, 30]),
    st.integers(4, 125),
)
def test_whatever_is_legal_is_read_at_once_and_refusals_end(
    wanted: list[Extent], illegal: set[int], max_gap: int | None, longest: int
) -> None:
    device, learned, limits = Device(illegal, longest), Learned(), ReadLimits(max_gap=max_gap)
    legal = {i for i, each in enumerate(wanted) if illegal.isdisjoint(range(each.address, each.address + each.count))}
    for _ in range(12):
        device.refused_with_legal = 0
        assert device.poll(wanted, learned, limits) == legal
    assert device.refused_with_legal == 0, "what is illegal is known, and spoils no request for what is legal"

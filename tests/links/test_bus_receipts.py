"""Which samples no longer depend on this process, in the order in which they were published."""

from links.bus_receipts import Receipts


def test_batches_are_told_in_order_whatever_order_they_are_done_in() -> None:
    told: list[tuple[str, int]] = []
    receipts = Receipts(lambda device, count: told.append((device, count)))
    receipts.done([1, 2])  # of an earlier run
    for number, device in ((5, "a"), (6, "b"), (8, "a")):
        receipts.add(number, device, number * 10)
    receipts.done([8, 4])
    assert told == []
    receipts.done([5])
    assert told == [("a", 50)]
    receipts.done([5, 6])
    assert told == [("a", 50), ("b", 60), ("a", 80)]
    receipts.add(9, "c", 1)
    receipts.done([8])
    assert len(told) == 3
    receipts.done([9])
    assert told[-1] == ("c", 1)

"""When a binding's value goes out, and which message it settles."""

from typing import Any

import pytest

from mqtt_server import slots
from mqtt_server.slots import Slot, Ticket
from scada.outputs import Write
from tests.support.bindings import out_plan


def slot(**options: Any) -> Slot:
    return Slot(out_plan(**options))


def offer(target: Slot, value: float) -> Ticket:
    ticket = Ticket(None)
    target.offer(Write(target.out, int(value).to_bytes(2, "big"), value, 0), ticket)
    return ticket


def send(target: Slot, now: float = 0.0) -> tuple[float, list[Ticket]]:
    entry = target.take()
    assert entry is not None
    target.confirmed(now)
    return entry.write.value, entry.tickets  # type: ignore[return-value]


def test_the_latest_value_wins_and_settles_the_superseded_messages() -> None:
    target = slot()
    first, second = offer(target, 1), offer(target, 2)
    assert send(target) == (2, [first, second])
    assert target.take() is None


def test_a_value_that_comes_during_the_write_waits_for_the_next() -> None:
    target = slot()
    first = offer(target, 1)
    assert target.take() is not None
    second = offer(target, 2)
    assert target.confirmed(0.0).tickets == [first]
    assert send(target) == (2, [second])


def test_a_failed_write_yields_to_a_newer_value_but_keeps_its_messages() -> None:
    target = slot()
    first = offer(target, 1)
    target.take()
    second = offer(target, 2)
    target.requeue()
    assert send(target) == (2, [first, second])


def test_messages_of_qos_0_do_not_pile_up_while_nothing_can_be_written_or_parked() -> None:
    target = slot()
    for value in range(1000):
        target.offer(Write(target.out, b"\0\1", value, 0), Ticket(None, owed=False))
        if value % 10 == 0:
            target.take()
        if value % 10 == 5:
            target.requeue()
    (entry,) = target.entries()
    assert (entry.write.value, len(entry.tickets)) == (999, 1), "still one: a value without any is not parked"


def test_a_failed_write_alone_is_sent_again() -> None:
    target = slot()
    first = offer(target, 1)
    target.take()
    target.requeue()
    assert send(target) == (1, [first])


def test_every_value_keeps_its_order_also_after_a_failure() -> None:
    target = slot(every_value=True)
    tickets = [offer(target, value) for value in (1, 2, 3)]
    target.take()
    target.requeue()
    assert [send(target) for _ in range(3)] == [(1, [tickets[0]]), (2, [tickets[1]]), (3, [tickets[2]])]


def test_a_full_queue_drops_the_oldest_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "MAX_QUEUE", 2)
    target = slot(every_value=True)
    tickets = [offer(target, value) for value in (1, 2)]
    dropped = target.offer(Write(target.out, b"\0\3", 3, 0), None)
    assert [entry.tickets for entry in dropped] == [[tickets[0]]]
    assert [entry.write.value for entry in target.entries()] == [2, 3]


@pytest.mark.parametrize(
    ("options", "old", "new", "unchanged"),
    [
        ({}, 5, 5, False),
        ({"on_change": True}, 5, 5, True),
        ({"on_change": True}, 5, 6, False),
        ({"deadband": 2.0}, 5, 6, True),
        ({"deadband": 2.0}, 5, 7, True),
        ({"deadband": 2.0}, 5, 8, False),
        ({"deadband": 0.1, "on_change": True}, 5.0, 5.4, True),
    ],
)
def test_values_that_need_not_be_sent(options: dict[str, Any], old: float, new: float, unchanged: bool) -> None:
    target = slot(**options)
    offer(target, old)
    send(target)
    assert target.unchanged(Write(target.out, int(new).to_bytes(2, "big"), new, 0)) is unchanged


def test_the_interval_between_writes_counts_from_the_confirmation() -> None:
    target = slot(min_interval_s=5.0)
    offer(target, 1)
    send(target, now=100.0)
    assert target.not_before == 105.0


def test_a_refused_binding_travels_alone_until_it_is_confirmed() -> None:
    target = slot()
    offer(target, 1)
    target.take()
    target.refused("no", 100.0)
    assert target.alone
    assert target.refused_until == 100.0 + slots.REFUSED_PAUSE_S
    offer(target, 2)
    send(target, now=200.0)
    assert not target.alone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.command_book import ID_KEPT_S, CommandBook
from scada.commands import FINAL, Command, CommandState, may_follow
from scada.errors import ProtocolError
from scada.values import Value

NOW = 1_700_000_000_000
A, S, K, V = CommandState.ACCEPTED, CommandState.SENT, CommandState.ACKNOWLEDGED, CommandState.VERIFIED
F, E, U = CommandState.FAILED, CommandState.EXPIRED, CommandState.SUPERSEDED


def command(id: str, tag: str = "level", value: Value = 5, left_ms: int = 5_000, device: str = "boiler") -> Command:
    return Command(id, device, {tag: value}, NOW + left_ms, "anna", "console")


def group(id: str, *tags: str) -> Command:
    return Command(id, "boiler", dict.fromkeys(tags, 1), NOW + 5_000, group=True)


@pytest.fixture
def book() -> CommandBook:
    return CommandBook()


def test_a_command_goes_its_way(book: CommandBook) -> None:
    admission = book.admit(command("1"), NOW, 10.0, old_value=4)
    assert (admission.run, admission.refusal) == (True, "")
    steps = [*admission.steps]
    for state in (S, K, V):
        step = book.move("1", state, NOW + len(steps), 0.0)
        assert step is not None
        steps.append(step)
    assert [(step.state, step.final, step.old_value, step.value) for step in steps] == [
        (A, False, 4, 5),
        (S, False, 4, 5),
        (K, False, 4, 5),
        (V, True, 4, 5),
    ]
    assert [step.time_ms for step in steps] == [NOW, NOW + 1, NOW + 2, NOW + 3]
    assert {(step.id, step.device, step.tag, step.by, step.origin) for step in steps} == {
        ("1", "boiler", "level", "anna", "console")
    }
    assert book.running() == []
    assert book.move("1", F, NOW, 0.0) is None


def test_an_acknowledgement_may_be_final(book: CommandBook) -> None:
    book.admit(command("1"), NOW, 0.0)
    book.move("1", S, NOW, 0.0)
    step = book.move("1", K, NOW, 0.0, final=True)
    assert step is not None
    assert (step.state, step.final, book.running()) == (K, True, [])


def test_a_step_out_of_order_is_our_bug(book: CommandBook) -> None:
    book.admit(command("1"), NOW, 0.0)
    with pytest.raises(ProtocolError, match="verified cannot follow accepted"):
        book.move("1", V, NOW, 0.0)


def test_nothing_follows_a_final_state() -> None:
    assert not any(may_follow(state, after) for state in FINAL for after in CommandState)
    assert {after for after in CommandState if may_follow(None, after)} == {A, F, E}


def test_a_used_id_is_refused_without_a_step_for_an_hour(book: CommandBook) -> None:
    book.admit(command("1"), NOW, 0.0)
    again = book.admit(command("1", value=7), NOW, 1.0)
    assert (again.steps, again.run) == ((), False)
    assert "replayed" in again.refusal
    book.move("1", F, NOW, 0.0)
    assert "replayed" in book.admit(command("1"), NOW, ID_KEPT_S - 1, repeat=True).refusal
    assert "replayed" in book.refuse(command("1"), "read only", NOW, ID_KEPT_S - 1).refusal
    assert book.admit(command("1"), NOW, ID_KEPT_S + 1).run


def test_a_second_delivery_of_a_running_command_is_no_replay(book: CommandBook) -> None:
    book.admit(command("1"), NOW, 0.0)
    again = book.admit(command("1"), NOW, 1.0, repeat=True)
    assert (again.steps, again.run, again.refusal) == ((), False, "delivered again while it runs")


def test_ids_are_remembered_over_a_restart_and_within_bounds() -> None:
    book = CommandBook(max_ids=3)
    book.remember(["1", "2"], 0.0)
    assert not book.admit(command("2"), NOW, 1.0).run
    book.remember(["3", "4"], 1.0)
    assert [book.is_known(each, 2.0) for each in "1234"] == [False, True, True, True]


def test_what_has_expired_on_arrival_does_not_run(book: CommandBook) -> None:
    admission = book.admit(command("1", left_ms=-250), NOW, 0.0)
    assert not admission.run
    assert [(step.state, step.final, step.reason) for step in admission.steps] == [
        (E, True, "expired 0.250 s before it arrived (clocks must agree)")
    ]
    assert book.next_expiry_s() is None


def test_expiry_follows_the_monotonic_clock(book: CommandBook) -> None:
    book.admit(command("1"), NOW, 100.0)
    book.admit(command("2", "pump", left_ms=2_000), NOW, 100.0)
    book.move("2", S, NOW, 0.0)
    assert book.next_expiry_s() == 102.0
    assert book.expire(NOW + 10**9, 101.9) == []
    (step,) = book.expire(NOW - 10**9, 102.0)
    assert (step.id, step.state, step.reason) == ("2", E, "expired without an answer: the device may have taken it")
    (step,) = book.expire(NOW, 105.0)
    assert (step.id, step.reason) == ("1", "expired before it could be sent")


def test_a_newer_command_ends_an_unsent_one(book: CommandBook) -> None:
    book.admit(command("1"), NOW, 0.0)
    book.admit(command("other", "pump"), NOW, 0.0)
    book.admit(command("elsewhere", device="tank"), NOW, 0.0)
    admission = book.admit(command("2"), NOW, 0.0)
    assert [(step.id, step.state, step.final, step.reason) for step in admission.steps] == [
        ("1", U, True, "superseded by command 2"),
        ("2", A, False, ""),
    ]
    assert [each.id for each in book.running("boiler")] == ["other", "2"]


@pytest.mark.parametrize(("states", "ended"), [((), True), ((S,), False), ((S, K), True)])
def test_what_is_on_the_wire_is_not_superseded(
    book: CommandBook, states: tuple[CommandState, ...], ended: bool
) -> None:
    book.admit(command("1"), NOW, 0.0)
    for state in states:
        book.move("1", state, NOW, 0.0)
    book.admit(command("2"), NOW, 0.0)
    assert (book.state("1") is None) is ended


def test_a_group_is_ended_only_by_what_covers_it(book: CommandBook) -> None:
    book.admit(group("1", "level", "pump"), NOW, 0.0)
    assert len(book.admit(command("2"), NOW, 0.0).steps) == 1
    steps = book.admit(group("3", "pump", "level", "valve"), NOW, 0.0).steps
    assert [(step.id, step.state, step.tag) for step in steps] == [("1", U, None), ("2", U, "level"), ("3", A, None)]


def test_a_refused_command_fails_once(book: CommandBook) -> None:
    admission = book.refuse(command("1", value=500), "500 is above the tag's limit high, 100", NOW, 0.0, old_value=4)
    assert [(step.state, step.final, step.reason, step.value, step.old_value) for step in admission.steps] == [
        (F, True, "500 is above the tag's limit high, 100", 500, 4)
    ]
    assert not admission.run


def test_too_many_at_once_fail() -> None:
    book = CommandBook(max_running=1)
    book.admit(command("1"), NOW, 0.0)
    admission = book.admit(command("2", "pump"), NOW, 0.0)
    assert [(step.state, step.reason) for step in admission.steps] == [(F, "1 commands are under way")]


@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from("ab"), st.integers(0, 5), st.integers(0, 3)), max_size=60))
def test_every_command_ends_exactly_once(events: list[tuple[int, str, int, int]]) -> None:
    """Whatever arrives, moves and expires in whatever order: one first step, at most one final one, and nothing after."""
    book = CommandBook(max_running=4)
    seen: dict[str, list[CommandState]] = {}
    ends: set[str] = set()
    clock_s = 0.0
    for number, tag, action, left_s in events:
        clock_s += 0.5
        identity = str(number)
        if action == 0:
            steps = list(book.admit(command(identity, tag, left_ms=left_s * 1000), NOW, clock_s).steps)
        elif action == 5:
            steps = book.expire(NOW, clock_s)
        else:
            state = book.state(identity)
            after = (S, K, V, F)[action - 1]
            moved = book.move(identity, after, NOW, clock_s) if state is not None and may_follow(state, after) else None
            steps = [] if moved is None else [moved]
        for step in steps:
            assert step.id not in ends
            states = seen.setdefault(step.id, [])
            assert may_follow(states[-1] if states else None, step.state)
            states.append(step.state)
            if step.final:
                ends.add(step.id)
    assert {each.id for each in book.running()} == seen.keys() - ends


def test_a_command_that_was_sent_when_a_newer_one_came_is_superseded_before_it_is_verified() -> None:
    """The newer one writes over it: waiting for its value would end in a wrong verdict."""
    book = CommandBook()
    book.admit(command("a"), NOW, 0.0)
    book.move("a", CommandState.SENT, NOW, 0.0)
    assert len(book.admit(command("b"), NOW, 0.0).steps) == 1
    assert book.overtaken("a", NOW) is None, "not while it is on its way"
    book.move("a", CommandState.ACKNOWLEDGED, NOW, 0.0)
    step = book.overtaken("a", NOW)
    assert step is not None
    assert (step.id, step.state, step.reason) == ("a", CommandState.SUPERSEDED, "superseded by command b")
    assert book.overtaken("a", NOW) is book.overtaken("b", NOW) is None


def test_what_has_run_out_of_time_is_not_sent_though_nobody_has_said_so_yet(book: CommandBook) -> None:
    """A program that was paused wrote first, 4 s after the command had expired, and then told that it had expired."""
    book.admit(command("late"), NOW, 0.0)
    step = book.move("late", S, NOW + 9_000, 9.0)
    assert step is not None
    assert (step.state, step.final, step.reason) == (CommandState.EXPIRED, True, "expired before it could be sent")
    assert book.state("late") is None
    book.admit(command("sent"), NOW, 0.0)
    book.move("sent", S, NOW, 1.0)
    step = book.move("sent", K, NOW, 9.0)
    assert step is not None
    assert step.state is K, "what the device says is told, however late"

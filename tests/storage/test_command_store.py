from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from scada.commands import Call, Command, CommandState, Step, answer_of, step_of
from scada.errors import ConfigError
from storage.command_store import STEP, CommandLog, CommandQuery
from storage.engine import open_engine, reading
from storage.migrate import migrate

NOW = 1_700_000_000_000
WAY = (CommandState.ACCEPTED, CommandState.SENT, CommandState.ACKNOWLEDGED, CommandState.VERIFIED)


def command(id: str, tag: str = "level", device: str = "boiler") -> Command:
    return Command(id, device, {tag: 5.5}, NOW + 5_000, "anna", "rest 127.0.0.1")


def steps_of(id: str, *states: CommandState, device: str = "boiler", tag: str = "level") -> list[Step]:
    return [
        step_of(command(id, tag, device), state, NOW + number, old_value=True, reason=f"step {number}")
        for number, state in enumerate(states)
    ]


def test_steps_come_back_in_order_as_they_were(engine: Engine) -> None:
    log = CommandLog(engine)
    mine, other = steps_of("1", *WAY), steps_of("2", *WAY[:2], tag="pump")
    log.append(mine[:2])
    log.append([other[0], mine[2], other[1]])
    log.append(mine[3:])
    assert log.steps("1") == mine
    assert log.steps("2") == other
    assert log.steps("3") == []
    log.append([])
    log.append([answer_of(Call("c", "boiler", (), NOW), CommandState.VERIFIED, NOW)])
    assert log.listing(CommandQuery())[1] == 2


def test_a_group_keeps_its_values(engine: Engine) -> None:
    group = Command("g", "boiler", {"level": 1, "name": "x"}, NOW, group=True)
    step = step_of(group, CommandState.FAILED, NOW, old_value={"level": None, "name": "y"})
    log = CommandLog(engine)
    log.append([step])
    assert log.steps("g") == [step]
    assert step.value == {"level": 1, "name": "x"}


def test_commands_are_listed_with_their_last_step_newest_first(engine: Engine) -> None:
    log = CommandLog(engine)
    log.append(steps_of("1", *WAY))
    log.append(steps_of("2", CommandState.ACCEPTED, CommandState.EXPIRED, tag="pump"))
    log.append(steps_of("3", CommandState.ACCEPTED, device="tank"))
    found, total = log.listing(CommandQuery())
    assert [(step.id, step.state, step.final) for step in found] == [
        ("3", CommandState.ACCEPTED, False),
        ("2", CommandState.EXPIRED, True),
        ("1", CommandState.VERIFIED, True),
    ]
    assert total == 3
    for filters, ids in (
        ({"device": "boiler"}, ["2", "1"]),
        ({"tag": "p*"}, ["2"]),
        ({"state": "accepted"}, ["3"]),
        ({"final": "true"}, ["2", "1"]),
        ({"device": "nobody"}, []),
    ):
        found, total = log.listing(CommandQuery(filters=filters))
        assert ([step.id for step in found], total) == (ids, len(ids)), filters
    found, total = log.listing(CommandQuery(page=2, page_size=2))
    assert ([step.id for step in found], total) == (["1"], 3)
    with pytest.raises(ConfigError, match="colour"):
        log.listing(CommandQuery(filters={"colour": "red"}))


@pytest.mark.parametrize("filters", [{}, {"device": "d7"}])
def test_a_page_of_a_full_log_made_a_set_of_all_last_steps(tmp_path: Path, filters: dict[str, str]) -> None:
    """Instructions of SQLite's machine instead of seconds; it was 30 a step with 50,000 commands, and took 0.2 s."""
    engine = open_engine(f"sqlite:///{tmp_path}/db.sqlite")
    migrate(engine)
    log = CommandLog(engine)
    log.append([step for number in range(1_000) for step in steps_of(f"{number:x}", *WAY, device=f"d{number % 100}")])
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1

    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.set_progress_handler(tick, 1)
    found, total = log.listing(CommandQuery(page_size=10, filters=filters))
    engine.dispose()
    assert (len(found), total) == (10, 10 if filters else 1_000)
    assert 1 < count / 4_000 < 12


def test_the_oldest_steps_go_when_there_are_too_many(engine: Engine) -> None:
    log = CommandLog(engine, kept=1_500)
    for start in range(0, 4_000, 400):
        log.append([step for n in range(start, start + 400) for step in steps_of(str(n), CommandState.FAILED)])
    with reading(engine) as connection:
        number, oldest = connection.execute(select(func.count(), func.min(STEP.c.id))).one()
    assert 1_500 <= number < 1_500 + 1_400
    assert oldest + number == 4_001
    # A new run of the program looks at once.
    CommandLog(engine, kept=100).append(steps_of("last", CommandState.FAILED))
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(STEP)).scalar_one() == 100


def test_recent_ids_are_those_of_the_last_while(engine: Engine) -> None:
    log = CommandLog(engine)
    log.append(steps_of("old", CommandState.FAILED))
    log.append(steps_of("1", *WAY[:3]))
    log.append(steps_of("2", *WAY[:2]))
    log.append(steps_of("1", *WAY)[3:])
    assert log.recent_ids(NOW) == ["2", "1"]
    assert log.recent_ids(NOW, most=1) == ["1"]
    assert log.recent_ids(NOW + 10**6) == []


def test_what_a_database_cannot_hold_is_replaced(engine: Engine) -> None:
    log = CommandLog(engine)
    bad = Command("a\0b", "boiler", {"t": "x\0\ud800"}, NOW, "who\0", "o" * 100)
    log.append([step_of(bad, CommandState.FAILED, NOW, reason="r" * 1000)])
    (step,) = log.steps("a\0b")
    assert (step.id, step.value, step.by) == ("a\ufffdb", "x\ufffd?", "who\ufffd")
    assert (len(step.reason), len(step.origin)) == (256, 64)

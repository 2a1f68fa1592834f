from typing import Any

from sqlalchemy import Engine

from storage.config_store import ConfigStore
from storage.outbox import Outbox, OutboxRow


def test_rows_come_back_in_order_and_exactly(engine: Engine, boiler: dict[str, Any]) -> None:
    outbox = Outbox(engine)
    one, two = (binding["id"] for binding in boiler["tags"][0]["bindings"])
    values: list[Any] = [1, 1.0, True, False, "1", "ünï", -0.5, 2**53 + 1, 1e300]
    outbox.apply(queued=[OutboxRow(None, (one, two)[i % 2], value, i) for i, value in enumerate(values)])
    rows = outbox.load()
    assert [(row.value, type(row.value), row.time_ms) for row in rows] == [
        (value, type(value), index) for index, value in enumerate(values)
    ]
    outbox.apply(done=[rows[0].id or 0, 999], cleared=[two])
    assert [row.time_ms for row in outbox.load()] == [2, 4, 6, 8]


def test_the_latest_replaces_older_rows_of_its_binding_only(engine: Engine, boiler: dict[str, Any]) -> None:
    outbox = Outbox(engine)
    one, two = (binding["id"] for binding in boiler["tags"][0]["bindings"])
    outbox.apply(queued=[OutboxRow(None, one, 1, 1), OutboxRow(None, two, 2, 2), OutboxRow(None, one, 3, 3)])
    outbox.apply(latest=[OutboxRow(None, one, 5, 5)])
    assert [(row.binding_id, row.value) for row in outbox.load()] == [(two, 2), (one, 5)]


def test_apply_does_everything_and_tells_the_ids_of_queued_rows(engine: Engine, boiler: dict[str, Any]) -> None:
    outbox = Outbox(engine)
    one, two = (binding["id"] for binding in boiler["tags"][0]["bindings"])
    first = outbox.apply(queued=[OutboxRow(None, one, 1, 1), OutboxRow(None, one, 2, 2), OutboxRow(None, 999, 3, 3)])
    assert first[2] is None
    ids = outbox.apply(done=[first[0] or 0], latest=[OutboxRow(None, two, 4, 4)], queued=[OutboxRow(None, one, 5, 5)])
    assert [(row.id, row.value) for row in outbox.load() if row.binding_id == one] == [(first[1], 2), (ids[0], 5)]
    outbox.apply(cleared=[one])
    assert [row.value for row in outbox.load()] == [4]


def test_a_binding_deleted_meanwhile_is_no_error(store: ConfigStore, engine: Engine, boiler: dict[str, Any]) -> None:
    outbox = Outbox(engine)
    one, two = (binding["id"] for binding in boiler["tags"][0]["bindings"])
    outbox.apply(queued=[OutboxRow(None, one, 1, 1)])
    store.delete_binding(one)
    assert outbox.load() == []
    outbox.apply(queued=[OutboxRow(None, one, 2, 2), OutboxRow(None, two, 3, 3)])
    outbox.apply(latest=[OutboxRow(None, one, 4, 4)])
    assert [row.value for row in outbox.load()] == [3]


def test_nothing_to_do_is_nothing(engine: Engine) -> None:
    outbox = Outbox(engine)
    assert outbox.apply() == []
    assert outbox.load() == []

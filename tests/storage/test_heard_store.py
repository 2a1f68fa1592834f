from typing import Any

from sqlalchemy import Engine

from storage.config_store import ConfigStore
from storage.heard_store import HeardStore


def test_what_was_heard_is_kept_changed_and_forgotten(
    engine: Engine, store: ConfigStore, boiler: dict[str, Any]
) -> None:
    heard = HeardStore(engine)
    other = store.create_device({"name": "other"})["id"]
    heard.apply({boiler["id"]: "plant/boiler", other: "a/+"}, ())
    assert heard.load() == {boiler["id"]: "plant/boiler", other: "a/+"}
    heard.apply({boiler["id"]: "plant/" + "x" * 60_000}, {other})
    assert heard.load() == {boiler["id"]: "plant/" + "x" * 60_000}


def test_a_device_that_is_deleted_takes_it_along(engine: Engine, store: ConfigStore, boiler: dict[str, Any]) -> None:
    heard = HeardStore(engine)
    heard.apply({boiler["id"]: "plant/boiler"}, ())
    store.delete_device(boiler["id"])
    assert heard.load() == {}
    heard.apply({boiler["id"]: "plant/boiler"}, ())
    assert heard.load() == {}, "a message that was under way"

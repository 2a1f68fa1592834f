"""Configurations that are stored, changed and deleted."""

import re
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from scada.errors import ConfigError, Conflict, NotFound
from storage.config_store import ConfigStore
from storage.models import Base
from storage.outbox import Outbox, OutboxRow
from storage.revisions import REVISION
from storage.shapes import INHERITED
from tests.support.processes import CHECKOUT

Document = dict[str, Any]
MODBUS = {"protocol": "modbus", "direction": "out", "address": {"register": 5}}
TEXT = {"protocol": "modbus", "direction": "out", "address": {"register": 5, "type": "string", "length": 8}}
MQTT = {"protocol": "mqtt", "direction": "in", "address": {"path": "a"}}


def faults(error: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return [fault.field for fault in error.value.faults]


def test_a_device_comes_back_as_it_was_made_with_its_defaults_shown(store: ConfigStore, boiler: Document) -> None:
    assert store.get_device(boiler["id"]) == boiler
    assert boiler["network"]["modbus"]["timeout_s"] == 1.0
    tag = boiler["tags"][0]
    assert (tag["data_type"], tag["unit"], tag["device_id"]) == ("float", "°C", boiler["id"])
    address = tag["bindings"][1]["address"]
    assert address == {"register": 10, "type": "float32", "order": "CDAB", "table": "holding_register", "unit_id": 1}


def test_defaults_of_an_address_and_of_a_topic_are_shown(store: ConfigStore) -> None:
    device = store.create_device({"name": "a", "network": {"mqtt": {}, "modbus": {"host": "h"}}, "tags": [
        {"name": "t", "bindings": [MODBUS]}]})  # fmt: skip
    assert device["network"]["mqtt"]["topic"] == f"device/{device['id']}"
    address = device["tags"][0]["bindings"][0]["address"]
    assert (address["type"], address["unit_id"], address["order"]) == ("uint16", 1, "ABCD")


def test_put_and_patch_of_what_get_gave_change_nothing(store: ConfigStore, boiler: Document) -> None:
    tag = boiler["tags"][0]
    revision = store.revision()
    store.replace_tag(tag["id"], tag)
    store.patch_tag(tag["id"], {})
    store.patch_device(boiler["id"], {})
    store.replace_term(boiler["terms"][0]["id"], boiler["terms"][0])
    assert store.revision() == revision
    store.replace_device(boiler["id"], boiler)
    after = store.get_device(boiler["id"])
    assert {**after, "revision": 0} == {**boiler, "revision": 0}


def test_patch_merges_and_null_removes(store: ConfigStore, boiler: Document) -> None:
    after = store.patch_device(boiler["id"], {"network": {"modbus": {"port": 502}, "mqtt": {"topic": None}}})
    assert after["network"]["modbus"]["host"] == "127.0.0.1"
    assert after["network"]["modbus"]["port"] == 502
    assert after["network"]["mqtt"]["topic"] == f"device/{boiler['id']}"
    assert after["tags"] == boiler["tags"]
    tag = store.patch_tag(boiler["tags"][0]["id"], {"scaling": {"gain": 2}, "unit": None})
    assert (tag["scaling"], tag["unit"], tag["bindings"]) == (
        {"gain": 2.0, "offset": 0.0},
        None,
        boiler["tags"][0]["bindings"],
    )
    binding = store.patch_binding(tag["bindings"][1]["id"], {"address": {"register": 99}})
    assert (binding["address"]["register"], binding["address"]["type"]) == (99, "float32")
    assert store.patch_device(boiler["id"], {"tags": None})["tags"] == []


def test_replacing_nested_tags_keeps_the_ids_of_those_that_stay(store: ConfigStore, boiler: Document) -> None:
    old = boiler["tags"][0]
    renamed = {**old, "name": "warmth"}
    after = store.replace_device(boiler["id"], {**boiler, "tags": [renamed, {"name": "new"}]})
    assert [(tag["name"], tag["id"] == old["id"]) for tag in after["tags"]] == [("warmth", True), ("new", False)]
    assert after["tags"][0]["bindings"] == old["bindings"]


def test_a_binding_keeps_its_id_when_it_is_changed(store: ConfigStore, boiler: Document) -> None:
    tag = boiler["tags"][0]
    changed = store.replace_tag(tag["id"], {"name": "temperature", "bindings": [MODBUS, MQTT]})
    assert {each["id"] for each in changed["bindings"]} == {each["id"] for each in tag["bindings"]}


def test_a_tag_follows_its_item_and_its_term(store: ConfigStore, boiler: Document) -> None:
    item = store.create_item({"name": "counter", "data_type": "int", "limits": {"low": 0}})
    tag = store.create_tag(boiler["id"], {"name": "t", "item": "counter", "term": "meter", "bindings": [MODBUS]})
    assert (tag["data_type"], tag["bindings"][0]["address"]["unit_id"]) == ("int", 7)
    store.replace_tag(tag["id"], tag)
    store.patch_term(boiler["terms"][0]["id"], {"settings": {"modbus": {"unit_id": 8}}})
    store.patch_item(item["id"], {"data_type": "float"})
    after = store.get_tag(tag["id"])
    assert (after["data_type"], after["bindings"][0]["address"]["unit_id"]) == ("float", 8)
    with pytest.raises(Conflict, match="meter"):
        store.delete_term(boiler["terms"][0]["id"])
    store.patch_tag(tag["id"], {"term_id": None})
    store.delete_term(boiler["terms"][0]["id"])
    after = store.get_tag(tag["id"])
    assert (after["term_id"], after["bindings"][0]["address"]["unit_id"]) == (None, 1)


def test_what_a_tag_has_from_its_item_is_shown_and_stays_the_items(store: ConfigStore, boiler: Document) -> None:
    """Only the data type was: a tag of an item in bar showed no unit."""
    item = store.create_item({"name": "p", "unit": "bar", "limits": {"low": 0, "high": 9}, "deadband": 0.5})
    tag = store.create_tag(boiler["id"], {"name": "t", "item": "p", "scaling": {"gain": 2}})
    shown = {name: tag[name] for name in ("unit", "limits", "deadband", "scaling")}
    limits = {"low": 0.0, "high": 9.0, "action": "reject"}
    assert shown == {"unit": "bar", "limits": limits, "deadband": 0.5, "scaling": {"gain": 2.0, "offset": 0.0}}
    assert store.replace_tag(tag["id"], tag) == tag
    assert store.patch_tag(tag["id"], {"limits": {"high": 8}})["limits"] == {**limits, "high": 8.0}
    assert store.patch_tag(tag["id"], {"limits": {"high": 9}})["limits"] == limits
    store.patch_item(item["id"], {"unit": "kPa", "limits": {"high": 10}, "deadband": 1})
    after = store.get_tag(tag["id"])
    assert (after["unit"], after["limits"]["high"], after["deadband"]) == ("kPa", 10.0, 1.0)
    after = store.patch_tag(tag["id"], {"item": None})
    assert (after["unit"], after["limits"], after["deadband"]) == (None, None, None)


@pytest.mark.parametrize("number", [2**31, 2**63, 10**30, -1, 0])
def test_an_id_that_is_none_is_not_read(store: ConfigStore, boiler: Document, number: int) -> None:
    """One of 64 bits or more went into SQL, and the answer was 500."""
    made = store.create_tag(boiler["id"], {"name": "odd", "id": number})
    assert made["id"] not in (number, boiler["tags"][0]["id"])
    after = store.replace_device(boiler["id"], boiler | {"tags": [boiler["tags"][0] | {"id": number}]})
    assert [tag["id"] for tag in after["tags"]] == [boiler["tags"][0]["id"]]


def test_a_tag_sent_back_with_another_item_follows_that(store: ConfigStore) -> None:
    """It kept the gain that it had been shown with, of the item before: good values that were wrong."""
    bar = store.create_item({"name": "bar", "unit": "bar", "scaling": {"gain": 0.1}, "limits": {"low": 0, "high": 10}})
    celsius = store.create_item({"name": "C", "data_type": "int", "unit": "°C", "limits": {"low": -40, "high": 400}})
    of_celsius = {name: celsius[name] for name in INHERITED}
    device = store.create_device({"name": "d", "tags": [{"name": name, "item": "bar"} for name in "abcd"]})
    a, b, c, d = device["tags"]
    assert a["unit"] == "bar"

    def shown(tag: Document) -> Document:
        found = store.get_tag(tag["id"])
        return {name: found[name] for name in INHERITED}

    store.replace_tag(a["id"], a | {"item_id": celsius["id"]})
    assert shown(a) == of_celsius
    store.replace_device(device["id"], device | {"tags": [b | {"item_id": celsius["id"]}, c, d]})
    assert (shown(b), shown(c)["unit"]) == (of_celsius, "bar")
    store.patch_tag(c["id"], {"item": "C", "limits": {"high": 300}, "unit": "bar"})
    assert shown(c) == of_celsius | {"unit": "bar", "limits": celsius["limits"] | {"high": 300}}
    store.patch_tag(d["id"], {"item_id": None, "limits": {"high": 300}})
    assert shown(d)["limits"] == bar["limits"] | {"high": 300}


def test_an_items_change_reaches_every_device_with_tags_of_it(store: ConfigStore, boiler: Document) -> None:
    item = store.create_item({"name": "counter"})
    store.create_tag(boiler["id"], {"name": "t", "item_id": item["id"]})
    other = store.create_device({"name": "other"})
    after = store.patch_item(item["id"], {"unit": "kWh"})
    assert after["revision"] == store.revision() == store.get_device(boiler["id"])["revision"]
    assert store.get_device(other["id"])["revision"] == other["revision"]


def test_deleting_a_device_deletes_what_hangs_from_it(store: ConfigStore, engine: Engine, boiler: Document) -> None:
    outbox = Outbox(engine)
    outbox.apply(queued=[OutboxRow(None, boiler["tags"][0]["bindings"][1]["id"], 1.5, 1)])
    store.delete_device(boiler["id"])
    with engine.connect() as connection:
        for name in ("device", "network", "term", "tag", "binding", "outbox"):
            table = Base.metadata.tables[name]
            assert connection.execute(select(func.count()).select_from(table)).scalar() == 0, name


def test_the_id_of_a_deleted_device_never_comes_back(store: ConfigStore, boiler: Document) -> None:
    store.delete_device(boiler["id"])
    assert store.create_device({"name": "next"})["id"] > boiler["id"]


@pytest.mark.parametrize("identity", [0, -1, 999, 2**31, 2**63, 10**400])
def test_an_unknown_id_is_not_found(store: ConfigStore, identity: int) -> None:
    for read in (
        store.get_device,
        store.get_tag,
        store.get_item,
        store.get_term,
        store.get_binding,
        store.list_networks,
    ):
        with pytest.raises(NotFound):
            read(identity)
    with pytest.raises(NotFound):
        store.create_tag(identity, {"name": "t"})
    with pytest.raises(NotFound):
        store.create_binding(identity, MQTT)


def test_every_change_is_written_down_and_no_change_is_not(
    store: ConfigStore, engine: Engine, boiler: Document
) -> None:
    store.patch_device(boiler["id"], {"description": "warm"}, who="anna")
    store.patch_device(boiler["id"], {"description": "warm"}, who="bert")
    with engine.connect() as connection:
        rows = connection.execute(select(REVISION).order_by(REVISION.c.revision)).mappings().all()
    assert [row["revision"] for row in rows] == [1, 2]
    assert (rows[1]["changed_by"], rows[1]["summary"]) == ("anna", "device boiler changed")
    assert rows[1]["difference"]["changes"][0]["fields"] == {"description": ["", "warm"]}


def test_a_huge_change_is_written_down_in_short(store: ConfigStore, engine: Engine, boiler: Document) -> None:
    tags = [{"name": f"t{index}", "description": "x" * 400} for index in range(100)]
    store.patch_device(boiler["id"], {"tags": tags})
    with engine.connect() as connection:
        row = connection.execute(select(REVISION).order_by(REVISION.c.revision.desc())).mappings().first()
    assert row is not None
    assert row["difference"] == {
        "truncated_bytes": row["difference"]["truncated_bytes"],
        "changes": ["device boiler changed"],
    }


def test_the_list_of_changes_grows_by_what_changed_and_old_rows_can_be_deleted(
    store: ConfigStore, engine: Engine, boiler: Document
) -> None:
    """What docs/database.md says of its size, and its own statement."""
    binding = boiler["tags"][0]["bindings"][1]["id"]
    for number in range(20):
        store.patch_binding(binding, {"address": {"register": number}})
        store.patch_tag(boiler["tags"][0]["id"], {"unit": f"u{number}"})
    with engine.connect() as connection:
        sizes = [len(str(each)) for each in connection.execute(select(REVISION.c.difference)).scalars()]
    assert len(sizes) > 40
    assert max(sizes) < 1024
    text = (CHECKOUT / "docs/database.md").read_text()
    (statement,) = re.findall(r"```sql\n(.*?)\n```", text, re.DOTALL)
    before = store.revision()
    with engine.begin() as connection:
        connection.exec_driver_sql(statement.replace("- 10000", "- 1"))
        assert connection.execute(select(REVISION.c.revision)).scalars().all() == [before]
    store.patch_device(boiler["id"], {"description": "after"})
    assert store.revision() == before + 1
    assert store.get_device(boiler["id"])["revision"] == before + 1


def test_a_bulk_of_more_rows_than_a_statement_takes_keeps_their_order(store: ConfigStore, boiler: Document) -> None:
    documents = [
        {"name": f"t{index}", "bindings": [{**MODBUS, "address": {"register": index}}]} for index in range(3000)
    ]
    ids = store.create_tags_bulk(documents, device_id=boiler["id"])
    for index in (0, 1, 999, 1000, 2999):
        tag = store.get_tag(ids[index])
        assert (tag["name"], tag["bindings"][0]["address"]["register"]) == (f"t{index}", index)

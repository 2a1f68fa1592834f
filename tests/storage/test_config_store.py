import re
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from scada.errors import ConfigError, Conflict, NotFound
from storage.config_store import ConfigStore
from storage.models import Base
from storage.outbox import Outbox, OutboxRow
from storage.revisions import REVISION
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


def test_every_fault_of_a_nested_document_is_listed_with_its_path(store: ConfigStore) -> None:
    document = {
        "name": "a/b",
        "colour": "red",
        "network": {"modbus": {"host": "h", "port": 0}, "smoke": {}},
        "terms": [{"name": "t", "settings": {"mqtt": {}, "modbus": {"unit_id": 256}}}],
        "tags": [
            {"name": "x", "data_type": "complex", "bindings": [MQTT, {**MODBUS, "address": {"register": 65536}}]},
            {"name": "y", "scaling": {"gain": 0}, "bindings": [{**MQTT, "direction": "inout"}, {"protocol": "smoke"}]},
            {"name": "y", "bindings": [MODBUS, MODBUS]},
            7,
        ],
    }
    with pytest.raises(ConfigError) as error:
        store.create_device(document)
    assert sorted(faults(error)) == sorted(
        [
            "colour", "name", "network.modbus.port", "network.smoke", "terms.0.settings.mqtt",
            "terms.0.settings.modbus.unit_id", "tags.0.data_type", "tags.0.bindings.1.address.register",
            "tags.1.scaling.gain", "tags.1.bindings.0.direction", "tags.1.bindings.1.direction",
            "tags.1.bindings.1.protocol", "tags.2.bindings.1.protocol", "tags.3",
        ]
    )  # fmt: skip
    assert store.list_devices()[1] == 0


def test_a_name_taken_is_a_conflict_and_case_counts(store: ConfigStore, boiler: Document) -> None:
    with pytest.raises(Conflict) as error:
        store.create_device({"name": "boiler"})
    assert faults(error) == ["name"]
    store.create_device({"name": "Boiler"})
    with pytest.raises(Conflict) as error:
        store.create_tag(boiler["id"], {"name": "temperature"})
    assert faults(error) == ["name"]
    with pytest.raises(Conflict):
        store.create_term(boiler["id"], {"name": "meter"})
    store.create_item({"name": "i"})
    with pytest.raises(Conflict) as error:
        store.create_item({"name": "i"})
    assert faults(error) == ["name"]


@pytest.mark.parametrize(
    ("tag", "field"),
    [
        ({"item": "nothing"}, "item"),
        ({"item_id": 999}, "item_id"),
        ({"term": "nothing"}, "term"),
        ({"term_id": 999}, "term_id"),
        ({"term_id": True}, "term_id"),
        ({"term_id": 10**400}, "term_id"),
        ({"item": 5}, "item"),
        ({"bindings": [{**MODBUS, "options": {"failsafe": {"value": "x", "after_s": 1}}}]},
         "bindings.0.options.failsafe.value"),
        ({"bindings": [{**MODBUS, "options": {"failsafe": {"value": 70000, "after_s": 1}}}]},
         "bindings.0.options.failsafe.value"),
        ({"bindings": [{**MODBUS, "options": {"failsafe": {"value": 1.5, "after_s": 1}}}]},
         "bindings.0.options.failsafe.value"),
        ({"bindings": [{**MODBUS, "limits": {"high": 10}, "options": {"failsafe": {"value": 11, "after_s": 1}}}]},
         "bindings.0.options.failsafe.value"),
        ({"bindings": [{**MODBUS, "scaling": {"gain": 0.001}, "options": {"failsafe": {"value": 66, "after_s": 1}}}]},
         "bindings.0.options.failsafe.value"),
        ({"data_type": "string", "bindings": [MODBUS]}, "bindings.0.address.type"),
        ({"data_type": "string", "bindings": [{**MODBUS, "direction": "in"}]}, "bindings.0.address.type"),
        ({"data_type": "string", "bindings": [{**MODBUS, "address": {"register": 1, "table": "coil"}}]},
         "bindings.0.address.type"),
        ({"bindings": [TEXT]}, "bindings.0.address.type"),
        ({"data_type": "int", "bindings": [{**TEXT, "direction": "inout"}]}, "bindings.0.address.type"),
        ({"data_type": "bool", "bindings": [TEXT]}, "bindings.0.address.type"),
        ({"data_type": "bool", "bindings": [{**MQTT, "options": {"enum": {"on": 2}}}]}, "bindings.0.options.enum.on"),
        ({"data_type": "int", "bindings": [{**MQTT, "options": {"enum": {"on": 1.5}}}]}, "bindings.0.options.enum.on"),
        ({"bindings": {}}, "bindings"),
        ({"name": "a\0b"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"description": "a\0b"}, "description"),
        ({"unit": "\udfff"}, "unit"),
        ({"deadband": -1}, "deadband"),
        ({"deadband": float("nan")}, "deadband"),
        ({"limits": {"low": 2, "high": 1}}, "limits.low"),
        ({"bindings": [{**MODBUS, "period_ms": 1000}]}, "bindings.0.period_ms"),
        ({"bindings": [{**MODBUS, "scan": "fast"}]}, "bindings.0.scan"),
        ({"bindings": [{**MODBUS, "address": {"register": 1, "table": "input_register"}}]}, "bindings.0.address.table"),
        ({"bindings": [{**MODBUS, "direction": "inout", "address": {"register": 1, "table": "discrete_input",
         "type": "bool"}}]}, "bindings.0.address.table"),
        ({"bindings": [{**MQTT, "direction": "out", "address": {"bits": ["a", "b"]}}]}, "bindings.0.address.bits"),
        ({"bindings": [{**MQTT, "direction": "out", "address": {"path": "a[0]"}}]}, "bindings.0.address.path"),
        ({"bindings": [{**MQTT, "direction": "out", "address": {"path": ""}}]}, "bindings.0.address.path"),
    ],
)  # fmt: skip
def test_a_tag_that_cannot_be_is_refused(store: ConfigStore, boiler: Document, tag: Document, field: str) -> None:
    before = store.revision()
    with pytest.raises(ConfigError) as error:
        store.create_tag(boiler["id"], {"name": "new", **tag})
    assert faults(error) == [field]
    assert store.revision() == before


def test_a_term_of_another_device_is_refused(store: ConfigStore, boiler: Document) -> None:
    other = store.create_device({"name": "other"})
    with pytest.raises(ConfigError) as error:
        store.create_tag(other["id"], {"name": "t", "term_id": boiler["terms"][0]["id"]})
    assert faults(error) == ["term_id"]


def test_a_binding_needs_the_network_of_its_protocol(store: ConfigStore) -> None:
    device = store.create_device({"name": "a", "network": {"mqtt": {}}})
    with pytest.raises(ConfigError) as error:
        store.create_tag(device["id"], {"name": "t", "bindings": [MODBUS]})
    assert faults(error) == ["bindings.0.protocol"]


def test_a_network_in_use_cannot_be_taken_away(store: ConfigStore, boiler: Document) -> None:
    with pytest.raises(Conflict):
        store.delete_network(boiler["id"], "modbus")
    with pytest.raises(Conflict) as error:
        store.replace_device(boiler["id"], {"name": "boiler", "network": {"mqtt": {}}})
    assert faults(error) == ["network.modbus"]
    assert store.get_device(boiler["id"]) == boiler
    store.delete_tag(boiler["tags"][0]["id"])
    store.delete_network(boiler["id"], "modbus")
    assert set(store.list_networks(boiler["id"])) == {"mqtt"}


@pytest.mark.parametrize("name", ["topic", "out_topic"])
@pytest.mark.parametrize("topic", ["tagwire/set/x", "tagwire", "tagwire/data/a/b"])
def test_a_device_is_not_on_the_bus(store: ConfigStore, boiler: Document, name: str, topic: str) -> None:
    network = {"mqtt": {name: topic}}
    with pytest.raises(ConfigError, match="belongs to the bus") as error:
        store.create_device({"name": "loop", "network": network})
    assert faults(error) == [f"network.mqtt.{name}"]
    with pytest.raises(ConfigError) as error:
        store.patch_device(boiler["id"], {"network": network})
    assert faults(error) == [f"network.mqtt.{name}"]
    with pytest.raises(ConfigError) as error:
        store.put_network(boiler["id"], "mqtt", network["mqtt"])
    assert faults(error) == [name]
    with pytest.raises(ConfigError) as error:
        store.import_config({"devices": [{"name": "boiler"}, {"name": "loop", "network": network}]})
    assert faults(error) == [f"devices.1.network.mqtt.{name}"]


def test_filters_that_go_beyond_the_bus_are_taken_and_another_root_counts(store: ConfigStore) -> None:
    for number, topic in enumerate(("#", "+/+", "+/set/x", "tagwired/x")):
        store.create_device({"name": f"d{number}", "network": {"mqtt": {"topic": topic}}})
    with pytest.raises(ConfigError, match="tagwire/# belongs to the bus"):
        store.create_device({"name": "loop", "network": {"mqtt": {"topic": "tagwire/#"}}})
    other = ConfigStore(store.engine, "device")
    other.create_device({"name": "e", "network": {"mqtt": {"topic": "tagwire/#"}}})
    with pytest.raises(ConfigError, match=r"device/\d+ belongs to the bus"):
        other.create_device({"name": "loop", "network": {"mqtt": {}}})


def test_one_binding_reads_a_tag_and_one_per_protocol(store: ConfigStore, boiler: Document) -> None:
    tag_id = boiler["tags"][0]["id"]
    with pytest.raises(ConfigError) as error:
        store.create_binding(tag_id, MQTT)
    assert faults(error) == ["protocol", "direction"]


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


def test_an_item_in_use_cannot_be_deleted_nor_get_a_type_its_tags_contradict(
    store: ConfigStore, boiler: Document
) -> None:
    item = store.create_item({"name": "valve", "data_type": "string"})
    binding = {**MQTT, "options": {"enum": {"open": "OPEN"}}}
    tag = store.create_tag(boiler["id"], {"name": "t", "item_id": item["id"], "bindings": [binding]})
    with pytest.raises(Conflict):
        store.delete_item(item["id"])
    with pytest.raises(ConfigError) as error:
        store.patch_item(item["id"], {"data_type": "int"})
    assert faults(error) == ["data_type"]
    store.delete_tag(tag["id"])
    store.patch_item(item["id"], {"data_type": "float"})
    tag = store.create_tag(boiler["id"], {"name": "t", "item_id": item["id"], "bindings": [MODBUS]})
    with pytest.raises(ConfigError, match="type uint16 holds no value of a tag of type string") as error:
        store.patch_item(item["id"], {"data_type": "string"})
    assert faults(error) == ["data_type"]
    store.delete_tag(tag["id"])
    store.delete_item(item["id"])


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


def test_an_outdated_revision_is_a_conflict(store: ConfigStore, boiler: Document) -> None:
    seen = boiler["revision"]
    store.patch_device(boiler["id"], {"description": "x"}, expected_revision=seen)
    tag_id = boiler["tags"][0]["id"]
    binding_id = boiler["tags"][0]["bindings"][0]["id"]
    for change in (
        lambda: store.replace_device(boiler["id"], {"name": "b"}, expected_revision=seen),
        lambda: store.delete_device(boiler["id"], expected_revision=seen),
        lambda: store.patch_tag(tag_id, {"unit": "K"}, expected_revision=seen),
        lambda: store.delete_tag(tag_id, expected_revision=seen),
        lambda: store.patch_binding(binding_id, {}, expected_revision=seen),
        lambda: store.delete_binding(binding_id, expected_revision=seen),
        lambda: store.put_network(boiler["id"], "mqtt", {}, expected_revision=seen),
        lambda: store.patch_term(boiler["terms"][0]["id"], {}, expected_revision=seen),
    ):
        with pytest.raises(Conflict) as error:
            change()
        assert faults(error) == ["revision"]


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


def test_bulk_stores_all_or_none_and_names_the_rows_that_clash(store: ConfigStore, boiler: Document) -> None:
    other = store.create_device({"name": "other", "network": {"modbus": {"host": "h"}}})
    documents = [
        {"name": "a", "device": "boiler", "bindings": [MQTT, MODBUS]},
        {"name": "a", "device_id": other["id"], "bindings": [MODBUS]},
    ]
    ids = store.create_tags_bulk(documents)
    assert [store.get_tag(tag_id)["device_id"] for tag_id in ids] == [boiler["id"], other["id"]]
    with pytest.raises(Conflict) as error:
        store.create_tags_bulk([{"name": "b"}, {"name": "a"}, {"name": "b"}], device_id=boiler["id"])
    assert faults(error) == ["tags.1.name", "tags.2.name"]
    with pytest.raises(ConfigError) as error:
        store.create_tags_bulk([{"name": "c", "device": "boiler"}, {"name": "c"}, {"name": "c", "device": "nobody"}])
    assert faults(error) == ["tags.1.device_id", "tags.2.device"]
    assert store.list_tags(filters={"name": "[abc]"})[1] == 0
    assert store.list_tags()[1] == 3


def test_a_bulk_of_more_rows_than_a_statement_takes_keeps_their_order(store: ConfigStore, boiler: Document) -> None:
    documents = [
        {"name": f"t{index}", "bindings": [{**MODBUS, "address": {"register": index}}]} for index in range(3000)
    ]
    ids = store.create_tags_bulk(documents, device_id=boiler["id"])
    for index in (0, 1, 999, 1000, 2999):
        tag = store.get_tag(ids[index])
        assert (tag["name"], tag["bindings"][0]["address"]["register"]) == (f"t{index}", index)


def test_bulk_lists_faults_of_every_kind_at_once(store: ConfigStore, boiler: Document) -> None:
    device = {"device": "boiler"}
    documents = [
        {"name": "a/b", **device},
        {"name": "lost", "device": "nobody"},
        {"name": "lost2", "device_id": 999},
        {"name": "both", **device, "device_id": boiler["id"]},
        {"name": "item", **device, "item": "none"},
        {
            "name": "simulated",
            **device,
            "bindings": [{"protocol": "simulated", "address": {"point": "x"}, "direction": "in"}],
        },
        {"name": boiler["tags"][0]["name"], **device},
        {"name": "good", **device},
    ]
    with pytest.raises(ConfigError) as error:
        store.create_tags_bulk(documents)
    assert not isinstance(error.value, Conflict)
    assert sorted(fault.field for fault in error.value.faults) == [
        "tags.0.name",
        "tags.1.device",
        "tags.2.device_id",
        "tags.3.device",
        "tags.4.item",
        "tags.5.bindings.0.protocol",
        "tags.6.name",
    ]
    assert store.list_tags(filters={"name": "good"})[1] == 0

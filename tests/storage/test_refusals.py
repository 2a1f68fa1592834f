"""Configurations that are not stored, with every fault and its path."""

from typing import Any

import pytest

from scada.errors import ConfigError, Conflict
from storage.config_store import ConfigStore

Document = dict[str, Any]
MODBUS = {"protocol": "modbus", "direction": "out", "address": {"register": 5}}
TEXT = {"protocol": "modbus", "direction": "out", "address": {"register": 5, "type": "string", "length": 8}}
MQTT = {"protocol": "mqtt", "direction": "in", "address": {"path": "a"}}


def faults(error: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return [fault.field for fault in error.value.faults]


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

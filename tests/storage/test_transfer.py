from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scada.errors import ConfigError, Conflict
from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate

Document = dict[str, Any]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[ConfigStore]:
    """Another, empty store."""
    engine = open_engine(f"sqlite:///{tmp_path}/other.sqlite")
    migrate(engine)
    yield ConfigStore(engine)
    engine.dispose()


def fill(store: ConfigStore) -> None:
    store.create_item(
        {"name": "kilowatt_hours", "data_type": "int", "unit": "kWh", "limits": {"low": 0, "action": "clamp"}}
    )
    store.create_device({"name": "silent", "enabled": False})
    store.create_device({
        "name": "meters",
        "network": {"mqtt": {}, "modbus": {"transport": "serial", "serial_port": "/dev/ttyUSB0", "parity": "E"}},
        "terms": [{"name": "one", "settings": {"modbus": {"unit_id": 3}}}],
        "tags": [
            {"name": "energy", "item": "kilowatt_hours", "term": "one", "bindings": [
                {"protocol": "mqtt", "direction": "in", "address": {"path": "a[0]"}, "options": {"numeric_text": True}},
                {"protocol": "modbus", "direction": "out", "address": {"register": 1, "type": "uint32"},
                 "options": {"failsafe": {"value": 0, "after_s": 5}, "deadband": 2}}]},
            {"name": "state", "data_type": "bool", "deadband": 0, "bindings": [
                {"protocol": "mqtt", "direction": "in", "address": {"path": "s"},
                 "options": {"enum": {"on": True, "off": False}}}]},
        ],
    })  # fmt: skip


def test_an_export_imported_elsewhere_is_exported_equal(store: ConfigStore, other: ConfigStore) -> None:
    other.create_device({"name": "shifts_ids"})
    fill(store)
    document = store.export_config()
    assert other.import_config(document, "replace") == {"items": 1, "devices": 2, "tags": 2}
    assert other.export_config() == document
    assert other.list_devices(filters={"name": "shifts_ids"})[1] == 0


def test_a_tag_without_the_unit_of_its_item_stays_so(store: ConfigStore, other: ConfigStore) -> None:
    store.create_item({"name": "volt", "unit": "V"})
    store.create_device({"name": "d", "tags": [{"name": "ratio", "item": "volt", "unit": ""}]})
    other.import_config(store.export_config(), "replace")
    assert other.list_tags()[0][0]["unit"] == ""


def test_a_topic_that_holds_an_id_survives_the_move(store: ConfigStore, other: ConfigStore) -> None:
    fill(store)
    topic = store.list_devices(filters={"name": "meters"})[0][0]["network"]["mqtt"]["topic"]
    other.create_device({"name": "shifts_ids"})
    other.create_device({"name": "more"})
    other.import_config(store.export_config())
    assert other.list_devices(filters={"name": "meters"})[0][0]["network"]["mqtt"]["topic"] == topic


def test_importing_again_keeps_every_id(store: ConfigStore) -> None:
    fill(store)
    before = [store.get_device(device["id"]) for device in store.list_devices()[0]]
    for mode in ("merge", "replace"):
        store.import_config(store.export_config(), mode)
        after = [store.get_device(device["id"]) for device in store.list_devices()[0]]
        ids = [[(tag["id"], [b["id"] for b in tag["bindings"]]) for tag in device["tags"]] for device in before]
        assert ids == [[(tag["id"], [b["id"] for b in tag["bindings"]]) for tag in device["tags"]] for device in after]


def test_merge_adds_and_replace_takes_away(store: ConfigStore) -> None:
    fill(store)
    addition = {"devices": [{"name": "meters", "tags": [{"name": "more"}]}], "items": [{"name": "new"}]}
    store.import_config(addition)
    assert [store.list_devices()[1], store.list_tags()[1], store.list_items()[1]] == [2, 3, 2]
    assert store.list_networks(store.list_devices(filters={"name": "meters"})[0][0]["id"]).keys() == {"mqtt", "modbus"}
    store.import_config(addition, "replace")
    assert [store.list_devices()[1], store.list_tags()[1], store.list_items()[1]] == [1, 1, 1]
    assert store.list_networks(store.list_devices()[0][0]["id"]) == {}


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ({"format": "x", "version": 2, "extra": 1}, ["format", "version", "extra"]),
        ({"devices": 7, "items": {}}, ["items", "devices"]),
        ({"devices": [{"name": "a"}, {"name": "a"}]}, ["devices.1.name"]),
        (
            {"devices": [{"name": "ok"}, {"name": "a", "tags": [{"name": "t", "item": "no"}]}]},
            ["devices.1.tags.0.item"],
        ),
        ({"items": [{"name": "i", "data_type": "x"}], "devices": [7]}, ["items.0.data_type", "devices.0"]),
    ],
)
def test_a_bad_file_changes_nothing_and_says_where(store: ConfigStore, document: Document, fields: list[str]) -> None:
    fill(store)
    before = store.export_config(), store.revision()
    with pytest.raises(ConfigError) as error:
        store.import_config(document, "replace")
    assert [fault.field for fault in error.value.faults] == fields
    assert (store.export_config(), store.revision()) == before
    with pytest.raises(ConfigError):
        store.import_config(document, "sideways")


def test_an_item_changes_its_type_together_with_what_its_tags_are_written_to(store: ConfigStore) -> None:
    """The items are stored first: it was judged by the registers that the file replaces."""
    binding = {"protocol": "modbus", "direction": "out", "address": {"register": 0}}
    tags = [{"name": "t", "item": "i", "bindings": [binding]}]
    document = {
        "items": [{"name": "i"}],
        "devices": [{"name": "d", "network": {"modbus": {"host": "h"}}, "tags": tags}],
    }
    store.import_config(document)
    document["items"][0]["data_type"] = "string"
    with pytest.raises(ConfigError) as error:
        store.import_config(document)
    assert [fault.field for fault in error.value.faults] == ["devices.0.tags.0.bindings.0.address.type"]
    with pytest.raises(ConfigError) as error:
        store.import_config({"items": document["items"]})
    assert [fault.field for fault in error.value.faults] == ["data_type"]
    binding["address"] = {"register": 0, "type": "string", "length": 8}
    store.import_config(document)
    assert store.list_items()[0][0]["data_type"] == "string"


def test_a_network_in_use_is_not_replaced_away(store: ConfigStore) -> None:
    fill(store)
    before = store.export_config()
    document = store.export_config()
    del document["devices"][1]["network"]["modbus"]
    with pytest.raises(ConfigError) as error:
        store.import_config(document, "replace")
    assert not isinstance(error.value, Conflict)
    assert [fault.field for fault in error.value.faults] == ["devices.1.tags.0.bindings.1.protocol"]
    assert store.export_config() == before

import pytest

from scada.config import Direction
from scada.errors import NotFound
from storage.config_reader import ConfigReader
from storage.config_store import ConfigStore


def test_some_tags_of_one_device_are_loaded_as_all_of_them_are(store: ConfigStore, reader: ConfigReader) -> None:
    term = {"name": "meter", "settings": {"modbus": {"unit_id": 7}}}
    binding = {"protocol": "modbus", "direction": "inout", "address": {"register": 1}}
    store.create_item({"name": "flow", "limits": {"low": 0}})
    tags = [{"name": f"t{number}", "item": "flow", "term": "meter", "bindings": [binding]} for number in range(5)]
    document = {"name": "pump", "network": {"modbus": {"host": "plc"}}, "terms": [term], "tags": tags}
    pump = store.create_device(document)
    store.create_device({**document, "name": "other"})
    (whole,) = [each for each in reader.load_devices() if each.name == "pump"]
    ids = [pump["tags"][3]["id"], pump["tags"][1]["id"]]
    part = reader.load_tags(pump["id"], ids)
    assert part.tags == (whole.tags[1], whole.tags[3])
    assert (part.name, part.networks, part.revision) == (whole.name, whole.networks, whole.revision)
    assert part.tags[0].bindings[0].direction is Direction.INOUT
    assert part.tags[0].bindings[0].address.unit_id == 7  # type: ignore[attr-defined]
    assert reader.load_tags(pump["id"], None) == whole
    assert reader.load_tags(pump["id"], [10**6]).tags == ()
    store.patch_device(pump["id"], {"enabled": False})
    assert len(reader.load_tags(pump["id"], ids).tags) == 2
    with pytest.raises(NotFound):
        reader.load_tags(99, ids)


def test_names_and_ids_are_found_in_bulk(store: ConfigStore) -> None:
    first = store.create_device({"name": "a", "tags": [{"name": f"t{number}"} for number in range(1_000)]})
    second = store.create_device({"name": "b", "enabled": False, "tags": [{"name": "t1"}]})
    assert store.device_names([first["id"], second["id"], 99]) == {
        first["id"]: ("a", True),
        second["id"]: ("b", False),
    }
    names = [tag["name"] for tag in first["tags"]]
    assert store.tag_ids(first["id"], [*names, "nothing"]) == {tag["name"]: tag["id"] for tag in first["tags"]}
    assert store.tag_ids(second["id"], names) == {"t1": second["tags"][0]["id"]}

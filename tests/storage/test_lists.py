from typing import Any

import pytest

from scada.errors import ConfigError
from storage.config_store import ConfigStore

MODBUS = {"protocol": "modbus", "direction": "out", "address": {"register": 5}}


@pytest.fixture
def plant(store: ConfigStore) -> ConfigStore:
    for name in ("pump", "Pump2", "100%", "a_b", "axb", "x[y]"):
        store.create_device({"name": name, "enabled": name != "pump", "network": {"modbus": {"host": "h"}}})
    store.create_tags_bulk(
        [
            {"name": f"t{index}", "device": device, "bindings": [MODBUS]}
            for device in ("pump", "axb")
            for index in range(7)
        ]
    )
    return store


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"name": "pump"}, ["pump"]),
        ({"name": "p*"}, ["pump"]),
        ({"name": "?ump*"}, ["Pump2", "pump"]),
        ({"name": "100%"}, ["100%"]),
        ({"name": "*%"}, ["100%"]),
        ({"name": "a_*"}, ["a_b"]),
        ({"name": "x[*"}, ["x[y]"]),
        ({"name": "[p]*"}, []),
        ({"name": "\\*"}, []),
        ({"enabled": "false"}, ["pump"]),
        ({"enabled": True, "name": "a*"}, ["a_b", "axb"]),
        ({"id": 10**30}, []),
        ({"id": "7" * 6000}, []),
        ({"name": "\0\ud800"}, []),
    ],
)
def test_filters(plant: ConfigStore, filters: dict[str, Any], names: list[str]) -> None:
    documents, total = plant.list_devices(filters=filters)
    assert (sorted(document["name"] for document in documents), total) == (names, len(names))


def test_tags_are_found_by_device_name_and_bindings_by_device(plant: ConfigStore) -> None:
    pump = plant.list_devices(filters={"name": "pump"})[0][0]["id"]
    assert plant.list_tags(filters={"device": "pum?"})[1] == 7
    assert plant.list_tags(filters={"device_id": pump, "name": "t3"})[0][0]["bindings"][0]["address"]["register"] == 5
    documents, total = plant.list_bindings(filters={"device_id": str(pump), "protocol": "modbus"})
    assert (len(documents), total) == (7, 7)
    assert plant.list_tags(filters={"term_id": "null"})[1] == 14


def test_tags_are_found_and_sorted_by_what_they_have_from_their_item(plant: ConfigStore) -> None:
    plant.create_item({"name": "count", "data_type": "int", "unit": "pcs"})
    device = plant.list_devices(filters={"name": "pump"})[0][0]["id"]
    for name in ("t0", "t1"):
        tag = plant.list_tags(filters={"device_id": device, "name": name})[0][0]
        plant.patch_tag(tag["id"], {"item": "count", "unit": None if name == "t0" else "kg"})
    assert plant.list_tags(filters={"data_type": "int"})[1] == 2
    assert plant.list_tags(filters={"data_type": "float"})[1] == 12
    assert [tag["name"] for tag in plant.list_tags(filters={"unit": "p?s"})[0]] == ["t0"]
    sorted_tags = plant.list_tags(1, 100, ["-data_type"])[0]
    assert {tag["data_type"] for tag in sorted_tags[:2]} == {"int"}
    assert [tag["unit"] for tag in plant.list_tags(1, 2, ["data_type", "unit"], {"data_type": "int"})[0]] == [
        "kg",
        "pcs",
    ]


def test_pages_cut_a_list_without_gap_or_overlap(plant: ConfigStore) -> None:
    for sort in (["name"], ["-name"], ["name", "-device_id"], []):
        pages = [plant.list_tags(page, 4, sort) for page in (1, 2, 3, 4, 5)]
        assert [len(documents) for documents, _ in pages] == [4, 4, 4, 2, 0]
        assert {total for _, total in pages} == {14}
        rows = [document for documents, _ in pages for document in documents]
        assert len({row["id"] for row in rows}) == 14
        if sort:
            names = [row["name"] for row in rows]
            assert names == sorted(names, reverse=sort[0].startswith("-"))


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"page": 0}, "page"),
        ({"page_size": 0}, "page_size"),
        ({"page_size": 10_001}, "page_size"),
        ({"sort": ["colour"]}, "sort"),
        ({"sort": ["-"]}, "sort"),
        ({"sort": ["scaling"]}, "sort"),
        ({"filters": {"colour": 1}}, "colour"),
        ({"filters": {"device_id": "x"}}, "device_id"),
        ({"filters": {"limits": "x"}}, "limits"),
    ],
)
def test_a_list_that_cannot_be_is_refused_with_the_field(store: ConfigStore, arguments: Any, field: str) -> None:
    with pytest.raises(ConfigError) as error:
        store.list_tags(**arguments)
    assert [fault.field for fault in error.value.faults] == [field]

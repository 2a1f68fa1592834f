"""What README, demo and clients rely on: the POST of a device as the issue has it, and what hangs from it one by one."""

import pytest
from flask.testing import FlaskClient

from tests.support.rest import BOILER

TAG = {"name": "pressure", "unit": "bar"}
MQTT = {"protocol": "mqtt", "direction": "in", "address": {"path": "p"}}
MODBUS = {"protocol": "modbus", "direction": "out", "address": {"register": 4}}


def test_post_of_a_device_answers_201_location_and_the_whole_object(client: FlaskClient) -> None:
    answer = client.post("/api/v1/devices", json=BOILER)
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/api/v1/devices/{answer.json['id']}"
    assert isinstance(answer.json["id"], int)
    assert answer.json["network"]["mqtt"]["topic"] == "plant/boiler"
    (tag,) = answer.json["tags"]
    assert (tag["name"], tag["data_type"], tag["unit"]) == ("temperature", "float", "°C")
    mqtt, modbus = tag["bindings"]
    assert mqtt["address"] == {"path": "temperature"}
    assert modbus["address"] == BOILER["tags"][0]["bindings"][1]["address"]
    assert client.get(answer.headers["Location"]).json == answer.json


def test_one_by_one_gives_the_same_as_nested(client: FlaskClient) -> None:
    nested = client.post("/api/v1/devices", json=BOILER).json
    parts = {**BOILER, "name": "other", "tags": []}
    device = client.post("/api/v1/devices", json=parts).json["id"]
    (whole,) = BOILER["tags"]
    answer = client.post(f"/api/v1/devices/{device}/tags", json={**whole, "bindings": []})
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/api/v1/tags/{answer.json['id']}")
    for binding in whole["bindings"]:
        answer = client.post(f"/api/v1/tags/other@{whole['name']}/bindings", json=binding)
        assert (answer.status_code, answer.headers["Location"]) == (201, f"/api/v1/bindings/{answer.json['id']}")
    made = client.get(f"/api/v1/devices/{device}").json
    ids = {"id", "device_id", "tag_id", "revision"}
    (tag,), (same,) = made["tags"], nested["tags"]
    assert [{k: v for k, v in b.items() if k not in ids} for b in tag["bindings"]] == [
        {k: v for k, v in b.items() if k not in ids} for b in same["bindings"]
    ]
    assert {k: v for k, v in tag.items() if k not in ids | {"bindings"}} == {
        k: v for k, v in same.items() if k not in ids | {"bindings"}
    }


def test_defaults_are_those_of_the_contract(client: FlaskClient) -> None:
    device = client.post("/api/v1/devices", json={"name": "d", "network": {"mqtt": {}, "modbus": {"host": "h"}}}).json
    assert device["network"]["mqtt"]["topic"] == f"device/{device['id']}"
    assert device["network"]["modbus"]["port"] == 502
    tag = client.post("/api/v1/devices/d/tags", json={"name": "t", "bindings": [MODBUS]}).json
    address = tag["bindings"][0]["address"]
    assert (address["unit_id"], address["type"], address["table"]) == (1, "uint16", "holding_register")


def test_a_term_gives_its_unit_id_to_bindings(client: FlaskClient) -> None:
    client.post("/api/v1/devices", json={"name": "d", "network": {"modbus": {"host": "h"}}})
    term = client.post("/api/v1/devices/d/terms", json={"name": "meter", "settings": {"modbus": {"unit_id": 7}}})
    assert (term.status_code, term.headers["Location"]) == (201, f"/api/v1/terms/{term.json['id']}")
    tag = client.post("/api/v1/devices/d/tags", json={"name": "t", "term": "meter", "bindings": [MODBUS]}).json
    assert tag["term_id"] == term.json["id"]
    assert tag["bindings"][0]["address"]["unit_id"] == 7


def test_a_tag_inherits_from_its_item(client: FlaskClient) -> None:
    item = client.post("/api/v1/items", json={"name": "bar", "data_type": "int", "unit": "bar"})
    assert (item.status_code, item.headers["Location"]) == (201, f"/api/v1/items/{item.json['id']}")
    client.post("/api/v1/devices", json={"name": "d"})
    tag = client.post("/api/v1/devices/d/tags", json={"name": "t", "item_id": item.json["id"]}).json
    assert (tag["data_type"], tag["unit"]) == ("int", "bar")
    assert client.delete(item.headers["Location"]).status_code == 409
    assert client.delete("/api/v1/tags/d@t").status_code == 204
    assert client.delete(item.headers["Location"]).status_code == 204


@pytest.mark.parametrize(
    ("path", "whole", "patch"),
    [
        ("/api/v1/devices/boiler", {"name": "boiler", "description": "new"}, {"description": "patched"}),
        ("/api/v1/devices/boiler/networks/mqtt", {"topic": "new/topic"}, {"topic": "patched/topic"}),
        ("/api/v1/tags/boiler@temperature", {"name": "temperature", "unit": "K"}, {"unit": "mK"}),
        ("/api/v1/bindings/1", {**MQTT, "address": {"path": "new"}}, {"address": {"path": "patched"}}),
        ("/api/v1/terms/1", {"name": "meter", "description": "new"}, {"description": "patched"}),
        ("/api/v1/items/1", {"name": "bar", "unit": "Pa"}, {"unit": "kPa"}),
    ],
)
def test_replace_patch_delete(
    client: FlaskClient, path: str, whole: dict[str, object], patch: dict[str, object]
) -> None:
    client.post("/api/v1/devices", json={**BOILER, "terms": [{"name": "meter"}]})
    client.post("/api/v1/items", json={"name": "bar"})
    assert client.get(path).status_code == 200
    answer = client.put(path, json=whole)
    assert answer.status_code == 200
    assert all(answer.json[name] == value for name, value in whole.items())
    for media_type in ("application/merge-patch+json", "application/json"):
        answer = client.patch(path, data=client.application.json.dumps(patch), content_type=media_type)
        assert answer.status_code == 200
        assert all(answer.json[name] == value for name, value in patch.items())
    assert client.get(path).json == answer.json
    if path.endswith("networks/mqtt"):
        assert client.delete(path).status_code == 409
        client.delete("/api/v1/bindings/1")
    answer = client.delete(path)
    assert (answer.status_code, answer.data) == (204, b"")
    assert client.get(path).status_code == 404


def test_deleting_a_device_deletes_what_hangs_from_it(client: FlaskClient) -> None:
    client.post("/api/v1/devices", json={**BOILER, "terms": [{"name": "meter"}]})
    client.delete("/api/v1/devices/boiler")
    for kind in ("devices", "tags", "bindings", "terms"):
        assert client.get(f"/api/v1/{kind}").json == {"items": [], "total": 0}


def test_bulk_creates_all_or_none(client: FlaskClient) -> None:
    client.post("/api/v1/devices", json={**BOILER, "tags": []})
    tags = [{"name": f"t{index}", "bindings": [{**MODBUS, "address": {"register": index}}]} for index in range(500)]
    answer = client.post("/api/v1/devices/boiler/tags", json=tags)
    assert (answer.status_code, answer.json["total"], len(answer.json["ids"])) == (201, 500, 500)
    assert client.get(f"/api/v1/tags/{answer.json['ids'][7]}").json["name"] == "t7"
    more = [{"device": "boiler", "name": f"u{index}"} for index in range(10)]
    assert client.post("/api/v1/tags/bulk", json={"tags": more}).json["total"] == 10
    broken = [{"device": "boiler", "name": f"v{index}"} for index in range(10)]
    broken[3]["name"], broken[8]["device"] = "a/b", "nobody"
    answer = client.post("/api/v1/tags/bulk", json={"tags": broken})
    assert answer.status_code == 422
    assert "tags.3.name" in {fault["field"] for fault in answer.json["errors"]}
    taken = client.post("/api/v1/devices/boiler/tags", json=[{"name": "new"}, {"name": "t1"}])
    assert (taken.status_code, taken.json["errors"][0]["field"]) == (409, "1.name")
    assert client.get("/api/v1/tags").json["total"] == 510


def test_protocols_describe_themselves(client: FlaskClient) -> None:
    answer = client.get("/api/v1/protocols").json
    assert [each["name"] for each in answer["items"]] == ["mqtt", "modbus", "modbus_server", "simulated"]
    address = client.get("/api/v1/protocols/modbus").json["schemas"]["address"]
    assert address["properties"]["register"]["maximum"] == 65535
    assert "counted from 0" in address["properties"]["register"]["description"]
    assert client.get("/api/v1/protocols/nope").status_code == 404

"""Paging, sorting and filters; ETags."""

import pytest
from flask.testing import FlaskClient

from storage.config_store import ConfigStore
from tests.support.rest import BOILER


@pytest.fixture
def plant(client: FlaskClient) -> FlaskClient:
    for index in range(25):
        tags = [{"name": "level"}, {"name": f"tank{index}"}]
        client.post("/api/v1/devices", json={"name": f"d{index:02}", "enabled": index % 2 == 0, "tags": tags})
    return client


def names(client: FlaskClient, query: str) -> list[str]:
    return [each["name"] for each in client.get(f"/api/v1/{query}").json["items"]]


def test_pages_are_disjoint_and_complete(plant: FlaskClient) -> None:
    pages = [plant.get(f"/api/v1/tags?page={page}&page_size=20").json for page in (1, 2, 3, 4)]
    assert [len(page["items"]) for page in pages] == [20, 20, 10, 0]
    assert {page["total"] for page in pages} == {50}
    assert len({tag["id"] for page in pages for tag in page["items"]}) == 50


def test_sorting(plant: FlaskClient) -> None:
    assert names(plant, "devices?sort=-name&page_size=2") == ["d24", "d23"]
    assert names(plant, "devices?sort=-enabled,name&page_size=2") == ["d00", "d02"]
    assert names(plant, "tags?sort=name,-id&page_size=1000")[0] == "level"


def test_filters(plant: FlaskClient) -> None:
    assert names(plant, "devices?name=d1*") == [f"d1{index}" for index in range(10)]
    assert names(plant, "devices?name=d0?&enabled=true") == ["d00", "d02", "d04", "d06", "d08"]
    assert names(plant, "devices?name=D1*") == []
    device = plant.get("/api/v1/devices/d07").json["id"]
    for query in (f"device_id={device}", "device=d07", "device=d?7&name=*"):
        found = plant.get(f"/api/v1/tags?{query}").json
        assert {tag["name"] for tag in found["items"]} >= {"level", "tank7"}
    assert names(plant, "tags?device=nobody") == []
    assert set(names(plant, "devices/d07/tags")) == {"level", "tank7"}
    assert names(plant, "devices/d07/tags?name=t*") == ["tank7"]


def test_bindings_and_terms_are_found_by_their_device_as_tags_are(client: FlaskClient) -> None:
    client.post("/api/v1/devices", json={**BOILER, "terms": [{"name": "meter"}]})
    other = {"mqtt": {"topic": "plant/other"}, "modbus": {"host": "127.0.0.1", "port": 8503}}
    client.post("/api/v1/devices", json={**BOILER, "name": "other", "network": other, "terms": [{"name": "pulse"}]})
    for query in ("device=boiler", "device=1", "device_id=1", "device=b?iler"):
        assert {each["device_id"] for each in client.get(f"/api/v1/terms?{query}").json["items"]} == {1}
        assert [each["tag_id"] for each in client.get(f"/api/v1/bindings?{query}").json["items"]] == [1, 1]
    for path in ("tags", "terms", "bindings"):
        assert client.get(f"/api/v1/{path}?device=nobody").json == {"items": [], "total": 0}
        assert client.get(f"/api/v1/{path}?device=1&device_id=1").status_code == 422


@pytest.mark.parametrize("number", ["1_0", "\u0661", "1.0", "0x1", ""])
@pytest.mark.parametrize(
    "query",
    [
        "devices?page=",
        "devices?page_size=",
        "tags?device_id=",
        "commands?id=",
        "registers?device=boiler&register=",
        "registers?device=boiler&register=1&count=",
    ],
)
def test_a_number_in_a_query_is_written_with_plain_digits(client: FlaskClient, query: str, number: str) -> None:
    client.post("/api/v1/devices", json=BOILER)
    answer = client.get(f"/api/v1/{query}{number}")
    assert answer.status_code == 422
    assert [fault["field"] for fault in answer.json["errors"]] == [query.rpartition("&")[2].rpartition("?")[2][:-1]]


def test_etag_and_if_none_match(client: FlaskClient) -> None:
    client.post("/api/v1/devices", json={**BOILER, "terms": [{"name": "meter"}]})
    client.post("/api/v1/items", json={"name": "bar"})
    for path in (
        "devices/1",
        "devices/1/networks",
        "devices/1/networks/mqtt",
        "tags/1",
        "bindings/1",
        "terms/1",
        "items/1",
    ):
        etag = client.get(f"/api/v1/{path}").headers["ETag"]
        assert client.get(f"/api/v1/{path}", headers={"If-None-Match": etag}).status_code == 304


def test_if_match_guards_every_kind_of_object(client: FlaskClient) -> None:
    client.post("/api/v1/devices", json={**BOILER, "terms": [{"name": "meter"}]})
    client.post("/api/v1/items", json={"name": "bar"})
    for path in ("devices/1/networks/mqtt", "tags/1", "bindings/1", "terms/1", "items/1", "devices/1"):
        etag = client.get(f"/api/v1/{path}").headers["ETag"]
        patch = {"address": {"path": "new"}} if path == "bindings/1" else {"description": "new"}
        patch = {"topic": "new"} if path.endswith("mqtt") else patch
        assert client.patch(f"/api/v1/{path}", json=patch, headers={"If-Match": etag}).status_code == 200
        assert client.patch(f"/api/v1/{path}", json=patch, headers={"If-Match": etag}).status_code == 412
        assert client.delete(f"/api/v1/{path}", headers={"If-Match": etag}).status_code == 412
        assert client.patch(f"/api/v1/{path}", json=patch, headers={"If-Match": "*"}).status_code == 200


def test_the_etag_of_a_change_is_the_next_one_to_send(client: FlaskClient) -> None:
    etag = client.post("/api/v1/devices", json=BOILER).headers["ETag"]
    for text in "abc":
        answer = client.patch("/api/v1/devices/boiler", json={"description": text}, headers={"If-Match": etag})
        assert answer.status_code == 200
        etag = answer.headers["ETag"]
    assert client.get("/api/v1/devices/boiler").headers["ETag"] == etag


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_etag_never_belongs_to_a_newer_state_than_the_object(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Somebody changes the tag while it is read: its ETag is either that of what was read, or is refused."""
    client.post("/api/v1/devices", json=BOILER)
    original = ConfigStore.device_revision

    def meddling(self: ConfigStore, device_id: int) -> int:
        if moment == "before":
            self.patch_tag(1, {"unit": "K"})
        revision = original(self, device_id)
        if moment == "after":
            self.patch_tag(1, {"unit": "K"})
        return revision

    monkeypatch.setattr(ConfigStore, "device_revision", meddling)
    answer = client.get("/api/v1/tags/1")
    monkeypatch.undo()
    stored = client.get("/api/v1/tags/1").json
    change = client.patch("/api/v1/tags/1", json={"unit": "F"}, headers={"If-Match": answer.headers["ETag"]})
    assert change.status_code == 412 or answer.json == stored

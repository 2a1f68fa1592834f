"""The same API on PostgreSQL, where numbers, texts and patterns have other limits than on SQLite."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.support.postgres import PostgresServer, postgres_server, programs
from tests.support.programs import lacking
from tests.support.rest import BOILER, application


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    if programs() is None:
        lacking("PostgreSQL's wheel is not installed")
    with postgres_server() as server:
        yield server


@pytest.fixture
def client(postgres: PostgresServer, tmp_path: Path) -> FlaskClient:
    return application(tmp_path, database_uri=postgres.uri()).test_client()


def test_the_contract(client: FlaskClient) -> None:
    answer = client.post("/api/v1/devices", json=BOILER)
    assert answer.status_code == 201
    assert client.get(answer.headers["Location"]).json == answer.json
    tags = [{"name": f"t{index}", "bindings": [{**BOILER["tags"][0]["bindings"][0]}]} for index in range(2000)]
    assert client.post("/api/v1/devices/boiler/tags", json=tags).json["total"] == 2000
    assert client.get("/api/v1/tags?name=t19??&sort=-name&device=b*").json["total"] == 100
    etag = client.get("/api/v1/tags/boiler@t7").headers["ETag"]
    patch = {"unit": "bar"}
    assert client.patch("/api/v1/tags/boiler@t7", json=patch, headers={"If-Match": etag}).status_code == 200
    assert client.patch("/api/v1/tags/boiler@t7", json=patch, headers={"If-Match": etag}).status_code == 412
    exported = client.get("/api/v1/config?format=yaml").data
    assert client.put("/api/v1/config", data=exported, content_type="application/yaml").status_code == 200
    assert client.get("/api/v1/config?format=yaml").data == exported
    table = client.get("/api/v1/tags.csv").data
    assert client.post("/api/v1/tags.csv", data=table, content_type="text/csv").json["total"] == 2001
    assert client.post("/api/v1/devices", json=BOILER).status_code == 409
    assert client.delete("/api/v1/devices/boiler").status_code == 204


@pytest.mark.parametrize("number", [2**31 - 1, 2**31, 2**63, 2**64 - 1, -1, "9" * 40])
def test_numbers_beyond_its_columns(client: FlaskClient, number: int) -> None:
    assert client.get(f"/api/v1/devices/{number}").status_code == 404
    assert client.get(f"/api/v1/tags?device_id={number}&id={number}").status_code == 200
    client.post("/api/v1/devices", json={"name": "d"})
    assert client.post("/api/v1/devices/d/tags", json={"name": "t", "item_id": number}).status_code in (400, 422)
    assert client.delete("/api/v1/devices/d", headers={"If-Match": f'"{number}"'}).status_code == 412


def test_texts_and_patterns_that_mean_something_to_it(client: FlaskClient) -> None:
    client.post("/api/v1/devices", json={"name": "d", "description": "100 % _ \\ [a] ' \u2028"})
    for pattern in ("100 % _ \\*", "*%*", "*\\*", "*[a]*", "*' *"):
        assert client.get("/api/v1/devices", query_string={"description": pattern}).json["total"] == 1, pattern
    for pattern in ("\0", "%00", "%", "_*", "\\", "\ud7ff*"):
        assert client.get("/api/v1/devices", query_string={"description": pattern}).json["total"] == 0, pattern

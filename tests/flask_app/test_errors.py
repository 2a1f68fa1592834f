"""Every refusal has one shape, RFC 9457, and lists every fault with its field."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_app.database import Database
from scada.errors import ConfigError, LinkError
from tests.support.rest import BOILER, application


def problem(answer: Any, status: int) -> dict[str, Any]:
    """The problem in an answer, its shape checked."""
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"
    found: dict[str, Any] = answer.json
    assert found["status"] == status
    assert found["title"]
    assert found["type"] == "about:blank" or found["type"].startswith("urn:tagwire:problem:")
    return found


def fields(answer: Any, status: int) -> set[str]:
    return {fault["field"] for fault in problem(answer, status)["errors"]}


def test_every_fault_of_a_document_is_listed(client: FlaskClient) -> None:
    document = {
        "name": "plant/#",
        "enabled": "yes",
        "colour": "red",
        "network": {"mqtt": {"topic": "$SYS/x"}, "modbus": {"port": 70000, "host": "h"}, "lora": {}},
        "terms": [{"name": "+"}],
        "tags": [
            {
                "name": "t",
                "data_type": "decimal",
                "bindings": [
                    {"protocol": "modbus", "direction": "in", "address": {"register": 65536, "order": "XYZ"}},
                    {"protocol": "mqtt", "direction": "inout", "address": {}},
                ],
            },
            {"name": "t", "bindings": {}},
            "no object",
        ],
    }
    assert fields(client.post("/api/v1/devices", json=document), 422) >= {
        "name",
        "enabled",
        "colour",
        "network.mqtt.topic",
        "network.modbus.port",
        "network.lora",
        "terms.0.name",
        "tags.0.data_type",
        "tags.0.bindings.0.address.register",
        "tags.0.bindings.0.address.order",
        "tags.0.bindings.1.direction",
        "tags.0.bindings.1.address",
        "tags.1.bindings",
        "tags.2",
    }


def test_every_fault_of_a_query_is_listed(client: FlaskClient) -> None:
    answer = client.get("/api/v1/devices?page=0&page_size=1001&colour=red")
    assert fields(answer, 422) == {"page", "page_size", "colour"}
    assert fields(client.get("/api/v1/tags?sort=-name,colour"), 422) == {"sort"}
    assert fields(client.get("/api/v1/tags?device_id=x"), 422) == {"device_id"}


@pytest.mark.parametrize(
    ("method", "path", "arguments", "status"),
    [
        ("get", "/nowhere", {}, 404),
        ("get", "/api/v1/nowhere", {}, 404),
        ("get", "/api/v1/devices/", {}, 404),
        ("get", "/api/v1//devices", {}, 404),
        ("get", "/api/v1/devices/99", {}, 404),
        ("get", "/api/v1/devices/nobody", {}, 404),
        ("get", f"/api/v1/devices/{2**63}", {}, 404),
        ("get", f"/api/v1/devices/{'9' * 5000}", {}, 404),
        ("get", "/api/v1/devices/-1", {}, 404),
        ("get", "/api/v1/devices/%00", {}, 404),
        ("get", "/api/v1/devices/%ff%fe", {}, 404),
        ("get", "/api/v1/devices/99/tags", {}, 404),
        ("get", "/api/v1/tags/99/bindings", {}, 404),
        ("get", "/api/v1/tags/99", {}, 404),
        ("get", "/api/v1/tags/boiler@nothing", {}, 404),
        ("get", "/api/v1/tags/@", {}, 404),
        ("get", "/api/v1/bindings/x", {}, 404),
        ("get", "/api/v1/devices/boiler/networks/dnp3", {}, 404),
        ("get", "/api/v1/registers?device=99&register=0", {}, 404),
        ("delete", "/api/v1/devices/99", {}, 404),
        ("post", "/api/v1/devices/99/tags", {"json": {"name": "t"}}, 404),
        ("delete", "/api/v1/devices", {}, 405),
        ("post", "/api/v1/protocols", {"json": {}}, 405),
        ("get", "/api/v1/devices", {"headers": {"Accept": "text/html"}}, 406),
        ("post", "/api/v1/devices", {"data": b"{}", "content_type": "text/plain"}, 415),
        ("post", "/api/v1/devices", {"data": b"{}"}, 415),
        ("post", "/api/v1/devices", {"data": b"{}", "content_type": "application/merge-patch+json"}, 415),
        ("post", "/api/v1/devices", {"data": b"{}", "content_type": "application/json; charset=utf-16"}, 415),
        ("post", "/api/v1/devices", {"data": {"name": "x"}}, 415),
        ("post", "/api/v1/config", {"data": b"{}", "content_type": "text/csv"}, 415),
        ("post", "/api/v1/tags.csv", {"data": b"{}", "content_type": "application/json"}, 415),
        ("post", "/api/v1/devices", {"data": b" " * (8 * 2**20 + 1), "content_type": "application/json"}, 413),
        ("post", "/api/v1/devices", {"json": []}, 422),
        ("post", "/api/v1/devices", {"data": b"null", "content_type": "application/json"}, 422),
        ("post", "/api/v1/devices", {"json": "boiler"}, 422),
        ("post", "/api/v1/devices", {"json": {}}, 422),
        ("post", "/api/v1/devices", {"json": BOILER}, 409),
        ("patch", "/api/v1/devices/boiler", {"json": []}, 422),
        ("patch", "/api/v1/devices/boiler", {"json": {"name": None}}, 422),
        ("put", "/api/v1/devices/boiler/networks/dnp3", {"json": {}}, 422),
        ("put", "/api/v1/devices/boiler", {"json": {"name": "boiler"}, "headers": {"If-Match": '"99"'}}, 412),
        ("put", "/api/v1/devices/boiler", {"json": {"name": "boiler"}, "headers": {"If-Match": "nonsense"}}, 412),
        ("put", "/api/v1/devices/boiler", {"json": {"name": "boiler"}, "headers": {"If-Match": 'W/"1"'}}, 412),
        ("put", "/api/v1/devices/boiler", {"json": {"name": "boiler"}, "headers": {"If-Match": '"1", "2"'}}, 400),
        ("delete", "/api/v1/devices/boiler", {"headers": {"If-Match": f'"{"9" * 30}"'}}, 412),
        ("delete", "/api/v1/devices/boiler/networks/mqtt", {}, 409),
        ("post", "/api/v1/tags/bulk", {"json": []}, 422),
        ("post", "/api/v1/tags/bulk", {"json": {"tags": [{"name": "t"}]}}, 422),
        ("post", "/api/v1/tags/bulk", {"json": {"tags": [1, None, []]}}, 422),
        ("post", "/api/v1/config", {"json": []}, 422),
        ("post", "/api/v1/config?mode=other", {"json": {}}, 422),
        ("post", "/api/v1/config?dry_run=perhaps", {"json": {}}, 422),
        ("get", "/api/v1/config?format=xml", {}, 422),
        ("post", "/api/v1/registers", {"json": {"device": "boiler"}}, 422),
        ("get", "/api/v1/registers?device=boiler&register=65535&type=float32", {}, 422),
        ("get", "/api/v1/registers?device=boiler&register=0&count=200", {}, 422),
        ("get", "/docs/nothing.js", {}, 404),
        ("get", "/docs/..%2fapp.py", {}, 404),
    ],
)
def test_bad_input_table(client: FlaskClient, method: str, path: str, arguments: dict[str, Any], status: int) -> None:
    client.post("/api/v1/devices", json=BOILER)
    problem(getattr(client, method)(path, **arguments), status)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "tags/999/bindings"),
        ("POST", "devices/999/tags"),
        ("POST", "devices/999/terms"),
        ("POST", "tags/999/commands"),
        *(
            (method, f"{path}/999")
            for method in ("PUT", "PATCH")
            for path in ("devices", "tags", "bindings", "terms", "items")
        ),
        *((method, "devices/999/networks/mqtt") for method in ("PUT", "PATCH")),
    ],
)
def test_what_is_not_there_is_404_whatever_is_sent_to_it(client: FlaskClient, method: str, path: str) -> None:
    assert client.open(f"/api/v1/{path}", method=method, json={"colour": 1}).status_code == 404


def test_405_names_what_is_allowed(client: FlaskClient) -> None:
    assert "GET" in client.delete("/api/v1/devices").headers["Allow"]


def test_a_fault_of_ours_is_a_problem_without_details(app: Flask, client: FlaskClient) -> None:
    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("secret")

    found = problem(client.get("/broken"), 500)
    assert "secret" not in str(found)


def test_locked_database_is_503_with_retry_after(
    client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_app.database.PATIENCE_S", 0.5)
    client.post("/api/v1/devices", json=BOILER)
    with sqlite3.connect(tmp_path / "db.sqlite") as other:
        other.execute("BEGIN IMMEDIATE")
        answer = client.put("/api/v1/devices/boiler", json={"name": "boiler"})
        assert "locked" in problem(answer, 503)["detail"]
        assert int(answer.headers["Retry-After"]) > 0
        # WAL: readers do not wait for the writer.
        assert client.get("/api/v1/devices/boiler").status_code == 200
    assert client.put("/api/v1/devices/boiler", json={"name": "boiler"}).status_code == 200


def test_read_only_database_is_503(client: FlaskClient, app: Flask, tmp_path: Path) -> None:
    client.post("/api/v1/devices", json=BOILER)
    database: Database = app.extensions["tagwire"]
    with app.app_context(), database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")
    assert "read-only" in problem(client.delete("/api/v1/devices/boiler"), 503)["detail"]
    assert client.get("/api/v1/devices/boiler").status_code == 200


def test_full_disk_is_507(client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise LinkError("database: the disk is full")

    monkeypatch.setattr("storage.config_store.ConfigStore.create_device", refuse)
    problem(client.post("/api/v1/devices", json=BOILER), 507)


def test_a_database_that_cannot_be_opened_is_503_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    path.mkdir()
    client = application(tmp_path).test_client()
    problem(client.get("/api/v1/devices"), 503)
    problem(client.get("/readyz"), 503)
    assert client.get("/healthz").json == {"status": "ok"}
    assert client.get("/docs/").status_code == 200
    path.rmdir()
    assert client.get("/readyz").status_code == 200


def test_a_damaged_database_is_moved_aside_and_shown_until_somebody_takes_it_away(tmp_path: Path) -> None:
    garbage = b"this is no database" * 1000
    (tmp_path / "db.sqlite").write_bytes(garbage)
    client = application(tmp_path).test_client()
    (moved,) = tmp_path.glob("db.sqlite.damaged-*")
    assert moved.read_bytes() == garbage
    for path in ("/healthz", "/readyz"):
        answer = client.get(path)
        assert (answer.status_code, answer.json["status"]) == (200, "degraded")
        assert str(moved) in answer.json["detail"]
    assert "tagwire_database_set_aside 1.0" in client.get("/metrics").text
    assert client.post("/api/v1/devices", json=BOILER).status_code == 201
    moved.unlink()
    assert client.get("/healthz").json == {"status": "ok"}
    assert client.get("/readyz").json == {"status": "ready", "revision": 1}


def test_a_database_of_another_program_is_503_to_requests(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    path.mkdir()
    client = application(tmp_path).test_client()
    path.rmdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE device (colour TEXT)")
    assert "another program" in problem(client.get("/api/v1/devices"), 503)["detail"]
    with pytest.raises(ConfigError, match="another program"):
        application(tmp_path)

"""Export and import of the whole configuration, as JSON and as YAML."""

from typing import Any

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient

from tests.support.rest import BOILER, application

YAML = {"Content-Type": "application/yaml"}


@pytest.fixture
def plant(client: FlaskClient) -> FlaskClient:
    client.post("/api/v1/items", json={"name": "celsius", "unit": "°C", "limits": {"low": -40, "high": 120}})
    client.post("/api/v1/devices", json={**BOILER, "description": "line one\u2028two, 'quoted', yes: no"})
    client.post("/api/v1/devices", json={"name": "yes", "description": "0o17", "enabled": False})
    client.post("/api/v1/devices/yes/tags", json={"name": "1e3", "item": "celsius", "scaling": {"gain": 0.1}})
    return client


def other(app: Flask, tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    return application(tmp_path_factory.mktemp("other")).test_client()


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_an_export_imported_elsewhere_exports_the_same(
    plant: FlaskClient, app: Flask, tmp_path_factory: pytest.TempPathFactory, form: str
) -> None:
    exported = plant.get(f"/api/v1/config?format={form}")
    assert exported.mimetype == f"application/{form}"
    target = other(app, tmp_path_factory)
    answer = target.post("/api/v1/config", data=exported.data, content_type=exported.mimetype)
    assert answer.status_code == 200, answer.text
    assert answer.json == {"items": 1, "devices": 2, "tags": 2, "dry_run": False}
    assert target.get(f"/api/v1/config?format={form}").data == exported.data


def test_accept_decides_when_nothing_else_does(plant: FlaskClient) -> None:
    assert plant.get("/api/v1/config").mimetype == "application/json"
    assert plant.get("/api/v1/config", headers={"Accept": "application/yaml"}).mimetype == "application/yaml"
    assert plant.get("/api/v1/config", headers={"Accept": "*/*"}).mimetype == "application/json"
    assert (
        plant.get("/api/v1/config?format=json", headers={"Accept": "application/yaml"}).mimetype == "application/json"
    )


def test_merge_leaves_what_the_file_does_not_name_and_replace_deletes_it(plant: FlaskClient) -> None:
    file: dict[str, Any] = {"devices": [{"name": "new"}]}
    assert plant.post("/api/v1/config", json=file).status_code == 200
    assert plant.get("/api/v1/devices").json["total"] == 3
    assert plant.put("/api/v1/config", json=file).status_code == 200
    assert [each["name"] for each in plant.get("/api/v1/devices").json["items"]] == ["new"]
    assert plant.get("/api/v1/items").json["total"] == 0


def test_dry_run_checks_everything_and_stores_nothing(plant: FlaskClient) -> None:
    before = plant.get("/api/v1/config").data
    answer = plant.put("/api/v1/config?dry_run=true", json={"devices": [{"name": "new", "tags": [{"name": "t"}]}]})
    assert answer.json == {"items": 0, "devices": 1, "tags": 1, "dry_run": True}
    assert plant.get("/api/v1/config").data == before
    wrong = {"devices": [{"name": "new", "tags": [{"name": "t", "item": "nothing"}]}]}
    assert plant.put("/api/v1/config?dry_run=true", json=wrong).status_code == 422


def test_a_file_with_faults_lists_all_and_changes_nothing(plant: FlaskClient) -> None:
    before = plant.get("/api/v1/config").data
    file = yaml.safe_dump({"version": 2, "colour": 1, "devices": [{"name": "ok"}, {"name": "a/b", "tags": [{}]}]})
    answer = plant.put("/api/v1/config", data=file, headers=YAML)
    assert answer.status_code == 422
    assert {fault["field"] for fault in answer.json["errors"]} == {
        "version",
        "colour",
        "devices.1.name",
        "devices.1.tags.0.name",
    }
    assert plant.get("/api/v1/config").data == before


def test_import_may_be_larger_than_other_bodies(plant: FlaskClient) -> None:
    file = b'{"devices": []' + b" " * (10 * 2**20) + b"}"
    assert plant.post("/api/v1/config", data=file, content_type="application/json").status_code == 200
    assert plant.post("/api/v1/devices", data=file, content_type="application/json").status_code == 413
    file += b" " * (23 * 2**20)
    assert plant.post("/api/v1/config", data=file, content_type="application/json").status_code == 413

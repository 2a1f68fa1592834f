"""The OpenAPI document: every operation behaves as it says, and the page that shows it fetches nothing from elsewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from flask_app.api.examples import BINDING
from flask_app.live import EXTENSION, Live
from links.environment import MqttSettings
from tests.support.brokers import start_nats
from tests.support.processes import wait_until
from tests.support.rest import BOILER, application

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
KNOWN = {
    "device": "boiler",
    "tag": "boiler@temperature",
    "term": "1",
    "item": "1",
    "binding": "2",
    "protocol": "modbus",
    "command": "1",
}
EXAMPLES = 12


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    folder: Path = tmp_path_factory.mktemp("openapi")
    with start_nats(folder / "broker") as broker:
        app = application(folder, mqtt=MqttSettings(port=broker.port))
        live: Live = app.extensions[EXTENSION]
        live.start()
        wait_until(lambda: live.online)
        yield app
        live.close()


def _operations() -> list[str]:
    # Parametrised by name, so that a failure says which operation it was.
    return [
        f"{method} {path}"
        for path, methods in {
            "/api/v1/devices": "get post",
            "/api/v1/devices/{device}": "get put patch delete",
            "/api/v1/devices/{device}/networks": "get",
            "/api/v1/devices/{device}/networks/{protocol}": "get put patch delete",
            "/api/v1/devices/{device}/terms": "get post",
            "/api/v1/devices/{device}/tags": "get post",
            "/api/v1/terms": "get",
            "/api/v1/terms/{term}": "get put patch delete",
            "/api/v1/items": "get post",
            "/api/v1/items/{item}": "get put patch delete",
            "/api/v1/tags": "get",
            "/api/v1/tags/bulk": "post",
            "/api/v1/tags/{tag}": "get put patch delete",
            "/api/v1/tags/{tag}/bindings": "get post",
            "/api/v1/bindings": "get",
            "/api/v1/bindings/{binding}": "get put patch delete",
            "/api/v1/protocols": "get",
            "/api/v1/protocols/{protocol}": "get",
            "/api/v1/config": "get post put",
            "/api/v1/tags.csv": "get post",
            "/api/v1/tags/{tag}/value": "get",
            "/api/v1/values": "get",
            "/api/v1/devices/{device}/link": "get",
            "/api/v1/devices/{device}/plan": "get",
            "/api/v1/tags/{tag}/commands": "post",
            "/api/v1/commands": "get",
            "/api/v1/commands/{command}": "get",
            "/api/v1/device_ctrl": "post",
            "/api/v1/device_call": "post",
            "/api/v1/registers": "get post",
            "/api/v1/rejects": "get",
            "/api/v1/rejects/counts": "get",
        }.items()
        for method in methods.split()
    ]


@pytest.mark.parametrize("name", _operations())
def test_operation_answers_what_it_documents(served: Flask, name: str) -> None:
    """No 5xx, no status and no body that the document does not have; on objects that exist and on others."""
    method, path = name.split()
    operation = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", served)[path][method.upper()]
    client = served.test_client()
    network = {"mqtt": {}, "modbus": {"host": "127.0.0.1", "port": 9, "connect_timeout_s": 0.1, "timeout_s": 0.1}}
    whole: dict[str, Any] = {**BOILER, "network": network, "terms": [{"name": "meter"}]}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), known=st.sampled_from([True, True, False]))
    def ask(case: Any, known: bool) -> None:
        if known and case.path_parameters:
            if client.get("/api/v1/devices/boiler").status_code == 404:
                client.post("/api/v1/devices", json=whole)
            case.path_parameters.update({part: KNOWN[part] for part in case.path_parameters})
        case.validate_response(case.call(), checks=CHECKS)

    ask()


@pytest.mark.parametrize("media_type", ["application/json", "application/yaml"])
def test_the_configuration_is_as_documented_with_items_and_terms(served: Flask, media_type: str) -> None:
    """Its tags name their item and term, which the schema of other answers forbids."""
    client = served.test_client()
    client.delete("/api/v1/devices/boiler")
    item = {"name": "pressure", "unit": "bar"}
    assert client.post("/api/v1/items", json=item).status_code in (201, 409)
    tags = [{**BOILER["tags"][0], "item": "pressure", "term": "meter"}]
    assert (
        client.post("/api/v1/devices", json={**BOILER, "terms": [{"name": "meter"}], "tags": tags}).status_code == 201
    )
    operation = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", served)["/api/v1/config"]["GET"]
    case = operation.Case(headers={"Accept": media_type})
    response = case.call()
    assert b"item" in response.content
    case.validate_response(response, checks=CHECKS)
    for part in ("items.0", "devices.0", "devices.0.tags.0", "devices.0.terms.0", "devices.0.tags.0.bindings.0"):
        document = client.get("/api/v1/openapi.json").json
        found, schema = client.get("/api/v1/config").json, {"$ref": "#/components/schemas/Configuration"}
        for step in part.split("."):
            schema = (
                document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
            )
            schema = schema["items"] if step.isdigit() else schema["properties"][step]
            found = found[int(step)] if step.isdigit() else found[step]
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        assert found.keys() <= schema["properties"].keys()
        assert not any(each.get("writeOnly") or each.get("readOnly") for each in schema["properties"].values())


def test_options_name_the_methods_that_a_path_has(client: FlaskClient) -> None:
    """Those of /tags/{tag} stood beside those of /tags/bulk, and a GET there asked for a tag called bulk."""
    for path, operations in client.get("/api/v1/openapi.json").json["paths"].items():
        allowed = set(client.options(re.sub("{[a-z]+}", "1", path)).headers["Allow"].split(", "))
        documented = {verb.upper() for verb in operations if verb != "parameters"}
        assert allowed - {"HEAD", "OPTIONS"} == documented, path
    answer = client.get("/api/v1/tags/bulk")
    assert (answer.status_code, sorted(answer.headers["Allow"].split(", "))) == (405, ["OPTIONS", "POST"])


def test_the_list_above_is_complete(client: FlaskClient) -> None:
    paths = client.get("/api/v1/openapi.json").json["paths"]
    verbs = {"get", "put", "post", "patch", "delete"}
    assert sorted(_operations()) == sorted(
        f"{verb} {path}" for path, each in paths.items() for verb in each if verb in verbs
    )


def test_document_is_openapi_3_1_with_bounds_docs_and_defaults(client: FlaskClient) -> None:
    document = client.get("/api/v1/openapi.json").json
    assert document["openapi"].startswith("3.1")
    register = document["components"]["schemas"]["ModbusAddress"]["properties"]["register"]
    assert register["type"] == "integer"
    assert (register["minimum"], register["maximum"]) == (0, 65535)
    assert "counted from 0" in register["description"]
    order = document["components"]["schemas"]["ModbusAddress"]["properties"]["order"]
    assert (order["enum"], order["default"]) == (["ABCD", "CDAB", "BADC", "DCBA"], "ABCD")
    for path in document["paths"].values():
        for verb, operation in path.items():
            if verb != "parameters":
                assert operation["summary"]


def test_examples_of_the_page_can_be_sent(client: FlaskClient) -> None:
    paths = client.get("/api/v1/openapi.json").json["paths"]
    examples = {
        path: operations["post"]["requestBody"]["content"]["application/json"]["example"]
        for path, operations in paths.items()
        if "example" in operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
    }
    assert len(examples) == 10
    assert examples["/api/v1/devices"] == BOILER
    assert client.post("/api/v1/devices", json=BOILER).status_code == 201
    assert (
        client.post("/api/v1/devices/boiler/terms", json=examples["/api/v1/devices/{device}/terms"]).status_code == 201
    )
    assert client.post("/api/v1/items", json=examples["/api/v1/items"]).status_code == 201
    assert client.delete("/api/v1/tags/boiler@temperature").status_code == 204
    tag = examples["/api/v1/devices/{device}/tags"]
    assert client.post("/api/v1/devices/boiler/tags", json={**tag, "bindings": []}).status_code == 201
    assert client.post("/api/v1/tags/2/bindings", json=examples["/api/v1/tags/{tag}/bindings"]).status_code == 201
    assert client.delete("/api/v1/tags/2").status_code == 204
    assert client.post("/api/v1/devices/boiler/tags", json=tag).status_code == 201
    assert client.delete("/api/v1/tags/3").status_code == 204
    assert client.post("/api/v1/tags/bulk", json=examples["/api/v1/tags/bulk"]).status_code == 201
    assert client.delete("/api/v1/devices/boiler").status_code == 204
    settable = [
        {"name": "setpoint", "bindings": [{**BINDING, "direction": "inout"}]},
        {"name": "pump", "data_type": "bool", "bindings": [{**BINDING, "address": {"register": 1, "table": "coil"}}]},
        {"name": "temperature", "bindings": [{**BINDING, "direction": "inout"}]},
    ]
    assert client.post("/api/v1/devices", json={**BOILER, "tags": settable}).status_code == 201
    # They are understood; there is no broker here.
    command = examples["/api/v1/tags/{tag}/commands"]
    assert client.post("/api/v1/tags/boiler@setpoint/commands", json=command).status_code == 503
    assert client.post("/api/v1/device_ctrl", json=examples["/api/v1/device_ctrl"]).status_code == 503
    assert client.post("/api/v1/device_call", json=examples["/api/v1/device_call"]).status_code == 503


def test_root_leads_to_the_page(client: FlaskClient) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/docs/")
    assert client.get("/docs/").status_code == 200


def test_page_and_its_scripts_fetch_nothing_from_elsewhere(client: FlaskClient) -> None:
    page = client.get("/docs/").text
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {name for name in files if not name.startswith("/api/")} == {
        "swagger-ui.css",
        "favicon-32x32.png",
        "swagger-ui-bundle.js",
        "start.js",
    }
    for name in files:
        assert "//" not in name
        assert client.get(name if name.startswith("/") else f"/docs/{name}").status_code == 200
    style = client.get("/docs/swagger-ui.css").text
    assert not re.findall(r"url\((?!\"?'?(?:data:|#))", style)
    assert "@import" not in style
    start = client.get("/docs/start.js").text
    assert "http" not in start
    # Without it Swagger UI fetches a badge from its makers, and sends them the document.
    assert "validatorUrl: null" in start


def test_what_a_script_might_fetch_is_forbidden_by_policy(client: FlaskClient) -> None:
    for path in ("/docs/", "/api/v1/devices", "/nothing"):
        policy = client.get(path).headers["Content-Security-Policy"]
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["connect-src"] == rules["style-src"] == "'self'"
        assert "http" not in policy
        assert "unsafe" not in policy
        assert client.get(path).headers["X-Content-Type-Options"] == "nosniff"
        assert client.get(path).headers["X-Frame-Options"] == "DENY"

"""What is behind the ? of every operation: known and right, or 422 with its name."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.rest import TANK

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def operations(app: Flask) -> list[tuple[str, str]]:
    """Those of the resources; what lies beside them is for browsers."""
    return [
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/v1/") and rule.rule not in ("/api/v1/", "/api/v1/openapi.json")
        for method in METHODS
        if method in (rule.methods or ())
    ]


def test_an_argument_that_nobody_knows_is_refused_everywhere(app: Flask, client: FlaskClient) -> None:
    """It was ignored where there is no list: ?dry_run=true of a DELETE deleted."""
    assert client.post("/api/v1/devices", json=TANK).status_code == 201
    found = operations(app)
    assert len(found) > 40
    for method, rule in found:
        path = (
            rule.replace("<device>", "tank")
            .replace("<tag>", "tank@level")
            .replace("<tag:tag>", "tank@level")
            .replace("<protocol>", "modbus")
        )
        path = path.replace("<term>", "1").replace("<item>", "1").replace("<command>", "x").replace("<binding>", "1")
        assert "<" not in path, path
        for query in ("colour=red", "wait=1&colour=", "page=1&%63olour=red"):
            answer = client.open(f"{path}?{query}", method=method)
            assert answer.status_code == 422, (method, path, answer.text)
            assert {"field": "colour", "message": "unknown field"} in answer.json["errors"], (method, path, answer.text)
    assert client.get("/api/v1/devices/tank").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs/"])
def test_what_monitors_ask_for_is_no_part_of_the_api(client: FlaskClient, path: str) -> None:
    assert client.get(f"{path}?t=1").status_code == 200

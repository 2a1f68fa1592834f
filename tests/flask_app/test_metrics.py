"""/healthz, /readyz, /metrics, and the list of rejects."""

from pathlib import Path

from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from storage.engine import open_engine
from storage.event_store import RejectLog, RejectRow
from tests.support.rest import BOILER


def samples(client: FlaskClient) -> dict[tuple[str, str], float]:
    """Every sample by name and its labels' values."""
    text = client.get("/metrics").text
    return {
        (sample.name, " ".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_requests_and_objects(client: FlaskClient) -> None:
    client.post("/api/v1/devices", json=BOILER)
    client.get("/api/v1/devices/1")
    client.get("/api/v1/devices/2")
    client.get("/no/such/path/1")
    client.get("/no/such/path/2")
    client.open("/", method="SCAN")
    found = samples(client)
    assert found["tagwire_http_requests_total", "POST /api/v1/devices 201"] == 1
    assert found["tagwire_http_requests_total", "GET /api/v1/devices/<device> 200"] == 1
    assert found["tagwire_http_requests_total", "GET none 404"] == 2
    assert found["tagwire_http_requests_total", "other none 405"] == 1
    assert found["tagwire_http_seconds_count", "POST /api/v1/devices"] == 1
    assert found["tagwire_config_objects", "tag"] == 1
    assert found["tagwire_config_objects", "binding"] == 2
    assert found["tagwire_config_revision", ""] == 1
    assert found["tagwire_outbox_values", ""] == 0
    assert found["tagwire_database_up", ""] == 1


def test_a_database_that_went_away_shows_in_both(client: FlaskClient, tmp_path: Path) -> None:
    assert client.get("/readyz").json["status"] == "ready"
    for file in tmp_path.glob("db.sqlite*"):
        file.unlink()
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200
    assert samples(client)["tagwire_database_up", ""] == 0


def test_rejects_newest_first_with_counts(client: FlaskClient, app: Flask, tmp_path: Path) -> None:
    log = RejectLog(open_engine(app.config["SQLALCHEMY_DATABASE_URI"]))
    rows = [
        RejectRow(1000 + index, f"plant/{index}", "{", "not_json" if index % 2 else "missing", "why", "boiler", None)
        for index in range(5)
    ]
    log.append(rows, {"not_json": 2, "missing": 3})
    answer = client.get("/api/v1/rejects").json
    assert answer["total"] == 5
    assert [each["time_ms"] for each in answer["items"]] == [1004, 1003, 1002, 1001, 1000]
    assert {"time_ms", "topic", "payload", "reason", "device", "tag", "code"} <= answer["items"][0].keys()
    assert client.get("/api/v1/rejects?code=not_json&page_size=1").json["total"] == 2
    assert client.get("/api/v1/rejects/counts").json == {"counts": {"missing": 3, "not_json": 2}, "total": 5}
    assert samples(client)["tagwire_rejects_total", "missing"] == 3

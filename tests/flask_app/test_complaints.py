"""What a user would complain about: each test is named after what went wrong."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from flask.cli import run_command
from flask.testing import FlaskClient

from flask_app.app import create_app
from flask_app.probe import read_range
from tests.support.rest import BOILER

DEVICES = "/api/v1/devices"
JSON = "application/json"


@pytest.fixture
def plant(client: FlaskClient) -> FlaskClient:
    """A boiler (id 1) and an empty pump (id 2)."""
    assert client.post(DEVICES, json={**BOILER, "terms": [{"name": "meter"}]}).status_code == 201
    assert client.post(DEVICES, json={"name": "pump", "network": {"modbus": {"host": "plc"}}}).status_code == 201
    return client


def fields(answer: Any) -> set[str]:
    return {each["field"] for each in answer.json["errors"]}


# ---- changes that did something else than was asked for, or nothing, with a 2xx


def test_a_device_named_1_was_mistaken_for_the_device_with_id_1(plant: FlaskClient) -> None:
    answer = plant.post(DEVICES, json={"name": "1"})
    assert (answer.status_code, fields(answer)) == (422, {"name"})
    assert plant.patch(f"{DEVICES}/pump", json={"name": "4711"}).status_code == 422
    assert plant.post("/api/v1/config", json={"devices": [{"name": "4711"}]}).status_code == 422
    assert plant.post(f"{DEVICES}/pump/tags", json={"name": "4711"}).status_code == 201


@pytest.mark.parametrize("change", [{"device_id": 2}, {"device": "pump"}])
def test_a_tag_that_was_to_move_stayed_with_200(plant: FlaskClient, change: dict[str, Any]) -> None:
    answer = plant.patch("/api/v1/tags/1", json=change)
    assert (answer.status_code, fields(answer)) == (422, set(change))
    assert plant.put("/api/v1/tags/1", json={"name": "temperature", **change}).status_code == 422
    # What was read can be sent back all the same, and the device may be named.
    assert plant.put("/api/v1/tags/1", json=plant.get("/api/v1/tags/1").json).status_code == 200
    assert plant.patch("/api/v1/tags/1", json={"device": "boiler", "unit": "F"}).status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/bindings/1", "/api/v1/terms/1"])
def test_a_part_that_was_to_move_stayed_with_200(plant: FlaskClient, path: str) -> None:
    owner = "tag_id" if "bindings" in path else "device_id"
    answer = plant.patch(path, json={owner: 99})
    assert (answer.status_code, fields(answer)) == (422, {owner})
    assert plant.put(path, json=plant.get(path).json).status_code == 200


def test_deleting_a_term_sent_its_tags_values_to_another_unit(plant: FlaskClient) -> None:
    assert plant.patch("/api/v1/terms/1", json={"settings": {"modbus": {"unit_id": 7}}}).status_code == 200
    tag = {
        "name": "flow",
        "term": "meter",
        "bindings": [{**BOILER["tags"][0]["bindings"][1], "address": {"register": 0}}],
    }
    assert plant.post(f"{DEVICES}/boiler/tags", json=tag).json["bindings"][0]["address"]["unit_id"] == 7
    answer = plant.delete("/api/v1/terms/1")
    assert answer.status_code == 409
    assert "meter" in answer.json["detail"]
    assert plant.patch(f"{DEVICES}/boiler", json={"terms": []}).status_code == 409
    assert plant.get("/api/v1/tags/boiler@flow").json["bindings"][0]["address"]["unit_id"] == 7
    # With the tags' leave it goes.
    whole = plant.get(f"{DEVICES}/boiler").json
    tags = [{**each, "term_id": None} for each in whole["tags"]]
    assert plant.patch(f"{DEVICES}/boiler", json={"terms": [], "tags": tags}).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_an_import_over_somebody_elses_change_went_through(plant: FlaskClient, method: str) -> None:
    answer = plant.get("/api/v1/config")
    assert plant.patch(f"{DEVICES}/boiler", json={"description": "by another"}).status_code == 200
    stale = plant.open("/api/v1/config", method=method, json=answer.json, headers={"If-Match": answer.headers["ETag"]})
    assert stale.status_code == 412
    assert plant.get(f"{DEVICES}/boiler").json["description"] == "by another"
    fresh = {"If-Match": plant.get("/api/v1/config?format=yaml").headers["ETag"]}
    assert plant.open("/api/v1/config", method=method, json=answer.json, headers=fresh).status_code == 200


def test_a_precondition_that_nothing_looked_at_was_passed_over(plant: FlaskClient) -> None:
    create = {"If-None-Match": "*"}
    assert plant.put(f"{DEVICES}/boiler/networks/mqtt", json={}, headers=create).status_code == 412
    assert plant.patch(f"{DEVICES}/boiler", json={}, headers=create).status_code == 412
    assert plant.post(f"{DEVICES}/boiler/tags", json={"name": "t"}, headers={"If-Match": '"0"'}).status_code == 412
    assert plant.get(f"{DEVICES}/boiler/networks/mqtt").json["topic"] == "plant/boiler"
    assert plant.put(f"{DEVICES}/pump/networks/mqtt", json={}, headers=create).status_code == 201
    assert plant.post(f"{DEVICES}/boiler/tags", json={"name": "t"}, headers={"If-Match": "*"}).status_code == 201


def test_a_network_that_put_created_was_answered_with_200(plant: FlaskClient) -> None:
    answer = plant.put(f"{DEVICES}/pump/networks/mqtt", json={"topic": "plant/pump"})
    assert (answer.status_code, answer.headers["Location"]) == (201, "/api/v1/devices/2/networks/mqtt")
    assert plant.put(f"{DEVICES}/pump/networks/mqtt", json={"topic": "plant/pump"}).status_code == 200


@pytest.mark.parametrize(
    ("tag", "field"),
    [
        ({"device": "boiler", "device_id": 2}, "device"),
        ({"device": "boiler", "item": "nosuch", "item_id": 1}, "item"),
        ({"device": "boiler", "term": "nosuch", "term_id": 1}, "term"),
    ],
)
def test_of_two_contradicting_references_one_was_dropped(plant: FlaskClient, tag: dict[str, Any], field: str) -> None:
    plant.post("/api/v1/items", json={"name": "flow"})
    answer = plant.post("/api/v1/tags/bulk", json={"tags": [{"name": "t", **tag}]})
    assert (answer.status_code, fields(answer)) == (422, {f"tags.0.{field}"})


@pytest.mark.parametrize(
    "host", ["http://plc", "modbus://plc:502", "plc:502", "10.0.0.7:502", "[::1]", "plc/1", "user@plc"]
)
def test_a_url_as_host_was_stored_and_never_answered(plant: FlaskClient, host: str) -> None:
    answer = plant.put(f"{DEVICES}/pump/networks/modbus", json={"host": host})
    assert (answer.status_code, fields(answer)) == (422, {"host"})


@pytest.mark.parametrize("host", ["plc", "plc.example.org", "10.0.0.7", "::1", "fe80::1%eth0", "plc_1", "sps-käse"])
def test_hosts_that_can_be(plant: FlaskClient, host: str) -> None:
    assert plant.put(f"{DEVICES}/pump/networks/modbus", json={"host": host}).status_code == 200


# ---- bodies


@pytest.mark.parametrize("path", [DEVICES, "/api/v1/tags.csv", "/api/v1/config"])
@pytest.mark.parametrize(("coding", "packed"), [("gzip", True), ("br", False)])
def test_a_content_coding_was_not_looked_at(plant: FlaskClient, path: str, coding: str, packed: bool) -> None:
    kind, body = ("text/csv", b"device,name\n") if path.endswith("csv") else (JSON, b'{"name": "a"}')
    answer = plant.post(
        path, data=gzip.compress(body) if packed else body, content_type=kind, headers={"Content-Encoding": coding}
    )
    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "identity")
    assert coding in answer.json["detail"]


@pytest.mark.parametrize(("path", "kind"), [("/api/v1/tags.csv", "text/csv"), ("/api/v1/config", "application/yaml")])
def test_another_charset_was_taken_for_utf_8(plant: FlaskClient, path: str, kind: str) -> None:
    body = b"device,name\n" if kind == "text/csv" else b"devices: []"
    for charset, status in (("iso-8859-1", 415), ("UTF-8", 200), ('"utf-8"', 200)):
        assert plant.post(path, data=body, content_type=f"{kind}; charset={charset}").status_code == status


def test_a_missing_content_type_was_called_nothing(plant: FlaskClient) -> None:
    for path in (DEVICES, "/api/v1/tags.csv", "/api/v1/config"):
        answer = plant.post(path, data=b"{}")
        assert answer.status_code == 415
        assert "no Content-Type" in answer.json["detail"]


# ---- queries


@pytest.mark.parametrize(
    "query",
    [
        "devices?name=a&name=b",
        "tags?page=1&page=2",
        "registers?device=1&register=1&register=2",
        "bindings?sort=id&sort=id",
    ],
)
def test_an_argument_given_twice_was_passed_over(plant: FlaskClient, query: str) -> None:
    assert plant.get(f"/api/v1/{query}").status_code == 422


def test_tags_of_device_1_were_none_though_digits_mean_an_id(plant: FlaskClient) -> None:
    assert plant.get("/api/v1/tags?device=1").json["total"] == 1
    assert plant.get("/api/v1/tags?device=2").json["total"] == 0
    assert plant.get("/api/v1/tags?device=99999999999999999999").json["total"] == 0


def test_sort_took_many_signs_but_no_space(plant: FlaskClient) -> None:
    assert plant.get(f"{DEVICES}?sort=--name").status_code == 422
    assert plant.get(f"{DEVICES}?sort=-%2Bname").status_code == 422
    assert [each["name"] for each in plant.get(f"{DEVICES}?sort=-name, id").json["items"]] == ["pump", "boiler"]
    # A plus in a query is a space, unless it is written as %2B.
    assert [each["name"] for each in plant.get(f"{DEVICES}?sort=+name").json["items"]] == ["boiler", "pump"]


# ---- tables


def table(client: FlaskClient, text: str) -> Any:
    return client.post("/api/v1/tags.csv", data=text.encode(), content_type="text/csv")


@pytest.mark.parametrize("number", ["1_0", "\N{ARABIC-INDIC DIGIT THREE}", "\N{FULLWIDTH DIGIT ONE}"])
@pytest.mark.parametrize("column", ["modbus.register", "deadband"])
def test_a_number_that_only_python_knows_was_taken(plant: FlaskClient, column: str, number: str) -> None:
    answer = table(plant, f"device,name,{column}\nboiler,t,{number}\n")
    assert (answer.status_code, fields(answer)) == (422, {f"line 2: {column}"})


def test_a_table_of_a_german_spreadsheet_was_refused_for_its_decimal_commas(plant: FlaskClient) -> None:
    assert table(plant, "device;name;deadband;gain\nboiler;t;0,5;-1,25e-3\n").status_code == 200
    tag = plant.get("/api/v1/tags/boiler@t").json
    assert (tag["deadband"], tag["scaling"]["gain"]) == (0.5, -0.00125)
    # Whether this is a thousand and a half or one and a half nobody knows; with commas between the cells it is a slip.
    assert fields(table(plant, "device;name;deadband\nboiler;t;1.000,5\n")) == {"line 2: deadband"}
    assert fields(table(plant, "device;name;deadband\nboiler;t;1,000,5\n")) == {"line 2: deadband"}
    assert fields(table(plant, 'device,name,deadband\nboiler,t,"0,5"\n')) == {"line 2: deadband"}
    assert fields(table(plant, "device;name;modbus.register\nboiler;t;1,0\n")) == {"line 2: modbus.register"}


def test_a_table_whose_line_breaks_curl_dropped_was_a_riddle(plant: FlaskClient) -> None:
    answer = table(plant, "device,name,unitboiler,t,bar")
    assert answer.status_code == 422
    assert "line breaks" in answer.json["errors"][-1]["message"]
    assert "line breaks" not in table(plant, "Device,name\nboiler,t\n").text


def test_a_tag_that_stands_twice_in_a_table_was_a_conflict_without_a_line(plant: FlaskClient) -> None:
    answer = table(plant, "device,name\nboiler,a\nboiler,b\nboiler,a\n")
    assert (answer.status_code, fields(answer)) == (409, {"line 4: name"})


# ---- registers


@pytest.mark.parametrize("device", [True, 1.0, [], {}])
def test_a_device_that_is_no_name_was_404(plant: FlaskClient, device: Any) -> None:
    answer = plant.post("/api/v1/registers", json={"device": device, "register": 1, "values": [1]})
    assert (answer.status_code, fields(answer)) == (422, {"device"})


def test_coils_were_said_to_be_uint16() -> None:
    assert read_range({"table": "coil", "register": 0}, 2).document()["type"] == "bool"


# ---- finding one's way


@pytest.mark.parametrize(("arguments", "warned"), [([], True), (["--port", "5000"], False)])
def test_flask_run_did_not_say_that_it_takes_another_port(
    arguments: list[str],
    warned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SQLALCHEMY_DATABASE_URI", f"sqlite:///{tmp_path}/db.sqlite")
    monkeypatch.setenv("FLASK_APP_PORT", "15001")
    monkeypatch.delenv("FLASK_RUN_PORT", raising=False)
    # Whoever works on this machine may have port 5000 in use.
    monkeypatch.setattr("flask_app.app.port_faults", lambda context: [])
    with run_command.make_context("run", arguments):
        create_app()
    assert ("port 5000: it reads FLASK_RUN_PORT, not FLASK_APP_PORT (15001)" in caplog.text) is warned


def test_a_redirect_left_the_proxys_https(client: FlaskClient) -> None:
    for path in ("/", "/docs"):
        answer = client.get(path, headers={"Host": "somewhere.example"})
        assert (answer.status_code, answer.headers["Location"]) == (302, "/docs/")


def test_the_address_that_tagwire_up_prints_was_404(client: FlaskClient) -> None:
    for path in ("/api/v1", "/api/v1/"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert {"/api/v1/devices", "/api/v1/config", "/docs/", "/api/v1/openapi.json"} <= set(answer.json["paths"])
        for each in answer.json["paths"]:
            assert client.get(each).status_code in (200, 422), each


def test_a_path_that_is_not_there_was_answered_with_advice_on_spelling(client: FlaskClient) -> None:
    answer = client.get("/api/v1/devices/")
    assert answer.status_code == 404
    assert answer.json["detail"] == "no path '/api/v1/devices/'; /docs/ shows all there are"


def test_an_answer_ran_into_the_prompt_of_a_terminal(plant: FlaskClient) -> None:
    for path in (f"{DEVICES}/1", "/api/v1/rejects", "/healthz", "/api/v1/config"):
        assert plant.get(path).data.endswith(b"}\n"), path
    for answer in (plant.get("/nothing"), plant.post(DEVICES, json={}), plant.patch(f"{DEVICES}/1", json={})):
        assert answer.data.endswith(b"}\n")

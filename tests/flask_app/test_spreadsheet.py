"""Tags as CSV: out, into a spreadsheet, and in again."""

import csv
import io
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_app import spreadsheet
from scada.errors import ConfigError
from tests.support.rest import BOILER

NETWORK = BOILER["network"]
TABLE = """device,name,unit,mqtt.path,modbus.register,modbus.type,modbus.gain
boiler,temperature,°C,temperature,10,float32,
boiler,pressure,bar,p,12,int16,0.1
"""


@pytest.fixture
def plant(client: FlaskClient) -> FlaskClient:
    client.post("/api/v1/devices", json={"name": "boiler", "network": NETWORK, "terms": [{"name": "meter"}]})
    client.post("/api/v1/items", json={"name": "bar", "unit": "bar"})
    return client


def load(client: FlaskClient, text: str, query: str = "") -> Any:
    return client.post(f"/api/v1/tags.csv{query}", data=text.encode(), content_type="text/csv")


def test_a_gateway_of_two_tags_out_of_a_few_columns(plant: FlaskClient) -> None:
    answer = load(plant, TABLE)
    assert (answer.status_code, answer.json) == (200, {"total": 2, "dry_run": False})
    mqtt, modbus = plant.get("/api/v1/tags/boiler@pressure").json["bindings"]
    assert (mqtt["direction"], mqtt["address"]["path"]) == ("in", "p")
    assert (modbus["direction"], modbus["address"]["register"], modbus["address"]["type"]) == ("out", 12, "int16")
    assert modbus["scaling"] == {"gain": 0.1, "offset": 0.0}


def test_what_was_exported_comes_back_the_same(plant: FlaskClient) -> None:
    tags = [
        {
            "name": "full",
            "description": '=1+1, "quoted"\nline two',
            "item": "bar",
            "term": "meter",
            "deadband": 0.5,
            "scaling": {"gain": -2, "offset": 1e-9},
            "limits": {"low": -5, "high": 5, "action": "clamp"},
            "bindings": [
                {
                    "protocol": "mqtt",
                    "direction": "in",
                    "address": {"bits": ["a", "b.c"]},
                    "options": {"enum": {"x": 1}},
                },
                {
                    "protocol": "modbus",
                    "direction": "out",
                    "address": {"register": 65535, "type": "bool", "bit": 0},
                    "options": {"failsafe": {"value": 0, "after_s": 5}},
                    "limits": {"high": 3},
                },
            ],
        },
        {"name": "bare", "description": "'=x", "unit": "-"},
        {"name": "scalar", "bindings": [{"protocol": "mqtt", "direction": "in", "address": {"path": ""}}]},
    ]
    assert plant.post("/api/v1/devices/boiler/tags", json=tags).status_code == 201
    exported = plant.get("/api/v1/tags.csv").text
    before = plant.get("/api/v1/tags").json
    answer = load(plant, exported)
    assert answer.status_code == 200, answer.text
    assert plant.get("/api/v1/tags").json == before
    assert plant.get("/api/v1/tags.csv").text == exported
    assert plant.delete("/api/v1/tags/boiler@full").status_code == 204
    load(plant, exported)
    assert plant.get("/api/v1/tags.csv?device=boiler").text.count("full") == 1


def test_what_a_tag_inherits_it_inherits_after_a_round_trip(plant: FlaskClient) -> None:
    """The unit of a term was exported as the binding's own: with another term in the cell it stayed the old one's."""
    network = {"modbus": {"host": "127.0.0.1"}}
    terms = [{"name": f"m{unit}", "settings": {"modbus": {"unit_id": unit}}} for unit in (7, 8)]
    plant.post("/api/v1/items", json={"name": "count", "data_type": "int"})
    binding = {"protocol": "modbus", "direction": "in", "address": {"register": 1}}
    tags = [
        {"name": "inherits", "term": "m7", "item": "count", "bindings": [binding]},
        {"name": "own", "term": "m7", "item": "count", "data_type": "float",
         "bindings": [binding | {"address": {"register": 2, "unit_id": 9}}]},
    ]  # fmt: skip
    made = plant.post("/api/v1/devices", json={"name": "plc", "network": network, "terms": terms, "tags": tags})
    assert made.status_code == 201, made.text
    before = plant.get("/api/v1/config").json
    exported = plant.get("/api/v1/tags.csv?device=plc").text
    assert load(plant, exported).status_code == 200
    assert plant.get("/api/v1/config").json == before
    assert load(plant, exported.replace("m7", "m8")).status_code == 200
    units = [
        plant.get(f"/api/v1/tags/plc@{name}").json["bindings"][0]["address"]["unit_id"] for name in ("inherits", "own")
    ]
    assert units == [8, 9]


def test_no_cell_is_a_formula_to_a_spreadsheet(plant: FlaskClient) -> None:
    for index, text in enumerate(["=cmd|' /C calc'!A0", "+1", "-1", "@x", "\t=1"]):
        plant.post("/api/v1/devices/boiler/tags", json={"name": f"t{index}", "description": text})
    for row in csv.DictReader(io.StringIO(plant.get("/api/v1/tags.csv").text)):
        assert row["description"][0] == "'"


def test_every_faulty_line_is_listed_and_nothing_stored(plant: FlaskClient) -> None:
    rows = [
        "device,name,mqtt.path,modbus.register,modbus.type,modbus.order,deadband",
        "boiler,good,a,1,uint16,ABCD,0",
        "boiler,a/b,a,1,uint16,ABCD,0",
        "boiler,register,a,70000,uint16,ABCD,0",
        "boiler,number,a,x,uint16,ABCD,much",
        '"boiler","two\nlines",a,1,uint16,ABCD,0',
        "nobody,device,a,1,uint16,ABCD,0",
        "boiler,order,a,1,float32,XYZ,0",
        "boiler,long,a,1,uint16,ABCD,0,more",
    ]
    answer = load(plant, "\n".join(rows))
    assert answer.status_code == 422
    # In one answer: cells that cannot be read, fields that cannot be, devices that are not there.
    assert {fault["field"] for fault in answer.json["errors"]} == {
        "line 3: name",
        "line 4: modbus.register",
        "line 5: modbus.register",
        "line 5: deadband",
        "line 6: name",
        "line 8: device",
        "line 9: modbus.order",
        "line 10",
    }
    assert plant.get("/api/v1/tags").json["total"] == 0


def test_a_device_that_is_not_there_is_named_by_its_line(plant: FlaskClient) -> None:
    answer = load(plant, "device,name\nboiler,a\nnobody,b\n")
    assert answer.status_code == 422
    assert [fault["field"] for fault in answer.json["errors"]] == ["line 3: device"]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", 422),
        ("name\nx\n", 422),
        ("device,name,colour\n", 422),
        ("device,name,name\n", 422),
        ('device,name\nboiler,"x', 400),
        ("device,name\nboiler,\0\n", 400),
        ("device,name\n", 200),
        ("device,name\n\n\n,\n", 200),
        ("\ufeffdevice;name\r\nboiler;x\r\n", 200),
    ],
)
def test_tables_that_are_none(plant: FlaskClient, text: str, status: int) -> None:
    assert load(plant, text).status_code == status


def test_modes_and_dry_run(plant: FlaskClient) -> None:
    assert load(plant, TABLE, "?dry_run=true").json == {"total": 2, "dry_run": True}
    assert plant.get("/api/v1/tags").json["total"] == 0
    assert load(plant, TABLE, "?mode=create").status_code == 200
    answer = load(plant, TABLE, "?mode=create")
    assert answer.status_code == 409
    assert {fault["field"] for fault in answer.json["errors"]} == {"line 2: name", "line 3: name"}
    assert load(plant, TABLE.replace("bar,p", "Pa,p")).status_code == 200
    assert plant.get("/api/v1/tags/boiler@pressure").json["unit"] == "Pa"


def test_a_line_that_cannot_be_read_keeps_the_others_from_being_stored(plant: FlaskClient) -> None:
    text = "device,name,modbus.register\nboiler,good,1\nboiler,bad,x\n"
    assert load(plant, text).status_code == 422
    assert plant.get("/api/v1/tags").json["total"] == 0
    assert load(plant, text.replace("x", "2"), "?mode=create").status_code == 200
    answer = load(plant, text, "?mode=create")
    assert answer.status_code == 422
    assert {fault["field"] for fault in answer.json["errors"]} == {"line 2: name", "line 3: modbus.register"}


@settings(deadline=None)
@given(st.binary() | st.text().map(lambda text: b"device,name,mqtt.options\n" + text.encode("utf-8", "surrogatepass")))
def test_garbage_is_refused_in_one_of_two_ways(raw: bytes) -> None:
    from werkzeug.exceptions import BadRequest

    try:
        spreadsheet.read(raw)
    except (BadRequest, ConfigError) as error:
        assert str(error)  # noqa: PT017 - either is right

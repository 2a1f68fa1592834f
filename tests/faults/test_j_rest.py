"""Rows J1 to J4 through the REST API: hostile JSON, YAML and names are refused with 4xx, never 5xx, and quickly."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.support.rest import BOILER, application

MALFORMED = {
    "empty": b"",
    "blank": b" \n",
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"name": -Infinity}',
    "1e400": b'{"name": 1e400}',
    "5,000 digits": b'{"name": ' + b"1" * 5000 + b"}",
    "-5,000 digits": b'{"name": -' + b"1" * 5000 + b"}",
    "2**64": b'{"name": 18446744073709551616}',
    "100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "100,000 deep objects": b'{"a":' * 100_000,
    "100 deep": b'{"name": ' + b"[" * 100 + b"]" * 100 + b"}",
    "name twice": b'{"name": "a", "name": "b"}',
    "name twice below": b'{"name": "a", "tags": [{"name": "b", "name": "b"}]}',
    "not UTF-8": b'{"name": "\xff"}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "BOM": b'\xef\xbb\xbf{"name": "a"}',
    "NUL byte": b'{"name": "\x00"}',
    "U+0000": b'{"name": "a", "description": "\\u0000"}',
    "U+0000 in a name": b'{"name": "a", "\\u0000": 1}',
    "half surrogate pair": b'{"name": "\\ud800"}',
    "half pair as a name": b'{"\\udfff": 1}',
    "bytes of a surrogate": b'{"name": "\xed\xa0\x80"}',
    "trailing bytes": b'{"name": "a"} x',
    "two values": b"{} {}",
    "comma": b'{"name": "a",}',
    "comment": b'{"name": "a" /* c */}',
    "single quotes": b"{'name': 'a'}",
    "cut": b'{"name": "a',
}
WRONG_VALUES: dict[str, Any] = {
    "2**53+1 as name": 2**53 + 1,
    "true": True,
    "null": None,
    "array": [],
    "object": {},
    "number": 3.7,
    "10 kB": "a" * 10_000,
    "empty": "",
}
WRONG_NUMBERS = [2**31, 2**53 + 1, 2**63, 2**64 - 1, -1, 65536, 70000, 3.7, 1e300, True, "12", None, [], {}]
BAD_NAMES = [
    "device/#", "+", "#", "a+b", "$SYS", "$share", "../x", "..", ".", "a//b", "/", "a/b", "a b", "a\tb", "a\u0001b", "a\u200bb",
    "a\u202eb", "\uff03", "\uff0f", "a\u2215b", "a@b", "*", "a" * 65, " a", "a ", "\u0041\u030a", "a\n", "\ufeffa",
]  # fmt: skip
BAD_TOPICS = ["$SYS/x", "$share/g/x", "a" * 65_536, "a/#/b", "a+/b", "a//b", "", "/", "../x", "a\u0001", "a b", "a/*"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    folder: Path = tmp_path_factory.mktemp("j")
    client = application(folder).test_client()
    assert client.post("/api/v1/devices", json=BOILER).status_code == 201
    return client


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("path", ["devices", "devices/boiler/tags", "tags/bulk", "config", "registers"])
def test_malformed_json_is_400(client: FlaskClient, path: str, raw: bytes) -> None:
    begun = time.monotonic()
    answer = client.post(f"/api/v1/{path}", data=raw, content_type="application/json")
    assert answer.status_code == 400, answer.text
    assert answer.json["detail"]
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("value", WRONG_VALUES.values(), ids=WRONG_VALUES.keys())
def test_wrong_name_is_422_with_the_field(client: FlaskClient, value: Any) -> None:
    for path in ("devices", "items", "devices/boiler/terms", "devices/boiler/tags"):
        answer = client.post(f"/api/v1/{path}", json={"name": value})
        assert answer.status_code == 422
        assert [fault["field"] for fault in answer.json["errors"]] == ["name"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_no_topic_can_hold_are_422(client: FlaskClient, name: str) -> None:
    for path in ("devices", "items", "devices/boiler/terms", "devices/boiler/tags"):
        answer = client.post(f"/api/v1/{path}", json={"name": name})
        assert answer.status_code == 422, (path, answer.text)
        assert [fault["field"] for fault in answer.json["errors"]] == ["name"]


@pytest.mark.parametrize("topic", BAD_TOPICS, ids=[topic[:20] for topic in BAD_TOPICS])
def test_topics_that_widen_a_subscription_are_422(client: FlaskClient, topic: str) -> None:
    answer = client.post("/api/v1/devices", json={"name": "other", "network": {"mqtt": {"topic": topic}}})
    assert answer.status_code == 422
    assert [fault["field"] for fault in answer.json["errors"]] == ["network.mqtt.topic"]


@pytest.mark.parametrize("number", WRONG_NUMBERS, ids=str)
def test_wrong_number_is_422_with_the_field(client: FlaskClient, number: Any) -> None:
    binding = {"protocol": "modbus", "direction": "out", "address": {"register": number}}
    answer = client.post("/api/v1/devices/boiler/tags", json={"name": "t", "bindings": [binding]})
    assert answer.status_code == 422
    assert [fault["field"] for fault in answer.json["errors"]] == ["bindings.0.address.register"]


@pytest.mark.parametrize("number", [2**31, 2**53 + 1, 2**63, 2**64 - 1, -1, 0])
def test_numbers_beyond_the_database_are_no_error_of_ours(client: FlaskClient, number: int) -> None:
    assert client.post("/api/v1/devices/boiler/tags", json={"name": "t", "item_id": number}).status_code == 422
    assert client.get(f"/api/v1/tags?device_id={number}&page={min(abs(number) + 1, 2**31 - 1)}").status_code == 200
    assert client.get(f"/api/v1/devices/{number}").status_code == 404
    assert client.post("/api/v1/devices", json={**BOILER, "name": "x", "id": number}).status_code == 201
    assert client.delete("/api/v1/devices/x").status_code == 204


@pytest.mark.parametrize("size", [1_000_000, 5_000_000])
def test_large_documents_are_refused_quickly(client: FlaskClient, size: int) -> None:
    keys = json.dumps({f"k{index}": index for index in range(size // 20)}).encode()
    for raw in (b"[" + b"0," * (size // 2) + b"0]", json.dumps({"name": "a" * size}).encode(), keys):
        begun = time.monotonic()
        assert client.post("/api/v1/devices", data=raw, content_type="application/json").status_code == 422
        assert time.monotonic() - begun < 5


def test_names_that_mean_something_to_javascript_are_unknown_fields(client: FlaskClient) -> None:
    document = {"name": "js", "__proto__": {"admin": True}, "constructor": 1, "k" * 65_536: 1}
    answer = client.post("/api/v1/devices", json=document)
    assert answer.status_code == 422
    assert len(answer.json["errors"]) == 3
    assert len(answer.data) < 10_000


@pytest.mark.parametrize(
    "raw",
    [
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
        b"[" * 100_000,
        b"- " * 5_000,
        b"? " * 100_000,
        b"{a: " * 100_000,
        b"devices: !!python/object/apply:os.system [id]",
        b"devices: !!timestamp x",
        b"devices: []\ndevices: []",
        b"version: .nan",
        b"version: 0x" + b"f" * 5_000,
        b"version: " + b"1" * 5_000,
        b"version: 2026-11-21",
        b"devices: [\xff]",
        b'devices: ["\\0"]',
        b'devices: ["\\ud800"]',
        b"1: 2",
        b"a: 1\n--- \nb: 2",
        b"\t",
    ],
    ids=lambda raw: repr(raw[:30]),
)
def test_hostile_yaml_is_400(client: FlaskClient, raw: bytes) -> None:
    begun = time.monotonic()
    answer = client.post("/api/v1/config", data=raw, content_type="application/yaml")
    assert answer.status_code == 400, answer.text
    assert time.monotonic() - begun < 2


def test_hostile_queries_are_no_error_of_ours(client: FlaskClient) -> None:
    for text in ("%00", "%ff", "[", "*" * 5_000, "%25%27", "'; DROP TABLE tag; --", "\\", "?" * 100, "\ud7ff"):
        for name in ("name", "device", "description", "sort", "page"):
            assert client.get("/api/v1/tags", query_string={name: text}).status_code in (200, 422)
    assert client.get("/api/v1/tags").json["total"] > 0

"""What a binding may name depends on its direction and on its device's network: the answer to a contradiction is 422."""

from typing import Any

import pytest
from flask.testing import FlaskClient


def faults(answer: Any) -> set[str]:
    assert answer.status_code == 422, answer.text
    return {fault["field"] for fault in answer.json["errors"]}


@pytest.mark.parametrize(
    ("network", "binding", "field"),
    [
        ({"simulated": {"model": "tank"}}, {"direction": "in", "address": {"point": "lever"}}, "address.point"),
        ({"simulated": {"model": "tank"}}, {"direction": "out", "address": {"point": "level"}}, "address.point"),
        ({"simulated": {"model": "tank"}}, {"direction": "out", "address": {"point": "pump"}, "scan": "slow"}, "scan"),
        (
            {"modbus": {"host": "h"}},
            {"direction": "inout", "address": {"register": 1, "table": "input_register"}},
            "address.table",
        ),
        ({"mqtt": {}}, {"direction": "out", "address": {"bits": ["a", "b"]}}, "address.bits"),
    ],
)
def test_a_binding_that_its_device_cannot_have_is_a_fault(
    client: FlaskClient, network: dict[str, Any], binding: dict[str, Any], field: str
) -> None:
    (protocol,) = network
    tag = {"name": "t", "bindings": [{"protocol": protocol, **binding}]}
    document = {"name": "d", "network": network, "tags": [tag]}
    assert faults(client.post("/api/v1/devices", json=document)) == {f"tags.0.bindings.0.{field}"}
    client.post("/api/v1/devices", json={**document, "tags": [{"name": "t"}]})
    assert faults(client.post("/api/v1/tags/d@t/bindings", json=tag["bindings"][0])) == {field}


def test_a_register_of_our_own_server_belongs_to_one_tag(client: FlaskClient) -> None:
    def device(name: str, register: int) -> dict[str, Any]:
        binding = {"protocol": "modbus_server", "direction": "in", "address": {"register": register, "type": "float32"}}
        return {"name": name, "network": {"modbus_server": {}}, "tags": [{"name": "t", "bindings": [binding]}]}

    assert client.post("/api/v1/devices", json=device("A", 10)).status_code == 201
    answer = client.post("/api/v1/devices", json=device("B", 11))
    assert faults(answer) == {"tags.0.bindings.0.address.register"}
    assert "A@t" in answer.json["errors"][0]["message"]
    table = "device,name,modbus_server.register\r\nA,u,11\r\n"
    answer = client.post("/api/v1/tags.csv", data=table, content_type="text/csv")
    assert faults(answer) == {"line 2: modbus_server.register"}

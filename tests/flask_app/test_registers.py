"""/registers against a Modbus server that we did not write, and against devices that fail."""

import socket
import threading
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from pyModbusTCP.server import DataBank, ModbusServer

from flask_app import probe
from tests.support.processes import free_port


@pytest.fixture
def device(client: FlaskClient) -> Iterator[DataBank]:
    port = free_port()
    bank = DataBank(h_regs_size=100, coils_size=100, i_regs_size=10, d_inputs_size=10)
    server = ModbusServer("127.0.0.1", port, no_block=True, data_bank=bank)
    server.start()
    client.post("/api/v1/devices", json={"name": "plc", "network": {"modbus": {"host": "127.0.0.1", "port": port}}})
    yield bank
    server.stop()


def test_read_what_another_server_holds(client: FlaskClient, device: DataBank) -> None:
    device.set_holding_registers(10, [0x41AC, 0x0000, 7, 8])
    answer = client.get("/api/v1/registers?device=plc&register=10&type=float32")
    assert answer.status_code == 200, answer.text
    assert (answer.json["values"], answer.json["registers"]) == ([21.5], [0x41AC, 0])
    assert (answer.json["unit_id"], answer.json["table"]) == (1, "holding_register")
    assert client.get("/api/v1/registers?device=1&register=12&count=2").json["values"] == [7, 8]
    device.set_coils(3, [True, False, True])
    found = client.get("/api/v1/registers?device=plc&table=coil&register=3&count=3").json
    assert (found["values"], found["registers"]) == ([True, False, True], [1, 0, 1])


def test_write_and_read_back(client: FlaskClient, device: DataBank) -> None:
    command = {"device": "plc", "register": 20, "type": "int32", "order": "CDAB", "values": [-5, 70000]}
    answer = client.post("/api/v1/registers", json=command)
    assert answer.status_code == 200, answer.text
    assert device.get_holding_registers(20, 4) == [0xFFFB, 0xFFFF, 0x1170, 0x0001]
    read = client.get("/api/v1/registers?device=plc&register=20&type=int32&order=CDAB&count=2")
    assert read.json["values"] == [-5, 70000]
    coils = {"device": "plc", "table": "coil", "register": 1, "values": [True, False, True]}
    assert client.post("/api/v1/registers", json=coils).status_code == 200
    assert device.get_coils(1, 3) == [True, False, True]


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ({"values": [70000]}, "values.0"),
        ({"values": [1, -1, 1.5]}, "values.1"),
        ({"values": ["12"]}, "values.0"),
        ({"values": []}, "values"),
        ({"values": [0] * 124}, "values"),
        ({"values": [1], "table": "input_register"}, "table"),
        ({"values": [1], "table": "coils"}, "table"),
        ({"values": [1], "register": 65536}, "register"),
        ({"values": [1, 2], "register": 65535}, "register"),
        ({"values": [1], "unit_id": 256}, "unit_id"),
        ({"values": [1, 1], "type": "bool", "bit": 3}, "values"),
        ({"values": ["a"], "type": "string"}, "length"),
        ({"values": [2], "table": "coil"}, "values.0"),
        ({"values": [1], "colour": 1}, "colour"),
    ],
)
def test_what_no_request_can_say_is_422(
    client: FlaskClient, device: DataBank, command: dict[str, object], field: str
) -> None:
    answer = client.post("/api/v1/registers", json={"device": "plc", "register": 0, **command})
    assert answer.status_code == 422, answer.text
    assert field in {fault["field"] for fault in answer.json["errors"]}


def test_refusal_by_the_device_is_424_with_its_code(client: FlaskClient, device: DataBank) -> None:
    answer = client.get("/api/v1/registers?device=plc&register=1000")
    assert (answer.status_code, answer.json["type"], answer.json["code"]) == (424, "urn:tagwire:problem:device", 2)


def test_nobody_there_is_424(client: FlaskClient) -> None:
    network = {"modbus": {"host": "127.0.0.1", "port": free_port()}}
    client.post("/api/v1/devices", json={"name": "gone", "network": network})
    answer = client.get("/api/v1/registers?device=gone&register=0")
    assert answer.status_code == 424
    assert "127.0.0.1" in answer.json["detail"]


def test_a_silent_device_is_424_in_time_and_only_a_few_may_be_waited_for(client: FlaskClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        network = {"modbus": {"host": "127.0.0.1", "port": port, "timeout_s": 0.5}}
        client.post("/api/v1/devices", json={"name": "silent", "network": network})
        statuses: list[tuple[int, bool]] = []

        def ask() -> None:
            answer = client.application.test_client().get("/api/v1/registers?device=silent&register=0")
            statuses.append((answer.status_code, "asked already" in answer.json["detail"]))

        threads = [threading.Thread(target=ask) for _ in range(probe.MAX_AT_ONCE + 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {status for status, _ in statuses} == {424}
    assert sum(busy for _, busy in statuses) == 2


def test_a_device_without_modbus_is_404(client: FlaskClient) -> None:
    client.post("/api/v1/devices", json={"name": "thing", "network": {"mqtt": {}}})
    assert client.get("/api/v1/registers?device=thing&register=0").status_code == 404

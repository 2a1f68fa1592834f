"""Clients that we did not write, against the real server."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymodbus.client import AsyncModbusTcpClient, ModbusTcpClient, ModbusTlsClient
from pyModbusTCP.client import ModbusClient

from tests.support.certificates import Authority, client_context, utf8
from tests.support.modbus_wire import modbus_server, tls_settings
from tests.support.processes import free_port
from tests.support.programs import compile_with_libmodbus


@pytest.fixture
def client(port: int) -> Iterator[ModbusTcpClient]:
    with ModbusTcpClient("127.0.0.1", port=port, retries=0) as client:
        yield client


def test_pymodbus_every_function(client: ModbusTcpClient) -> None:
    words = [n * 501 % 65536 for n in range(123)]
    bits = [n % 5 == 0 for n in range(1968)]
    assert not client.write_registers(100, words, device_id=3).isError()
    assert client.read_holding_registers(100, count=123, device_id=9).registers == words
    assert not client.write_register(100, 65535).isError()
    assert client.read_holding_registers(100, count=1).registers == [65535]
    assert not client.write_coils(13, bits).isError()
    assert client.read_coils(13, count=1968).bits == bits
    assert not client.write_coil(13, False).isError()
    assert client.read_coils(13, count=1).bits[0] is False
    assert client.read_input_registers(0, count=125).registers == [0] * 125
    assert not any(client.read_discrete_inputs(0, count=2000).bits)
    client.write_register(7, 0x12)
    assert not client.mask_write_register(address=7, and_mask=0xF2, or_mask=0x25).isError()
    assert client.read_holding_registers(7, count=1).registers == [0x17]
    both = client.readwrite_registers(read_address=500, read_count=125, write_address=500, values=words[:121])
    assert both.registers[:121] == words[:121]


def test_pymodbus_understands_the_identification(client: ModbusTcpClient) -> None:
    response = client.read_device_information(read_code=2, object_id=0)
    assert not response.isError()
    assert response.information[0] == b"Tagwire"
    assert response.conformity == 0x82
    assert client.read_device_information(read_code=4, object_id=5).exception_code == 2


def test_pymodbus_understands_the_exceptions(client: ModbusTcpClient) -> None:
    assert client.read_holding_registers(65535, count=2).exception_code == 2
    assert client.report_device_id().exception_code == 1
    assert client.read_holding_registers(65535, count=1).registers == [0]


async def test_pymodbus_asyncio(port: int) -> None:
    async with AsyncModbusTcpClient("127.0.0.1", port=port, retries=0) as client:
        for value in range(50):
            await client.write_register(9, value)
            assert (await client.read_holding_registers(9, count=1)).registers == [value]


def test_pymodbus_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls_port = free_port()
    context = client_context(authority.path, authority.issue("client", utf8("Operator")))
    context.check_hostname = False  # this client connects without naming whom it wants
    with (
        modbus_server(tmp_path, **tls_settings(authority, tls_port, "Operator=write")),
        ModbusTlsClient("127.0.0.1", port=tls_port, sslctx=context, retries=0) as client,
    ):
        assert not client.write_registers(1, [1, 2, 3]).isError()
        assert client.read_holding_registers(1, count=3).registers == [1, 2, 3]


def test_pymodbustcp(port: int) -> None:
    client = ModbusClient("127.0.0.1", port, unit_id=5, auto_open=True)
    words = [n * 7 for n in range(123)]
    bits = [n % 3 == 0 for n in range(1968)]
    assert client.write_multiple_registers(3000, words)
    assert client.read_holding_registers(3000, 123) == words
    assert client.write_multiple_coils(3001, bits)
    assert client.read_coils(3001, 1968) == bits
    assert client.write_single_coil(3001, False)
    assert client.write_single_register(3000, 4)
    assert client.write_read_multiple_registers(3000, [1, 2], 3000, 3) == [1, 2, 14]
    assert client.custom_request(bytes.fromhex("03 FF FF 00 02")) is None
    assert client.last_except == 2
    identity = client.read_device_identification()
    assert identity is not None
    assert identity.vendor_name == b"Tagwire"
    client.close()


def test_libmodbus(port: int, tmp_path: Path) -> None:
    program = compile_with_libmodbus(Path(__file__).with_name("libmodbus_client.c"), tmp_path)
    done = subprocess.run([program, str(port)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr

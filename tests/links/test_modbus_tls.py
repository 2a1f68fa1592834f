"""Modbus over TLS: both ends show who they are, and nothing is sent to a device that is not the one meant."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from pymodbus.server import ModbusTlsServer
from pymodbus.simulator import DataType, SimData, SimDevice

from links.modbus_client import ModbusClient
from scada.errors import DeviceRefused, LinkError
from scada.modbus.endpoint import Endpoint, Transport
from scada.modbus.limits import Table
from tests.support.certificates import Authority, utf8
from tests.support.modbus_wire import modbus_server, tls_settings
from tests.support.processes import free_port


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@contextlib.asynccontextmanager
async def pymodbus_server(authority: Authority, *, mutual: bool = True, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Unit 1 has values, unit 2 is silent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("device"))
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.path)
    words = [SimData(0, values=list(range(1000, 1100)), datatype=DataType.REGISTERS)]
    bits = [SimData(0, count=100, values=False, datatype=DataType.BITS)]
    port = free_port()
    device = SimDevice(1, simdata=(bits, bits, words, words))
    server = ModbusTlsServer(
        [device],
        address=(host, port),
        sslctx=context,
        trace_packet=lambda sending, packet: b"" if sending and packet[6] == 2 else packet,
    )
    await server.serve_forever(background=True)
    try:
        yield port
    finally:
        await server.shutdown()


def endpoint_of(authority: Authority, port: int, name: str | None = "gateway", host: str = "localhost") -> Endpoint:
    endpoint = Endpoint(Transport.TLS, host, port, timeout_s=3, tls_ca=str(authority.path))
    if name is None:
        return endpoint
    certificate, key = authority.issue(name)
    return replace(endpoint, tls_cert=str(certificate), tls_key=str(key))


async def refusal(endpoint: Endpoint) -> str:
    """Why no value was read: TLS 1.3 tells a client what its certificate is worth only after the handshake."""
    with pytest.raises(LinkError) as error:
        async with ModbusClient(endpoint) as client:
            await client.read(1, Table.HOLDING_REGISTER, 0, 1)
    return str(error.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_reads_and_writes_with_both_certificates_checked(authority: Authority, host: str) -> None:
    async with pymodbus_server(authority) as port, ModbusClient(endpoint_of(authority, port, host=host)) as client:
        assert await client.read(1, Table.INPUT_REGISTER, 7, 1) == b"\x03\xef"
        await client.write_registers(1, 3, b"\x12\x34")
        assert await client.read(1, Table.HOLDING_REGISTER, 3, 1) == b"\x12\x34"
        with pytest.raises(DeviceRefused):
            await client.read(1, Table.HOLDING_REGISTER, 99, 2)
        assert client.connected


async def test_one_silent_unit_keeps_the_session(authority: Authority) -> None:
    async with pymodbus_server(authority) as port:
        endpoint = replace(endpoint_of(authority, port), timeout_s=0.5)
        async with ModbusClient(endpoint) as client:
            await client.read(1, Table.HOLDING_REGISTER, 0, 1)
            with pytest.raises(LinkError, match="no reply within"):
                await client.read(2, Table.HOLDING_REGISTER, 0, 1)
            assert client.connected
            await client.read(1, Table.HOLDING_REGISTER, 0, 1)


async def test_a_device_of_another_authority_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    async with pymodbus_server(authority, mutual=False) as port:
        assert "CERTIFICATE_VERIFY_FAILED" in await refusal(endpoint_of(Authority(tmp_path, "Other"), port))


async def test_a_device_with_another_name_is_not_trusted(authority: Authority) -> None:
    # All of 127/8 is this machine, but the certificate is for 127.0.0.1 and localhost.
    async with pymodbus_server(authority, mutual=False, host="127.0.0.2") as port:
        assert "not valid for '127.0.0.2'" in await refusal(endpoint_of(authority, port, None, "127.0.0.2"))


async def test_a_device_that_asks_for_no_certificate_is_shown_none(authority: Authority) -> None:
    async with pymodbus_server(authority, mutual=False) as port:
        client = ModbusClient(endpoint_of(authority, port, None))
        await client.connect()
        assert await client.read(1, Table.HOLDING_REGISTER, 0, 1) == b"\x03\xe8"
        await client.close()


async def test_a_device_that_asks_for_a_certificate_gets_none_or_a_strangers(
    authority: Authority, tmp_path: Path
) -> None:
    async with pymodbus_server(authority) as port:
        certificate, key = Authority(tmp_path, "Other").issue("stranger")
        anonymous = endpoint_of(authority, port, None)
        for endpoint in (anonymous, replace(anonymous, tls_cert=str(certificate), tls_key=str(key))):
            assert str(endpoint) in await refusal(endpoint)


async def test_files_that_are_not_there_or_hold_something_else(authority: Authority, tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("nothing")
    good = endpoint_of(authority, 802)
    for name in ("tls_ca", "tls_cert", "tls_key"):
        for path in (rubbish, tmp_path / "missing.pem"):
            assert "no connection" in await refusal(replace(good, **{name: str(path)}))  # type: ignore[arg-type]


async def test_a_device_without_tls_and_one_that_stops_within_the_handshake() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0\1\0\0\0\5\1\3\2\0\7")
        await reader.read()
        writer.close()

    for serve in (hang, babble):
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await refusal(Endpoint(Transport.TLS, "127.0.0.1", port, connect_timeout_s=0.5))


async def test_a_device_that_takes_nothing_any_more_leaves_no_socket_behind(authority: Authority) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("device"))
    ended = threading.Event()

    def freeze() -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True):
            ended.wait(10)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        device = asyncio.create_task(asyncio.to_thread(freeze))
        client = ModbusClient(replace(endpoint_of(authority, listener.getsockname()[1], None), timeout_s=0.2))
        await client.connect()
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(LinkError, match="no reply within"):
            await client.read(1, Table.HOLDING_REGISTER, 0, 1)
        await asyncio.sleep(0.2)
        assert len(os.listdir("/proc/self/fd")) == before - 1
        ended.set()
        await device


@pytest.mark.parametrize(("role", "may_write"), [("Operator", True), ("Viewer", False)])
def test_our_own_server_knows_the_client_by_its_certificate(
    authority: Authority, tmp_path: Path, role: str, may_write: bool
) -> None:
    own, own_key = authority.issue("client", utf8(role))
    port = free_port()
    settings = tls_settings(authority, port, "Operator=write, Viewer=read")

    async def use() -> None:
        endpoint = replace(endpoint_of(authority, port, None), tls_cert=str(own), tls_key=str(own_key))
        async with ModbusClient(endpoint) as client:
            with contextlib.nullcontext() if may_write else pytest.raises(DeviceRefused):
                await client.write_registers(1, 3, b"\0\x2a")
            expected = b"\0\x2a" if may_write else b"\0\0"
            assert await client.read(1, Table.HOLDING_REGISTER, 3, 1) == expected

    with modbus_server(tmp_path, **settings):
        asyncio.run(use())


def test_the_same_on_uvloop(authority: Authority) -> None:
    uvloop = pytest.importorskip("uvloop")
    escaped: list[object] = []

    async def all_of_it() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
        await test_reads_and_writes_with_both_certificates_checked(authority, "localhost")
        await test_one_silent_unit_keeps_the_session(authority)
        await test_a_device_with_another_name_is_not_trusted(authority)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(all_of_it())
    assert escaped == []

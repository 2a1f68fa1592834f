"""A TLS connection without the rest of the server: clients that never get as far as a session, or are slow to read."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from links import modbus_connection
from links.modbus_connection import Answer, Connection, Peer, TlsConnection
from scada.modbus.mbap import encode_frame
from tests.support.certificates import Authority, client_context


class Echo:
    """Answers with the longest PDU there is."""

    def __call__(self, unit_id: int, pdu: bytes) -> bytes:
        return pdu[:1] * 253

    def repeat(self, frame: bytes) -> None:
        return None


class Pool:
    """What a connection tells its listener."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.over = asyncio.Event()

    def answer_for(self, peer: Peer) -> Answer:
        return Echo()

    def speaks(self, connection: Connection) -> Callable[[Connection], None]:
        return lambda _: None

    def broke(self, host: str, reason: str) -> None:
        self.reasons.append(reason)

    def closed(self, connection: Connection) -> None:
        self.over.set()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def context(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    return context


def connected() -> tuple[socket.socket, socket.socket]:
    """A client's socket, and the server's, which does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        server, _ = listening.accept()
    server.setblocking(False)
    return client, server


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


async def test_a_client_that_was_gone_before_the_handshake_is_given_back(context: ssl.SSLContext) -> None:
    client, server = connected()
    reset(client)
    pool = Pool()
    TlsConnection(pool, "127.0.0.1", server, context)
    await asyncio.wait_for(pool.over.wait(), 10)
    assert len(pool.reasons) == 1
    assert server.fileno() == -1


async def test_a_handshake_has_its_time(context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modbus_connection, "_HANDSHAKE_TIMEOUT_S", 0.2)
    client, server = connected()
    with client:
        pool = Pool()
        TlsConnection(pool, "127.0.0.1", server, context)
        client.sendall(b"\x16\x03\x01\x02\x00")  # a ClientHello of 512 bytes begins
        await asyncio.wait_for(pool.over.wait(), 10)
        assert pool.reasons == ["no TLS session: the handshake took too long"]


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
async def test_who_left_before_is_not_late(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, leave: Callable[[socket.socket], None]
) -> None:
    monkeypatch.setattr(modbus_connection, "_HANDSHAKE_TIMEOUT_S", 0.5)
    client, server = connected()
    pool = Pool()
    TlsConnection(pool, "127.0.0.1", server, context)
    client.sendall(b"\x16\x03\x01\x02\x00")
    leave(client)
    await asyncio.wait_for(pool.over.wait(), 10)
    await asyncio.sleep(0.7)
    assert len(pool.reasons) == 1
    assert "too long" not in pool.reasons[0]


async def test_a_shed_connection_is_not_late_either(context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modbus_connection, "_HANDSHAKE_TIMEOUT_S", 0.2)
    client, server = connected()
    with client:
        pool = Pool()
        TlsConnection(pool, "127.0.0.1", server, context).finish()
        assert pool.over.is_set()
        assert client.recv(1) == b""
        await asyncio.sleep(0.4)
        assert pool.reasons == []


@pytest.mark.parametrize("count", [1, 40, 1000])
async def test_answers_that_have_to_wait_for_their_client_are_whole_and_in_order(
    authority: Authority, context: ssl.SSLContext, count: int
) -> None:
    client, server = connected()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pool = Pool()
    connection = TlsConnection(pool, "127.0.0.1", server, context)
    reader, writer = await asyncio.open_connection(
        sock=client, ssl=client_context(authority.path, None), server_hostname="localhost"
    )
    requests = b"".join(encode_frame(number, 1, b"\x07") for number in range(count))
    writer.write(requests)  # in one TLS record: nothing more arrives that could wake the server
    await asyncio.sleep(0.1)
    async with asyncio.timeout(20):
        for number in range(count):
            assert await reader.readexactly(260) == encode_frame(number, 1, b"\x07" * 253)
    connection.shed()
    assert await reader.read() == b""
    writer.close()
    assert pool.over.is_set()


async def test_a_session_outlives_the_time_of_its_handshake(
    authority: Authority, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modbus_connection, "_HANDSHAKE_TIMEOUT_S", 1.0)
    client, server = connected()
    pool = Pool()
    connection = TlsConnection(pool, "127.0.0.1", server, context)
    reader, writer = await asyncio.open_connection(
        sock=client, ssl=client_context(authority.path, None), server_hostname="localhost"
    )
    await asyncio.sleep(1.3)
    writer.write(encode_frame(1, 1, b"\x07"))
    assert len(await asyncio.wait_for(reader.readexactly(260), 10)) == 260
    assert pool.reasons == []
    connection.shed()
    writer.close()

"""Modbus/TCP Security: mutual certificates, and the role in the client's decides what it may do."""

import os
import socket
import ssl
import struct
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from modbus_server.settings import from_env
from scada.modbus.mbap import encode_frame
from tests.support.certificates import Authority, client_context, utf8
from tests.support.modbus_wire import Wire, modbus_server, tls_settings
from tests.support.processes import Process, free_port, wait_until

READ, WRITE = "03 00 00 00 01", "06 00 00 00 07"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[tuple[Process, int, int]]:
    port = free_port()
    settings = tls_settings(authority, port, "Operator=write, Viewer=read, *=none, -=read")
    with modbus_server(tmp_path_factory.mktemp("data"), **settings) as (process, plain_port):
        yield process, port, plain_port


@pytest.mark.parametrize(
    ("role", "reads", "writes"),
    [
        ("Operator", True, True),
        ("Viewer", True, False),
        ("Stranger", False, False),
        (None, True, False),
        ("*", False, False),
        ("-", False, False),
    ],
)
def test_the_role_decides(
    secured: tuple[Process, int, int], authority: Authority, role: str | None, reads: bool, writes: bool
) -> None:
    files = authority.issue("client", *([utf8(role)] if role is not None else []))
    with Wire(secured[1], client_context(authority.path, files)) as wire:
        # Refused with exception 1, as Security R-31 wants it; the connection stays.
        assert wire.ask(READ)[:1] == (b"\x03" if reads else b"\x83")
        assert wire.ask(WRITE) == (bytes.fromhex(WRITE) if writes else bytes.fromhex("8601"))
        assert wire.ask(READ)[:1] == (b"\x03" if reads else b"\x83")


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


def last_words(port: int, context: ssl.SSLContext) -> str:
    """The alert with which the server ends a session that it does not want."""
    with pytest.raises(ssl.SSLError) as caught, Wire(port, context) as wire:
        wire.receive(1)
    return str(caught.value.reason)


@VERSIONS
def test_without_a_certificate_there_is_a_fatal_alert_and_no_session(
    secured: tuple[Process, int, int], authority: Authority, version: ssl.TLSVersion
) -> None:
    context = client_context(authority.path, None)
    context.minimum_version = context.maximum_version = version
    # Security: the alert has to be sent, closing is not enough.
    assert last_words(secured[1], context) in ("SSLV3_ALERT_HANDSHAKE_FAILURE", "TLSV13_ALERT_CERTIFICATE_REQUIRED")


@VERSIONS
def test_a_strangers_certificate_is_no_certificate(
    secured: tuple[Process, int, int], authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    stranger = Authority(tmp_path, "Somebody Else").issue("client", utf8("Operator"))
    context = client_context(authority.path, stranger)
    context.minimum_version = context.maximum_version = version
    assert last_words(secured[1], context) == "TLSV1_ALERT_UNKNOWN_CA"


def test_tls_1_1_is_too_old(secured: tuple[Process, int, int], authority: Authority) -> None:
    context = client_context(authority.path, authority.issue("client", utf8("Operator")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    # The server ended it: had this client given up, the reason would be NO_PROTOCOLS_AVAILABLE.
    assert last_words(secured[1], context) == "TLSV1_ALERT_PROTOCOL_VERSION"


@VERSIONS
@pytest.mark.parametrize("tickets", [True, False])
@pytest.mark.parametrize(("role", "writes"), [("Operator", True), ("Viewer", False)])
def test_a_resumed_session_keeps_its_role(
    secured: tuple[Process, int, int],
    authority: Authority,
    version: ssl.TLSVersion,
    tickets: bool,
    role: str,
    writes: bool,
) -> None:
    context = client_context(authority.path, authority.issue("client", utf8(role)))
    context.minimum_version = context.maximum_version = version
    if not tickets:
        context.options |= ssl.OP_NO_TICKET
    with Wire(secured[1], context) as wire:
        wire.ask(READ)
        session = wire.sock.session  # type: ignore[attr-defined]  # it is an SSLSocket
    with (
        socket.create_connection(("127.0.0.1", secured[1]), 10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as again,
    ):
        again.sendall(encode_frame(1, 1, bytes.fromhex(WRITE)))
        assert again.recv(300)[7:] == (bytes.fromhex(WRITE) if writes else bytes.fromhex("8601"))
        assert again.session_reused


def test_the_cipher_suites_are_those_of_the_specification(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    suites = {suite["name"]: suite for suite in context_of(authority, monkeypatch).get_ciphers()}
    # Security: these at least: SHA-1 and NULL never. Not left to the system's Python.
    assert {"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"} < set(suites)
    assert all(
        name.startswith(("ECDHE-", "TLS_")) and name.endswith(("SHA256", "SHA384", "POLY1305")) for name in suites
    )


def context_of(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    certificate, key = authority.issue("server")
    settings = {"TLS": "true", "TLS_CERT": certificate, "TLS_KEY": key, "TLS_CA": authority.path}
    for name, value in settings.items():
        monkeypatch.setenv(f"MODBUS_SERVER_{name}", str(value))
    tls = from_env().tls
    assert tls is not None
    return tls.context


def test_tls_1_2_is_the_least_whatever_the_system_allows(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    assert context_of(authority, monkeypatch).minimum_version is ssl.TLSVersion.TLSv1_2


def test_one_record_with_many_requests_is_answered_to_the_last(
    secured: tuple[Process, int, int], authority: Authority
) -> None:
    context = client_context(authority.path, authority.issue("client", utf8("Operator")))
    with Wire(secured[1], context) as wire:
        for count in (1, 39, 40, 41, 200, 1300):
            wire.send(b"".join(encode_frame(number, 1, bytes.fromhex(READ)) for number in range(count)))
            assert [wire.answer()[0] for _ in range(count)] == list(range(count))


def test_the_end_of_a_session_is_announced(secured: tuple[Process, int, int], authority: Authority) -> None:
    context = client_context(authority.path, authority.issue("client", utf8("Operator")))
    with (
        socket.create_connection(("127.0.0.1", secured[1]), 10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as sock,
    ):
        sock.sendall(encode_frame(1, 1, bytes.fromhex(READ)) + bytes(8))
        assert len(sock.recv(300)) == 11
        assert sock.recv(300) == b""  # close_notify; without it this is an error


def test_whoever_leaves_within_the_handshake_leaves_nothing_behind(
    secured: tuple[Process, int, int], authority: Authority
) -> None:
    fds = Path(f"/proc/{secured[0].pid}/fd")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(authority.path, None).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    context = client_context(authority.path, authority.issue("client", utf8("Operator")))
    with Wire(secured[1], context) as wire:
        wire.ask(READ)
        before = len(os.listdir(fds))
        for size in range(0, len(hello) + 1, 7):
            for reset in (False, True):
                with socket.create_connection(("127.0.0.1", secured[1])) as sock:
                    if reset:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.sendall(hello[:size])
        for garbage in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(500), bytes(600)):
            with Wire(secured[1]) as wrong:
                wrong.send(garbage)
                assert wrong.is_closed() or garbage[0] == 0x16
        wait_until(lambda: len(os.listdir(fds)) <= before + 1, what="the connections are closed")
        wire.ask(READ)


def test_a_tls_client_that_never_reads_delays_nobody_and_fills_no_memory(
    secured: tuple[Process, int, int], authority: Authority
) -> None:
    context = client_context(authority.path, authority.issue("client", utf8("Operator")))
    flood = encode_frame(1, 1, bytes.fromhex("030000007D")) * 1000
    with Wire(secured[1], context) as deaf, Wire(secured[1], context) as other:
        other.ask(READ)
        before = secured[0].resident_bytes
        deaf.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            deaf.send(flood * 4000)
        for _ in range(100):
            started = time.monotonic()
            other.ask(READ)
            assert time.monotonic() - started < 0.5
        assert secured[0].resident_bytes - before < 5_000_000


def test_plain_bytes_on_the_secure_port_are_never_executed(
    secured: tuple[Process, int, int], authority: Authority
) -> None:
    with Wire(secured[2]) as plain:
        plain.ask("06 00 09 00 01")
        with Wire(secured[1]) as wrong:
            wrong.send(encode_frame(1, 1, bytes.fromhex("060009 00FF")))
            assert wrong.is_closed()
        assert plain.ask("03 00 09 00 01") == bytes.fromhex("03020001")


def test_pipelined_and_long_exchanges_over_tls(secured: tuple[Process, int, int], authority: Authority) -> None:
    context = client_context(authority.path, authority.issue("client", utf8("Operator")))
    with Wire(secured[1], context) as wire:
        wire.send(b"".join(encode_frame(number, 1, bytes.fromhex("030000007D")) for number in range(2000)))
        assert [wire.answer()[0] for _ in range(2000)] == list(range(2000))


def test_a_stuck_handshake_delays_nobody(secured: tuple[Process, int, int], authority: Authority) -> None:
    context = client_context(authority.path, authority.issue("client", utf8("Operator")))
    stuck = [socket.create_connection(("127.0.0.1", secured[1])) for _ in range(50)]
    started = time.monotonic()
    with Wire(secured[1], context) as wire:
        wire.ask(READ)
    assert time.monotonic() - started < 5
    for sock in stuck:
        sock.close()


def test_it_stops_with_open_tls_sessions(tmp_path: Path, authority: Authority) -> None:
    tls_port = free_port()
    context = client_context(authority.path, authority.issue("client", utf8("Viewer")))
    with (
        modbus_server(tmp_path, **tls_settings(authority, tls_port, "Viewer=read")) as (process, _),
        Wire(tls_port, context) as wire,
        socket.create_connection(("127.0.0.1", tls_port)),
    ):
        wire.ask(READ)
        assert process.terminate(5) == 0
        assert wire.is_closed()

"""Modbus/TCP Security: mutual certificates, and the role in the client's decides what it may do."""

import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from modbus_server.settings import from_env
from scada.modbus.mbap import encode_frame
from tests.support.certificates import Authority, client_context, utf8
from tests.support.modbus_wire import Wire, modbus_server
from tests.support.processes import Process, free_port

READ, WRITE = "03 00 00 00 01", "06 00 00 00 07"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[tuple[Process, int, int]]:
    certificate, key = authority.issue("server")
    port = free_port()
    settings: dict[str, str | int | Path] = {
        "TLS": "true",
        "TLS_PORT": port,
        "TLS_CERT": certificate,
        "TLS_KEY": key,
        "TLS_CA": authority.path,
        "TLS_ROLES": "Operator=write, Viewer=read, *=none, -=read",
    }
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


def refuses(port: int, context: ssl.SSLContext) -> bool:
    try:
        with Wire(port, context) as wire:
            wire.ask(READ)
    except (OSError, EOFError):
        return True
    return False


def test_without_a_certificate_there_is_no_session(secured: tuple[Process, int, int], authority: Authority) -> None:
    assert refuses(secured[1], client_context(authority.path, None))


def test_a_strangers_certificate_is_no_certificate(
    secured: tuple[Process, int, int], authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "Somebody Else").issue("client", utf8("Operator"))
    assert refuses(secured[1], client_context(authority.path, stranger))


def test_tls_1_1_is_too_old(secured: tuple[Process, int, int], authority: Authority) -> None:
    context = client_context(authority.path, authority.issue("client", utf8("Operator")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    # The server ended it: had this client given up, the reason would be NO_PROTOCOLS_AVAILABLE.
    with pytest.raises(ssl.SSLError, match=r"EOF|ALERT_PROTOCOL_VERSION"):
        Wire(secured[1], context)


def test_tls_1_2_is_the_least_whatever_the_system_allows(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = authority.issue("server")
    settings = {"TLS": "true", "TLS_CERT": certificate, "TLS_KEY": key, "TLS_CA": authority.path}
    for name, value in settings.items():
        monkeypatch.setenv(f"MODBUS_SERVER_{name}", str(value))
    tls = from_env().tls
    assert tls is not None
    assert tls.context.minimum_version is ssl.TLSVersion.TLSv1_2


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
    certificate, key = authority.issue("server2")
    tls_port = free_port()
    settings: dict[str, str | int | Path] = {
        "TLS": "true",
        "TLS_PORT": tls_port,
        "TLS_CERT": certificate,
        "TLS_KEY": key,
    }
    context = client_context(authority.path, authority.issue("client", utf8("Viewer")))
    with (
        modbus_server(tmp_path, TLS_CA=authority.path, TLS_ROLES="Viewer=read", **settings) as (process, _),
        Wire(tls_port, context) as wire,
        socket.create_connection(("127.0.0.1", tls_port)),
    ):
        wire.ask(READ)
        assert process.terminate(5) == 0
        assert wire.is_closed()

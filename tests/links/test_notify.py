"""sd_notify messages as systemd receives them."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from links.notify import notify_ready, notify_stopping


@pytest.fixture(params=["path", "abstract"])
def listener(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        if request.param == "path":
            sock.bind(str(tmp_path / "notify"))
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        else:
            sock.bind("")
            monkeypatch.setenv("NOTIFY_SOCKET", "@" + sock.getsockname()[1:].decode())
        yield sock


def test_messages(listener: socket.socket) -> None:
    notify_ready("serving\n3 devices")
    assert listener.recv(100) == b"READY=1\nSTATUS=serving 3 devices"
    notify_ready()
    assert listener.recv(100) == b"READY=1"
    notify_stopping()
    assert listener.recv(100) == b"STOPPING=1"


def test_nobody_listening_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_ready()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify_ready()

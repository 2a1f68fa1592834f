"""The test support itself: what other tests rely on."""

import socket
import sys

import pytest

from tests.support.brokers import Broker, start_proxy
from tests.support.processes import accepts, start
from tests.support.programs import need


def test_mosquitto_fixture_restarts_on_its_port(mosquitto: Broker) -> None:
    mosquitto.restart()
    assert accepts(mosquitto.port)


def test_need_fails_in_ci_and_skips_for_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGWIRE_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception):
        need("no-such-program-anywhere")
    monkeypatch.delenv("TAGWIRE_REQUIRE_ALL")
    with pytest.raises(pytest.skip.Exception):
        need("no-such-program-anywhere")


def test_process_waits_for_ready_and_is_reaped() -> None:
    script = "import signal; from links.notify import notify_ready as r; r('x y'); print('hi'); signal.pause()"
    with start([sys.executable, "-c", script]) as child:
        child.wait_ready()
        child.wait_output("hi")
        assert child.notified == ["READY=1\nSTATUS=x y"]
    assert child.popen.returncode is not None


def test_proxy_black_hole_swallows_and_forgets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, start_proxy(server.getsockname()[1]) as proxy:
        client = socket.create_connection((proxy.host, proxy.port), 5)
        peer, _ = server.accept()
        client.sendall(b"a")
        assert peer.recv(1) == b"a"
        proxy.blackhole()
        client.sendall(b"b")
        peer.settimeout(0.1)
        with pytest.raises(TimeoutError):
            peer.recv(1)
        client.close()
        peer.close()

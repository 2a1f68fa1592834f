"""`python -m flask_app` on the bus: brokers that are absent or restarted, requests that wait, the end."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flask_app.waiters import MAX_WAITING_FOR_ONE
from tests.support.brokers import Broker, start_mosquitto
from tests.support.fake_owner import fake_owner
from tests.support.processes import CHECKOUT, accepts, clean_environment, free_port, start, wait_until
from tests.support.rest import TANK, Answer, Server, rest_server


def command(server: Server, query: str = "", **body: Any) -> Answer:
    return server.ask("POST", f"/api/v1/tags/tank@level/commands{query}", {"value": 5, **body})


def not_waited(answer: Answer) -> bool:
    return answer.headers.get("tagwire-not-waited") == f"{MAX_WAITING_FOR_ONE} requests wait for this device already"


def online(server: Server) -> bool:
    return server.ask("GET", "/api/v1/devices/tank/link").status == 200


def test_without_a_broker_everything_else_is_served(tmp_path: Path) -> None:
    port = free_port()
    with rest_server(tmp_path, MQTT_PORT=port) as server:
        assert server.ask("POST", "/api/v1/devices", TANK).status == 201
        for method, path, body in (
            ("POST", "/api/v1/tags/tank@level/commands", {"value": 5}),
            ("POST", "/api/v1/device_call", {"device": "tank", "tag": "level"}),
            ("GET", "/api/v1/devices/tank/link", None),
            ("GET", "/api/v1/devices/tank/plan", None),
        ):
            answer = server.ask(method, path, body)
            assert (answer.status, answer.json["detail"].startswith("no broker: ")) == (503, True), answer.body
            assert "retry-after" in answer.headers
        # What is wrong is wrong without a broker too.
        assert command(server, value=500).status == 422
        assert server.ask("GET", "/api/v1/tags/tank@level/value").json["reason"] == "not_connected"
        assert server.ask("GET", "/api/v1/commands").json == {"items": [], "total": 0}
        with start_mosquitto(tmp_path / "mosquitto", port=port) as broker:
            wait_until(lambda: online(server), 20, "the broker is found")
            with fake_owner(broker.port) as owner:
                owner.state("tank", level=5.5)
                assert command(server, "?wait=10").json["state"] == "verified"
                broker.restart()
                wait_until(lambda: server.ask("GET", "/api/v1/tags/tank@level/value").json["quality"] == "bad", 20)
                wait_until(lambda: online(server), 20, "the broker is found again")
                wait_until(lambda: server.ask("GET", "/api/v1/tags/tank@level/value").json["quality"] == "good", 20)
        wait_until(lambda: not online(server), 20, "the broker's end is seen")


def test_requests_that_wait_do_not_hold_up_others(tmp_path: Path, nats: Broker) -> None:
    with rest_server(tmp_path, MQTT_PORT=nats.port) as server, fake_owner(nats.port) as owner:
        assert server.ask("POST", "/api/v1/devices", TANK).status == 201
        assert server.ask("POST", "/api/v1/devices", {**TANK, "name": "dead"}).status == 201
        owner.dead = ["dead"]
        wait_until(lambda: online(server), 20)
        owner.state("tank", level=5)
        asks = json.dumps({"tag": "dead@level"}), json.dumps({"value": 5, "expires_s": 60})
        head = {"Content-Type": "application/json"}
        # More than threads, and a few more than may wait.
        calls = [server.connection(40) for _ in range(20)]
        commands = [server.connection(40) for _ in range(MAX_WAITING_FOR_ONE)]
        try:
            for connection in calls:
                connection.request("POST", "/api/v1/device_call?wait=20", asks[0], head)
            for connection in commands:
                connection.request("POST", "/api/v1/tags/dead@level/commands?wait=20", asks[1], head)
            probe = "/api/v1/tags/dead@level/commands?wait=0.1"
            wait_until(lambda: not_waited(server.ask("POST", probe, {"value": 5})), 20, "every place is taken")
            begun = time.monotonic()
            for number in range(20):
                assert server.ask("POST", "/api/v1/devices", {"name": f"d{number}"}).status == 201
                assert server.ask("GET", "/api/v1/tags/tank@level/value").status == 200
                assert command(server, "?wait=10").json["state"] == "verified"
            assert time.monotonic() - begun < 10
            # Who goes gives the place back.
            for connection in commands[:40]:
                connection.close()
            del commands[:40]
            wait_until(lambda: server.ask("POST", "/api/v1/device_call?wait=0.1", {"tag": "dead@level"}).status == 424)
            # And the end does not wait for them.
            begun = time.monotonic()
            assert server.process.terminate() == 0
            assert time.monotonic() - begun < 5
            assert {each.getresponse().status for each in commands} == {202}
            assert {each.getresponse().status for each in calls} == {424}
        finally:
            for connection in (*commands, *calls):
                connection.close()


def test_a_request_that_waited_is_counted_once_and_with_its_time(tmp_path: Path, nats: Broker) -> None:
    with rest_server(tmp_path, MQTT_PORT=nats.port) as server:
        assert server.ask("POST", "/api/v1/devices", TANK).status == 201
        wait_until(lambda: online(server), 20)
        answer = command(server, "?wait=1.5", expires_s=60)
        assert (answer.status, "tagwire-not-waited" in answer.headers) == (202, False)
        assert answer.headers["x-content-type-options"] == "nosniff"
        route = 'method="POST",route="/api/v1/tags/<tag>/commands"'
        lines = dict(
            line.rsplit(" ", 1) for line in server.ask("GET", "/metrics").body.decode().splitlines() if route in line
        )
        assert lines[f'tagwire_http_requests_total{{{route},status="202"}}'] == "1.0"
        assert 1.5 <= float(lines[f"tagwire_http_seconds_sum{{{route}}}"]) < 10


def test_commands_that_nobody_had_answered_at_the_end_are_in_the_log(tmp_path: Path, nats: Broker) -> None:
    with rest_server(tmp_path, MQTT_PORT=nats.port) as server:
        assert server.ask("POST", "/api/v1/devices", TANK).status == 201
        wait_until(lambda: online(server), 20)
        identity = command(server, expires_s=60).json["id"]
    with rest_server(tmp_path, MQTT_PORT=nats.port) as server:
        found = server.ask("GET", f"/api/v1/commands/{identity}").json
        assert (found["state"], found["reason"]) == ("expired", "nobody answered")
        assert found["by"] == "rest 127.0.0.1"


def test_flask_run_is_on_the_bus_too(tmp_path: Path, nats: Broker) -> None:
    port = free_port()
    uri = f"sqlite:///{tmp_path}/db.sqlite"
    environment = clean_environment(
        SQLALCHEMY_DATABASE_URI=uri, FLASK_RUN_PORT=port, FLASK_APP_PORT=port, MQTT_PORT=nats.port
    )
    with start([sys.executable, "-m", "flask", "run"], environment, CHECKOUT / "flask_app") as process:
        server = Server(process, port)
        wait_until(lambda: accepts(port), 20)
        assert server.ask("POST", "/api/v1/devices", TANK).status == 201
        with fake_owner(nats.port):
            assert command(server, "?wait=10").json["state"] == "verified"


@pytest.mark.parametrize("name", ["TAGWIRE_BUS_ROOT", "MQTT_PORT"])
def test_a_wrong_setting_of_the_bus_is_refused(name: str, tmp_path: Path) -> None:
    environment = clean_environment(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/db.sqlite", **{name: "a/#"})
    done = subprocess.run(
        [sys.executable, "-m", "flask_app"], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, name in done.stderr) == (2, True), done.stderr

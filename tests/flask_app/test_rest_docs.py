"""docs/rest.md and docs/commands.md are true: their requests are sent in order, each answer holds what is shown."""

import json
import re
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from flask_app import spreadsheet
from flask_app.live import EXTENSION, Live
from links.environment import MqttSettings
from tests.support.brokers import Broker
from tests.support.fake_owner import fake_owner
from tests.support.processes import CHECKOUT, accepts, wait_until
from tests.support.rest import application

TEXT = (CHECKOUT / "docs" / "rest.md").read_text()


def parts(block: str) -> tuple[str, dict[str, str], str]:
    """First line, header fields and body."""
    head, _, body = block.partition("\n\n")
    first, *fields = head.split("\n")
    return first, dict(field.split(": ", 1) for field in fields), body


def differences(shown: Any, found: Any, path: str = "") -> list[str]:
    """Where `found` does not have what is shown."""
    if isinstance(shown, dict) and isinstance(found, dict):
        return [line for name in shown for line in differences(shown[name], found.get(name), f"{path}.{name}")]
    if isinstance(shown, list) and isinstance(found, list) and len(shown) == len(found):
        pairs = zip(shown, found, strict=True)
        return [line for index, (a, b) in enumerate(pairs) for line in differences(a, b, f"{path}.{index}")]
    return [] if shown == found else [f"{path}: shown {shown!r}, answered {found!r}"]


def send_all(text: str, client: FlaskClient, at_least: int) -> None:
    blocks = re.findall(r"```http\n(.*?)\n```", text, re.DOTALL)
    assert len(blocks) > at_least
    assert len(blocks) % 2 == 0
    for request, response in zip(blocks[::2], blocks[1::2], strict=True):
        first, headers, body = parts(request)
        method, url = first.split(" ")
        if url.startswith("/api/v1/registers") and accepts(8502):
            continue  # somebody's Modbus server runs here; tests/flask_app/test_registers.py has its own
        answer = client.open(url, method=method, headers=headers, data=body.encode() or None)
        status, shown_headers, shown = parts(response)
        assert status == f"HTTP/1.1 {answer.status_code}", (request, answer.text)
        for name, value in shown_headers.items():
            assert answer.headers[name] == value, (request, name)
        assert differences(json.loads(shown), answer.json) == [], request


def test_every_example_is_answered_as_shown(client: FlaskClient) -> None:
    send_all(TEXT, client, 30)


def test_every_example_of_values_and_commands_is_answered_as_shown(tmp_path: Path, nats: Broker) -> None:
    app = application(tmp_path, mqtt=MqttSettings(port=nats.port))
    live: Live = app.extensions[EXTENSION]
    live.start()
    wait_until(lambda: live.online, 20)
    with fake_owner(nats.port) as owner:
        owner.values = {"old": 20.5, "setpoint": 65.5, "pump": True}
        owner.server(True)
        owner.state("boiler", setpoint=20.5, pump=True)
        plan = {"requests_per_s": 2.0, "load": 0.01, "tags": 2, "requests": [{"unit": 1}, {"unit": 1}]}
        owner.publish("tagwire/plan/field_server/boiler", plan, retain=True)
        owner.link("boiler", True)
        wait_until(lambda: live.values.links("boiler"))
        # What owners store: this one has no database.
        store = live.commands.take
        live.commands.take = lambda step: (live.command_log().append([step]), store(step))  # type: ignore[assignment]
        send_all((CHECKOUT / "docs" / "commands.md").read_text(), app.test_client(), 20)
    live.close()


def test_every_column_of_the_table_is_described() -> None:
    section = TEXT.split("## Tags as a table")[1].split("\n## ")[0]
    described = set(re.findall(r"`([a-z_.]+)`", "".join(re.findall(r"^\| `.*$", section, re.MULTILINE))))
    assert {column.name for column in spreadsheet.columns()} <= described


def test_every_path_of_the_api_is_described(client: FlaskClient) -> None:
    for path in client.get("/api/v1/openapi.json").json["paths"]:
        last = path.removeprefix("/api/v1").split("{")[0].rstrip("/")
        assert last in TEXT, path

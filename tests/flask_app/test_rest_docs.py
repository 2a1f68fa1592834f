"""docs/rest.md is true: its requests are sent in order, each answer holds what is shown; its tables are complete."""

import json
import re
from typing import Any

from flask.testing import FlaskClient

from flask_app import spreadsheet
from tests.support.processes import CHECKOUT, accepts

TEXT = (CHECKOUT / "docs" / "rest.md").read_text()
BLOCKS = re.findall(r"```http\n(.*?)\n```", TEXT, re.DOTALL)


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


def test_every_example_is_answered_as_shown(client: FlaskClient) -> None:
    assert len(BLOCKS) > 30
    assert len(BLOCKS) % 2 == 0
    for request, response in zip(BLOCKS[::2], BLOCKS[1::2], strict=True):
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


def test_every_column_of_the_table_is_described() -> None:
    section = TEXT.split("## Tags as a table")[1].split("\n## ")[0]
    described = set(re.findall(r"`([a-z_.]+)`", "".join(re.findall(r"^\| `.*$", section, re.MULTILINE))))
    assert {column.name for column in spreadsheet.columns()} <= described


def test_every_path_of_the_api_is_described(client: FlaskClient) -> None:
    for path in client.get("/api/v1/openapi.json").json["paths"]:
        last = path.removeprefix("/api/v1").split("{")[0].rstrip("/")
        assert last in TEXT, path

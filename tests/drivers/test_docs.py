"""The page of every driver is true: each setting with default and bounds, each example accepted; so is the contract's page."""

import re
from collections.abc import Iterator
from dataclasses import fields as members
from pathlib import Path

import orjson
import pytest

from drivers.contract import Driver, Link, Point, Refusal, Request
from drivers.registry import load_drivers
from scada.protocols.simulated import Model
from storage.config_reader import ConfigReader
from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate
from tests.support.processes import CHECKOUT
from tests.support.schema_tables import field_rows, point_rows, sections

PROTOCOLS = sorted(load_drivers())
_CELL = re.compile(r"\s*\|\s*")


def page(protocol: str) -> str:
    return (CHECKOUT / f"docs/driver_{protocol}.md").read_text()


def cells(row: str) -> list[str]:
    return _CELL.split(row.strip().strip("|").strip())


def rows(text: str) -> dict[str, list[list[str]]]:
    """Rows of tables by the name in their first cell."""
    found: dict[str, list[list[str]]] = {}
    for row in re.findall(r"^\| `.*\|$", text, re.MULTILINE):
        name, *rest = cells(row)
        found.setdefault(name.strip("`"), []).append(rest)
    return found


def facts(row: str) -> tuple[str, set[str]]:
    """A setting's name, and the words that its row must hold: default, bounds, choices."""
    name, default, admitted, _ = cells(row)
    return name.strip("`"), {default.strip("`–")} | set(re.findall(r"-?\d[\d.]*|`\w+`", admitted)) - {""}


def words(row: list[str]) -> str:
    return re.sub(r"(?<=\d),(?=\d{3})", "", " ".join(row))


def tables(text: str) -> Iterator[list[str]]:
    """The names in the first column of each table of fields."""
    for table in re.findall(r"^\| (?:field|setting) \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", text, re.MULTILINE):
        yield [cells(row)[0].strip("`") for row in table.splitlines()]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_setting_stands_on_its_page_with_default_and_bounds(protocol: str) -> None:
    found = rows(page(protocol))
    for title, record in sections(protocol):
        for name, wanted in map(facts, field_rows(record)):
            assert name in found, f"{title}: {name}"
            assert any(all(fact in words(row) for fact in wanted) for row in found[name]), f"{title}: {name}: {wanted}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_page_lists_no_setting_that_does_not_exist(protocol: str) -> None:
    known = {facts(row)[0] for _, record in sections(protocol) for row in field_rows(record)}
    listed = [name for names in tables(page(protocol)) for name in names]
    assert listed, "tables of settings begin with | field |"
    assert set(listed) <= known


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_examples_of_a_page_are_devices(protocol: str, tmp_path: Path) -> None:
    documents = [orjson.loads(text) for text in re.findall(r"```json\n(.*?)```", page(protocol), re.DOTALL)]
    devices = [document for document in documents if "network" in document]
    assert devices
    engine = open_engine(f"sqlite:///{tmp_path}/page.sqlite")
    migrate(engine)
    for device in devices:
        ConfigStore(engine).create_device(device)
    assert [config.faults for config in ConfigReader(engine).load_devices()] == [()] * len(devices)
    engine.dispose()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_page_is_linked_from_that_of_the_drivers(protocol: str) -> None:
    assert f"](driver_{protocol}.md)" in (CHECKOUT / "docs/drivers.md").read_text()


@pytest.mark.parametrize("model", Model)
def test_the_points_of_a_simulated_model_are_those_of_the_code(model: Model) -> None:
    section = page("simulated").split(f"## The model `{model}`\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `.*\|$", section, re.MULTILINE) == list(point_rows(model))


@pytest.mark.parametrize("kind", [Driver, Point, Request])
def test_every_member_of_the_contract_is_told(kind: type) -> None:
    text = (CHECKOUT / "docs/drivers.md").read_text()
    assert [member.name for member in members(kind) if f"`{member.name}`" not in text] == []


def test_every_method_of_a_link_and_every_kind_of_refusal_is_told() -> None:
    text = (CHECKOUT / "docs/drivers.md").read_text()
    methods = [name for name in vars(Link) if not name.startswith("_")]
    assert len(methods) > 7
    assert [name for name in (*methods, *Refusal) if f"`{name}`" not in text] == []

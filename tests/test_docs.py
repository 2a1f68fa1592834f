"""Documentation is kept by tests: settings, links, examples."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import field_server.settings
import flask_app.settings
import modbus_server.settings
import mqtt_server.settings
from links.environment import Environment, open_environment
from scada.values import RejectCode
from tagwire.up import UpSettings
from tests.support.processes import CHECKOUT

PROGRAMS: dict[str, tuple[str, Callable[[], Any]]] = {
    "tagwire up": (".env.example", lambda: UpSettings.from_env(open_environment())),
    "flask_app": ("flask_app/.env.example", flask_app.settings.Settings.from_env),
    "modbus_server": ("modbus_server/.env.example", modbus_server.settings.from_env),
    "mqtt_server": ("mqtt_server/.env.example", mqtt_server.settings.Settings.from_env),
    "field_server": ("field_server/.env.example", field_server.settings.Settings.from_env),
}
# Read without our reader: by make and click, by terminals, by sd_notify.
ELSEWHERE = {"DEMO", "NO_COLOR", "NOTIFY_SOCKET"}
DOCUMENTS = [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")]
_SETTING = re.compile(r"^#? ?([A-Z][A-Z_0-9]+)=", re.MULTILINE)
_ROW = re.compile(r"^\| `([A-Z][A-Z_0-9]+)` \| (?:`(.*?)`)? ?\| (\S.*) \|$", re.MULTILINE)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[str]:
    """The names of the settings that are read from here on; the environment has none, and neither is there a `.env`."""
    names: set[str] = set()
    look_up = Environment._get_value

    def record(self: Environment, env_key: str, default: Any) -> Any:
        names.add(env_key)
        return look_up(self, env_key, default)

    monkeypatch.setattr(Environment, "_get_value", record)
    monkeypatch.chdir(tmp_path)
    for name in _ROW.findall((CHECKOUT / "docs/settings.md").read_text()):
        monkeypatch.delenv(name[0], raising=False)
    return names


def documented() -> dict[str, str]:
    rows = _ROW.findall((CHECKOUT / "docs/settings.md").read_text())
    assert len(rows) == len({name for name, *_ in rows}), "a setting stands there twice"
    return {name: default for name, default, _ in rows}


def examples(path: str) -> dict[str, str]:
    text = (CHECKOUT / path).read_text()
    return {name: text.split(f"{name}=", 1)[1].splitlines()[0] for name in _SETTING.findall(text)}


def test_every_setting_is_documented_and_every_documented_one_exists(asked: set[str]) -> None:
    for _, read in PROGRAMS.values():
        read()
    assert asked == set(documented()) - ELSEWHERE


def test_every_setting_stands_in_an_example_and_the_other_way_round(asked: set[str]) -> None:
    in_examples = {name for path, _ in PROGRAMS.values() for name in examples(path)}
    assert in_examples == set(documented()) - ELSEWHERE


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_example_holds_only_settings_of_its_program(program: str, asked: set[str]) -> None:
    path, read = PROGRAMS[program]
    read()
    names = set(examples(path))
    assert names <= asked
    if program != "tagwire up":
        assert asked - names <= {"TAGWIRE_DATA_DIR"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_example_copied_to_dotenv_changes_nothing(program: str, asked: set[str], tmp_path: Path) -> None:
    path, read = PROGRAMS[program]
    without = read()
    (tmp_path / ".env").write_text((CHECKOUT / path).read_text())
    assert read() == without


def test_the_examples_and_the_table_show_the_same_defaults() -> None:
    defaults = documented()
    for path, _ in PROGRAMS.values():
        for name, value in examples(path).items():
            assert value == defaults[name], f"{name} in {path}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", text):
        link = (target[0] or target[1]).split("#")[0]
        if link and "://" not in link:
            assert (document.parent / link).exists(), f"{document.name} links to {link}"


def anchors(document: Path) -> set[str]:
    """What links may name in it: its headings as GitHub and its like spell them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    plain = (re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_links_lead_to_a_heading_that_is_there(document: Path) -> None:
    for path, anchor in re.findall(r"\]\(([^)\s:#]*)#([^)\s]+)\)", document.read_text()):
        assert anchor in anchors(document.parent / path if path else document), f"{document.name}: {path}#{anchor}"


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    todo = [CHECKOUT / "README.md"]
    while todo:
        document = todo.pop()
        if document in reached or not document.exists():
            continue
        reached.add(document)
        if document.suffix == ".md":
            links = re.findall(r"\]\(([^)\s#]+)", document.read_text())
            todo += [(document.parent / link).resolve() for link in links if "://" not in link]
            todo += [each for link in list(todo) if link.is_dir() for each in link.glob("*.md")]
    assert {path for path in DOCUMENTS if path.parent != CHECKOUT} <= reached


def test_every_reason_of_a_reject_is_explained() -> None:
    table = (CHECKOUT / "docs/gateway.md").read_text().split("| code | reason |\n", 1)[1].split("\n\n", 1)[0]
    named = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()))
    assert sorted(named) == sorted(RejectCode)


def test_the_driver_that_the_guide_has_installed_is_the_one_that_is_tested() -> None:
    (named,) = re.findall(r"pip install '(psycopg[^']*)'", (CHECKOUT / "docs/database.md").read_text())
    assert named in (CHECKOUT / "requirements-dev.txt").read_text().splitlines()
    assert f'"{named}"' in (CHECKOUT / "pyproject.toml").read_text()

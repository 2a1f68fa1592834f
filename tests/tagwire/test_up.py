"""What `tagwire up` decides before it starts anything."""

import io
import socket
from pathlib import Path

import pytest

from links.environment import open_environment
from scada.errors import ConfigError
from tagwire.listeners import Listener, check_ports, sound_listeners
from tagwire.log import Log
from tagwire.up import UpSettings, choose, plan, ready_table


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MQTT_HOST", "MQTT_PORT", "MQTT_TLS", "FLASK_APP_PORT", "MODBUS_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TAGWIRE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("only", "demo", "own_broker", "names"),
    [
        (None, False, True, ("broker", "flask_app", "modbus_server", "mqtt_server", "field_server")),
        (None, False, False, ("flask_app", "modbus_server", "mqtt_server", "field_server")),
        (None, True, True, ("broker", "flask_app", "modbus_server", "mqtt_server", "field_server", "demo")),
        ("mqtt_server, modbus_server", False, True, ("broker", "modbus_server", "mqtt_server")),
        ("modbus_server", False, True, ("modbus_server",)),
        ("broker", False, True, ("broker",)),
    ],
)
def test_what_is_started(only: str | None, demo: bool, own_broker: bool, names: tuple[str, ...]) -> None:
    assert choose(only, demo, own_broker) == names


def test_a_name_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"'mqtt'.*mqtt_server"):
        choose("mqtt,modbus_server", False, True)


def test_every_taken_port_is_named_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [one.getsockname()[1], two.getsockname()[1]]
        with pytest.raises(ConfigError) as caught:
            check_ports(
                [Listener("a", "127.0.0.1", ports[0], "A_PORT"), Listener("b", "127.0.0.1", ports[1], "B_PORT")]
            )
    assert [fault.field for fault in caught.value.faults] == ["A_PORT", "B_PORT"]
    assert f"127.0.0.1:{ports[1]} (for b) is in use" in str(caught.value)


def test_two_programs_on_one_port_are_refused(free_port: int) -> None:
    with pytest.raises(ConfigError, match=f"B_PORT: is {free_port} as A_PORT is"):
        check_ports([Listener("a", "127.0.0.1", free_port, "A_PORT"), Listener("b", "127.0.0.1", free_port, "B_PORT")])


def test_an_address_that_is_not_ours_is_refused(free_port: int) -> None:
    with pytest.raises(ConfigError, match="cannot be listened on"):
        check_ports([Listener("a", "192.0.2.1", free_port, "A_PORT")])


def test_a_wrong_port_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_APP_PORT", "x")
    monkeypatch.setenv("MODBUS_SERVER_TLS", "true")
    monkeypatch.setenv("MODBUS_SERVER_TLS_PORT", "8802")
    monkeypatch.setenv("MQTT_KEEPALIVE_S", "0")
    assert [(each.setting, each.port) for each in sound_listeners()] == [
        ("MODBUS_SERVER_PORT", 8502),
        ("MODBUS_SERVER_TLS_PORT", 8802),
        ("MQTT_PORT", 1883),
    ]


def test_settings_list_every_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_APP_PORT", "99999")
    monkeypatch.setenv("MODBUS_SERVER_PORT", "x")
    monkeypatch.setenv("MQTT_TLS", "true")
    with pytest.raises(ConfigError) as caught:
        UpSettings.from_env(open_environment())
    assert {fault.field for fault in caught.value.faults} == {"FLASK_APP_PORT", "MODBUS_SERVER_PORT", "MQTT_TLS"}


def test_a_broker_named_by_the_operator_takes_the_place_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert UpSettings.from_env(open_environment()).broker is not None
    monkeypatch.setenv("MQTT_HOST", "broker.example")
    settings = UpSettings.from_env(open_environment())
    assert settings.broker is None
    assert "broker.example:1883" in ready_table(settings, ("mqtt_server",), terminal=False)


def test_a_broker_that_listens_everywhere_is_reached_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGWIRE_BROKER_HOST", "0.0.0.0")
    settings = UpSettings.from_env(open_environment())
    programs = plan(settings, ("broker", "mqtt_server"))
    assert programs[1].env["MQTT_HOST"] == "127.0.0.1"
    assert 'host: "0.0.0.0"' in (tmp := settings.data_dir / "broker" / "nats.conf").read_text(), tmp


def test_the_table_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLALCHEMY_DATABASE_URI", "postgresql://tagwire:hunter2@db/tagwire")
    text = ready_table(UpSettings.from_env(open_environment()), ("flask_app",), terminal=False)
    assert "postgresql://db/tagwire" in text
    assert "hunter2" not in text
    assert "\033" not in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_log_has_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for out, coloured in ((Terminal(), True), (io.StringIO(), False)):
        Log(out, ["a"], lambda: None).say("a", "line")
        assert ("\033[" in out.getvalue()) is coloured
        assert out.getvalue().endswith("| line\n")
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    Log(out, ["a"], lambda: None).say("a", "line")
    assert "\033" not in out.getvalue()


def test_log_tells_once_that_nobody_reads() -> None:
    told: list[bool] = []
    log = Log(Closed(), ["a"], lambda: told.append(True))
    log.say("a", "one")
    log.say("a", "two")
    assert told == [True]

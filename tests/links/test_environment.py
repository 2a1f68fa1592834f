"""Settings: the process environment over `.env`, every fault at once, no secret in any message."""

import logging
from pathlib import Path

import pytest

from links.environment import (
    CHECKOUT,
    exit_on_config_error,
    open_environment,
    read_data_dir,
    read_database_uri,
    read_mqtt,
    seal,
)
from scada.errors import ConfigError, Fault


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HOST", "PORT", "USERNAME", "PASSWORD", "PROTOCOL", "TLS", "TLS_CA", "TLS_CERT", "TLS_KEY"):
        monkeypatch.delenv(f"MQTT_{name}", raising=False)
    for name in ("MQTT_KEEPALIVE_S", "MQTT_CLIENT_ID_PREFIX", "TAGWIRE_DATA_DIR", "SQLALCHEMY_DATABASE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def faults() -> dict[str, str]:
    env = open_environment()
    read_mqtt(env)
    read_data_dir(env)
    read_database_uri(env)
    try:
        seal(env)
    except ConfigError as exc:
        return {fault.field: fault.message for fault in exc.faults}
    return {}


def test_nothing_set_gives_the_documented_defaults() -> None:
    env = open_environment()
    mqtt = read_mqtt(env)
    assert (mqtt.host, mqtt.port, mqtt.protocol, mqtt.tls, mqtt.username) == ("127.0.0.1", 1883, "3.1.1", False, None)
    assert read_data_dir(env) == CHECKOUT / "data"
    assert read_database_uri(env) == f"sqlite:///{CHECKOUT}/flask_app/instance/db.sqlite"
    seal(env)


def test_dotenv_is_found_upwards_and_the_process_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("MQTT_HOST=from.file\nMQTT_PORT=1884\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setenv("MQTT_PORT", "1885")
    mqtt = read_mqtt(open_environment())
    assert (mqtt.host, mqtt.port) == ("from.file", 1885)


def test_a_line_of_dotenv_that_cannot_be_understood_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    (tmp_path / ".env").write_text("MQTT_PORT=1884\nwhat is this\n")
    with pytest.raises(ConfigError, match="line 2"):
        open_environment()


def test_a_dotenv_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"MQTT_HOST=\xff\n")
    with pytest.raises(ConfigError, match=r"\.env.*cannot be read"):
        open_environment()


def test_every_fault_is_listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MQTT_HOST": "",
        "MQTT_PORT": "65536",
        "MQTT_PROTOCOL": "4",
        "MQTT_TLS": "perhaps",
        "MQTT_KEEPALIVE_S": "0",
        "MQTT_CLIENT_ID_PREFIX": "a.b",
        "TAGWIRE_DATA_DIR": "",
        "SQLALCHEMY_DATABASE_URI": "db.sqlite",
    }.items():
        monkeypatch.setenv(name, value)
    found = faults()
    assert set(found) == {
        "MQTT_HOST",
        "MQTT_PORT",
        "MQTT_PROTOCOL",
        "MQTT_TLS",
        "MQTT_KEEPALIVE_S",
        "MQTT_CLIENT_ID_PREFIX",
        "TAGWIRE_DATA_DIR",
        "SQLALCHEMY_DATABASE_URI",
    }
    assert "'65536'" in found["MQTT_PORT"]


def test_what_belongs_together_is_checked_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("MQTT_PASSWORD", "hunter2")
    monkeypatch.setenv("MQTT_TLS", "true")
    monkeypatch.setenv("MQTT_TLS_CERT", str(tmp_path / "file"))
    monkeypatch.setenv("MQTT_TLS_CA", str(tmp_path / "absent"))
    found = faults()
    assert set(found) == {"MQTT_PASSWORD", "MQTT_TLS_CERT", "MQTT_TLS_CA"}
    assert "hunter2" not in str(found)


def test_tls_files_without_tls_are_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca").write_text("x")
    monkeypatch.setenv("MQTT_TLS_CA", str(tmp_path / "ca"))
    assert "MQTT_TLS=true" in faults()["MQTT_TLS_CA"]


def test_a_secret_is_in_no_repr_and_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_USERNAME", "op")
    monkeypatch.setenv("MQTT_PASSWORD", "hunter2")
    monkeypatch.setenv("SQLALCHEMY_DATABASE_URI", "no url, hunter2")
    assert "hunter2" not in repr(read_mqtt(open_environment()))
    assert "hunter2" not in str(faults())


@pytest.mark.parametrize(
    ("uri", "meaning"),
    [
        ("sqlite:///other.db", f"sqlite:///{CHECKOUT}/flask_app/instance/other.db"),
        ("sqlite:////var/lib/x.db", "sqlite:////var/lib/x.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql://u:p@h/d", "postgresql://u:p@h/d"),
    ],
)
def test_database_uri(monkeypatch: pytest.MonkeyPatch, uri: str, meaning: str) -> None:
    monkeypatch.setenv("SQLALCHEMY_DATABASE_URI", uri)
    assert read_database_uri(open_environment()) == meaning


def test_a_program_ends_with_2_and_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    @exit_on_config_error
    def main() -> None:
        raise ConfigError([Fault("A", "is wrong"), Fault("B", "too")])

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == "Cannot start:\n  A: is wrong\n  B: too\n"

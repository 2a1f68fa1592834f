"""The embedded broker: found, configured, and as durable as its configuration promises."""

import stat
import sys
from pathlib import Path

import pytest

from scada.errors import ConfigError
from tagwire import broker as broker_module
from tagwire.broker import BrokerSettings, find_nats_server, nats_conf, prepare_broker
from tests.support.brokers import Broker
from tests.support.processes import accepts, clean_environment, free_port, start


def test_binary_is_found_through_the_wheels_metadata() -> None:
    path = find_nats_server()
    assert path is not None
    assert path.name.startswith("nats-server")


def test_configuration_quotes_what_an_operator_may_write(tmp_path: Path) -> None:
    text = nats_conf(BrokerSettings(tmp_path / 'a "b"', username="op", password='p"w\\{}'))
    assert 'store_dir: "' + str(tmp_path) + '/a \\"b\\""' in text
    assert 'password: "p\\"w\\\\{}"' in text


def test_configuration_with_a_password_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    prepare_broker(BrokerSettings(tmp_path / "broker", username="op", password="secret"))
    assert stat.S_IMODE((tmp_path / "broker" / "nats.conf").stat().st_mode) == 0o600


def test_without_any_embedded_broker_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "find_nats_server", lambda: None)
    monkeypatch.setattr(broker_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="MQTT_HOST"):
        prepare_broker(BrokerSettings(tmp_path))


def test_amqtt_takes_the_place_of_a_missing_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "find_nats_server", lambda: None)
    monkeypatch.setattr(broker_module, "find_spec", lambda name: object())
    command = prepare_broker(BrokerSettings(tmp_path, port=1999)).command
    assert "amqtt.scripts.broker_script" in command
    assert "127.0.0.1:1999" in (tmp_path / "amqtt.yaml").read_text()


def test_amqtt_serves_as_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "find_nats_server", lambda: None)
    port = free_port()
    broker = prepare_broker(BrokerSettings(tmp_path, port=port))
    publish = [sys.executable, "-m", "tagwire", "publish", "a/b", "1", "--timeout", "10"]
    with start(broker.command) as process:
        process.wait_output(broker.ready_text)
        assert all(broker.hidden_text in line for line in process.output.splitlines())
        with start(publish, clean_environment(MQTT_PORT=port)) as client:
            assert client.wait(20) == 0, client.output + process.output


def test_amqtt_takes_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "find_nats_server", lambda: None)
    with pytest.raises(ConfigError, match="MQTT_USERNAME"):
        prepare_broker(BrokerSettings(tmp_path, username="op", password="x"))


def test_broker_survives_a_kill(nats: Broker) -> None:
    assert accepts(nats.port)
    nats.kill()
    assert not accepts(nats.port)
    nats.restart()
    assert accepts(nats.port)

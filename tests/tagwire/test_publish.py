"""`tagwire publish` to real brokers, read by a subscriber that we did not write."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.brokers import Broker, start_mosquitto, start_nats
from tests.support.processes import Process, clean_environment, free_port, start
from tests.support.programs import need


@pytest.fixture(params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest) -> Broker:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Broker)
    return found


def publish(port: int, *arguments: str, **settings: str | int | Path) -> Process:
    command = [sys.executable, "-m", "tagwire", "publish", *arguments]
    with start(command, clean_environment(MQTT_PORT=port, **settings)) as process:
        process.wait(20)
        return process


def received(port: int, topic: str, *options: str) -> str:
    """What a newcomer gets: the retained message."""
    command = [need("mosquitto_sub"), "-p", str(port), "-t", topic, "-C", "1", "-W", "10", "-N", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=15).stdout


def test_a_retained_message_arrives_byte_for_byte(broker: Broker) -> None:
    process = publish(broker.port, "plant/boiler", '{"temperature": 71.5, "unit": "°C"}', "--retain")
    assert process.popen.returncode == 0, process.output
    assert process.output == ""
    assert received(broker.port, "plant/boiler") == '{"temperature": 71.5, "unit": "°C"}'


def test_an_acknowledged_message_waits_for_a_session(broker: Broker) -> None:
    session = [need("mosquitto_sub"), "-p", str(broker.port), "-t", "plant/#", "-q", "1", "-i", "reader", "-c"]
    subprocess.run([*session, "-E"], check=True, timeout=15)
    assert publish(broker.port, "plant/boiler", "not JSON, sent as it is").popen.returncode == 0
    found = subprocess.run([*session, "-C", "1", "-W", "10"], capture_output=True, text=True, timeout=15, check=True)
    assert found.stdout == "not JSON, sent as it is\n"


def test_the_payload_can_come_from_the_standard_input(mosquitto: Broker) -> None:
    command = [sys.executable, "-m", "tagwire", "publish", "a/b", "-", "--retain"]
    env = clean_environment(MQTT_PORT=mosquitto.port)
    subprocess.run(command, input=b"\x00\xff", env=env, check=True, timeout=20)
    assert received(mosquitto.port, "a/b", "-F", "%x") == "00ff"


def test_no_broker_is_exit_code_1_and_one_line() -> None:
    process = publish(free_port(), "a", "1", "--timeout", "2")
    assert process.popen.returncode == 1
    assert process.output.startswith("Error: broker 127.0.0.1:")
    assert process.output.count("\n") == 1


@contextmanager
def closed_broker(kind: str, folder: Path) -> Iterator[Broker]:
    """A broker that lets nobody in but `keeper`."""
    if kind == "nats":
        with start_nats(folder, username="keeper", password="of-the-keys") as broker:
            yield broker
    else:
        (folder / "passwords").write_text("")
        with start_mosquitto(
            folder / "m", f"listener {{port}} 127.0.0.1\npassword_file {folder}/passwords\n"
        ) as broker:
            yield broker


@pytest.mark.parametrize(("kind", "protocol"), [("mosquitto", "3.1.1"), ("mosquitto", "5"), ("nats", "3.1.1")])
def test_a_wrong_password_ends_at_once_with_the_brokers_reason(kind: str, protocol: str, tmp_path: Path) -> None:
    settings = {"MQTT_USERNAME": "op", "MQTT_PASSWORD": "hunter2", "MQTT_PROTOCOL": protocol}
    with closed_broker(kind, tmp_path) as broker:
        # `publish` below gives it 20 s: far less than it may wait for a broker that does not answer.
        process = publish(broker.port, "a", "1", "--timeout", "60", **settings)
    assert process.popen.returncode == 1
    assert "hunter2" not in process.output
    assert process.output == f"Error: broker 127.0.0.1:{broker.port}: the broker says: Not authorized\n"


@pytest.mark.parametrize("topic", ["", "a/+", "a/#", "$SYS/x", "x" * 65_536])
def test_a_topic_that_nobody_may_publish_to_is_refused(topic: str) -> None:
    process = publish(free_port(), topic, "1")
    assert process.popen.returncode == 2
    assert "TOPIC" in process.output

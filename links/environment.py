"""Settings from the environment and `.env`: the reader, its faults, and the settings that several programs share.

The process environment wins over the nearest `.env`, looked for from the current folder upwards. A program reads its
settings with `open_environment`, then calls `seal`, which lists every fault at once; nothing is clamped or guessed.
"""

import functools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from dotenv import find_dotenv
from dotenv.parser import parse_stream
from environs import Env
from environs import validate as check

from scada.errors import ConfigError, Fault
from scada.topics import check_topic_name

CHECKOUT = Path(__file__).resolve().parent.parent
EXIT_CONFIG = 2
PORT = check.Range(min=1, max=65535)
_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|_URI$|_KEY$")
_DATABASE_URI = re.compile(r"[a-z][a-z0-9]*(\+[a-z0-9_]+)?://.*", re.DOTALL)
_RELATIVE_SQLITE = re.compile(r"(sqlite(?:\+[a-z0-9_]+)?:///)(?!/|:memory:|file:)(.+)", re.DOTALL)

P = ParamSpec("P")
R = TypeVar("R")


class Environment(Env):
    """environs' reader that collects faults instead of raising, and takes faults that concern several settings."""

    def __init__(self) -> None:
        super().__init__(eager=False)

    def fault(self, name: str, message: str) -> None:
        """Note one more fault; `seal` lists it with the others."""
        self._errors[name].append(message)

    def raw(self, name: str) -> str | None:
        """The text of a setting as the operator wrote it, None where it is not set."""
        value = self._get_value(name, None)
        return value if isinstance(value, str) else None

    def faults(self) -> tuple[Fault, ...]:
        """Every fault so far. The value is quoted, but never a secret's."""
        return tuple(
            Fault(name, f"{message[:1].lower()}{message[1:].rstrip('.')}{self._quoted(name)}")
            for name, messages in self._errors.items()
            for message in messages
        )

    def _quoted(self, name: str) -> str:
        value = self.raw(name)
        return "" if value is None or _SECRET.search(name) else f" (it is {value[:80]!r})"


def open_environment() -> Environment:
    """The process environment over the nearest `.env`.

    Raises ConfigError when there is a `.env` that cannot be read or understood.
    """
    env = Environment()
    path = find_dotenv(usecwd=True)
    if not path:
        return env
    try:
        with open(path, encoding="utf-8") as stream:
            broken = [binding.original.line for binding in parse_stream(stream) if binding.error]
        env.read_env(path, recurse=False)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError([Fault(path, f"cannot be read: {exc}")]) from exc
    if broken:
        raise ConfigError([Fault(path, f"line {line} is not NAME=value") for line in broken])
    return env


def seal(env: Environment) -> None:
    """Raise ConfigError with every fault found while the settings were read."""
    faults = env.faults()
    if faults:
        raise ConfigError(faults)


def exit_on_config_error(main: Callable[P, R]) -> Callable[P, R]:
    """Wrap a program's `main`: a ConfigError becomes one message that names every fault, and exit code 2."""

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except ConfigError as exc:
            print("\n".join(["Cannot start:", *(f"  {fault}" for fault in exc.faults)]), file=sys.stderr, flush=True)
            raise SystemExit(EXIT_CONFIG) from None

    return wrapped


def read_data_dir(env: Environment) -> Path:
    """TAGWIRE_DATA_DIR, by default `data`. A relative path starts at the checkout, whatever the current folder."""
    text = env.str("TAGWIRE_DATA_DIR", "data", validate=check.Length(min=1, error="must not be empty"))
    return CHECKOUT / Path(text or "data").expanduser()


def read_database_uri(env: Environment) -> str:
    """SQLALCHEMY_DATABASE_URI, by default SQLite in `flask_app/instance/`.

    A relative SQLite path starts at that folder, as flask-sqlalchemy has it.
    """
    uri = env.str("SQLALCHEMY_DATABASE_URI", "sqlite:///db.sqlite")
    if uri is None or not _DATABASE_URI.fullmatch(uri):
        env.fault("SQLALCHEMY_DATABASE_URI", "must be a SQLAlchemy URL such as sqlite:///db.sqlite")
        return ""
    relative = _RELATIVE_SQLITE.fullmatch(uri)
    return f"{relative[1]}{CHECKOUT}/flask_app/instance/{relative[2]}" if relative else uri


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """How to reach the broker. `protocol` is "3.1.1" or "5"; the TLS files are None where the operator named none."""

    host: str = "127.0.0.1"
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    protocol: str = "3.1.1"
    tls: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = field(default=None, repr=False)
    keepalive_s: int = 20
    client_id_prefix: str = "tagwire"


def read_mqtt(env: Environment) -> MqttSettings:
    """The MQTT_... settings; faults are left in `env` for `seal`."""
    settings = MqttSettings(
        host=env.str(
            "MQTT_HOST", "127.0.0.1", validate=check.Regexp(r"\S+$", error="must be a host name or an address")
        ),
        port=env.int("MQTT_PORT", 1883, validate=PORT),
        username=env.str("MQTT_USERNAME", "") or None,
        password=env.str("MQTT_PASSWORD", "") or None,
        protocol=env.str("MQTT_PROTOCOL", "3.1.1", validate=check.OneOf(("3.1.1", "5"))),
        tls=env.bool("MQTT_TLS", False),
        tls_ca=_readable_file(env, "MQTT_TLS_CA"),
        tls_cert=_readable_file(env, "MQTT_TLS_CERT"),
        tls_key=_readable_file(env, "MQTT_TLS_KEY"),
        # MQTT 3.1.1 section 3.1.2.10: two bytes; 0 switches the keepalive off, and a dead link would never be found.
        keepalive_s=env.int("MQTT_KEEPALIVE_S", 20, validate=check.Range(min=1, max=65535)),
        # The embedded broker takes no dot in a client id.
        client_id_prefix=env.str(
            "MQTT_CLIENT_ID_PREFIX",
            "tagwire",
            validate=check.Regexp(r"[A-Za-z0-9_-]{1,32}$", error="must be 1 to 32 letters, digits, - or _"),
        ),
    )
    if settings.password and not settings.username:
        env.fault("MQTT_PASSWORD", "needs MQTT_USERNAME as well")
    if settings.tls_cert and not settings.tls_key:
        env.fault("MQTT_TLS_CERT", "needs MQTT_TLS_KEY as well")
    if settings.tls_key and not settings.tls_cert:
        env.fault("MQTT_TLS_KEY", "needs MQTT_TLS_CERT as well")
    for name in ("MQTT_TLS_CA", "MQTT_TLS_CERT", "MQTT_TLS_KEY"):
        if env.raw(name) and settings.tls is False:
            env.fault(name, "needs MQTT_TLS=true as well")
    return settings


@dataclass(frozen=True, slots=True)
class BusSettings:
    """`root`: the first level or levels of the topics; `buffer_rows`: how many samples a program's buffer on disk holds."""

    root: str = "tagwire"
    buffer_rows: int = 1_000_000


def read_bus(env: Environment) -> BusSettings:
    """The TAGWIRE_BUS_... settings; faults are left in `env` for `seal`."""
    root = env.str("TAGWIRE_BUS_ROOT", "tagwire") or ""
    try:
        check_topic_name(root)
    except ConfigError as exc:
        for fault in exc.faults:
            env.fault("TAGWIRE_BUS_ROOT", fault.message)
    rows = env.int("TAGWIRE_BUS_BUFFER_ROWS", 1_000_000, validate=check.Range(min=1000, max=100_000_000))
    return BusSettings(root, rows)


@dataclass(frozen=True, slots=True)
class OwnerSettings:
    """What a program is told that owns devices. `name` is its own on the bus, `data_dir` where its files stand."""

    name: str
    mqtt: MqttSettings
    bus: BusSettings
    database_uri: str
    data_dir: Path

    @property
    def buffer_path(self) -> Path:
        """Where samples wait while the broker is away."""
        return self.data_dir / f"bus-{self.name}.sqlite"


def read_owner(env: Environment, name: str) -> OwnerSettings:
    """The settings of the owner `name`; faults are left in `env` for `seal`."""
    return OwnerSettings(name, read_mqtt(env), read_bus(env), read_database_uri(env), read_data_dir(env))


def _readable_file(env: Environment, name: str) -> Path | None:
    text: Any = env.str(name, "")
    if not text:
        return None
    path = Path(text).expanduser()
    try:
        with path.open("rb"):
            return path
    except OSError as exc:
        env.fault(name, f"cannot be read: {exc.strerror}")
        return None

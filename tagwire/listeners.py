"""Where our programs will listen, as their settings say it, and whether they can."""

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from environs import validate as check

from links.environment import PORT, Environment, MqttSettings, open_environment
from scada.errors import ConfigError, Fault
from scada.modbus.limits import TLS_PORT

BROKER = "broker"
REST_SETTING = "FLASK_APP_PORT"
MODBUS_SETTING = "MODBUS_SERVER_PORT"
TLS_SETTING = "MODBUS_SERVER_TLS_PORT"
BROKER_SETTING = "MQTT_PORT"


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a program will listen, and the setting that says so."""

    program: str
    host: str
    port: int
    setting: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_rest(env: Environment) -> Listener:
    """The REST application's. Faults stay in `env`, here and below."""
    return Listener("flask_app", _host(env, "FLASK_APP_HOST"), env.int(REST_SETTING, 5000, validate=PORT), REST_SETTING)


def read_modbus(env: Environment) -> Listener:
    """The Modbus server's."""
    port = env.int(MODBUS_SETTING, 8502, validate=PORT)
    return Listener("modbus_server", _host(env, "MODBUS_SERVER_HOST"), port, MODBUS_SETTING)


def read_modbus_tls(env: Environment, host: str) -> Listener | None:
    """The Modbus server's for TLS, None where that is off."""
    port = env.int(TLS_SETTING, TLS_PORT, validate=PORT)
    return Listener("modbus_server", host, port, TLS_SETTING) if env.bool("MODBUS_SERVER_TLS", False) else None


def read_broker_listener(env: Environment, port: int) -> Listener | None:
    """The embedded broker's, None where MQTT_HOST names another."""
    if env.raw("MQTT_HOST") is not None:
        return None
    return Listener(BROKER, _host(env, "TAGWIRE_BROKER_HOST"), port, BROKER_SETTING)


def sound_listeners() -> list[Listener]:
    """Those whose own settings are right, whatever is wrong with others."""

    def modbus_tls(env: Environment) -> Listener | None:
        return read_modbus_tls(env, _host(env, "MODBUS_SERVER_HOST"))

    def broker(env: Environment) -> Listener | None:
        return read_broker_listener(env, env.int(BROKER_SETTING, MqttSettings().port, validate=PORT))

    found = []
    for read in (read_rest, read_modbus, modbus_tls, broker):
        listener = read(env := open_environment())
        if listener is not None and not env.faults():
            found.append(listener)
    return found


def check_ports(listeners: Sequence[Listener]) -> None:
    """Raise ConfigError that names every address that cannot be listened on."""
    faults = []
    for listener in listeners:
        family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                # As the programs do: a port whose last connections linger in TIME_WAIT is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((listener.host, listener.port))
                probe.listen(1)
        except OSError as exc:
            reason = "is in use" if exc.errno == errno.EADDRINUSE else f"cannot be listened on: {exc.strerror or exc}"
            faults.append(Fault(listener.setting, f"{listener} (for {listener.program}) {reason}"))
    both: dict[int, str] = {}
    for listener in listeners:
        other = both.setdefault(listener.port, listener.setting)
        if other != listener.setting:
            faults.append(Fault(listener.setting, f"is {listener.port} as {other} is"))
    if faults:
        raise ConfigError(faults)


def _host(env: Environment, name: str) -> str:
    host: str = env.str(name, "127.0.0.1", validate=check.Length(min=1, error="must not be empty"))
    return host

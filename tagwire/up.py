"""`tagwire up`: which programs run, with which settings, and where everything listens."""

import asyncio
import errno
import io
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from environs import validate as check

from links.environment import (
    CHECKOUT,
    EXIT_CONFIG,
    PORT,
    Environment,
    MqttSettings,
    open_environment,
    read_data_dir,
    read_database_uri,
    read_mqtt,
    seal,
)
from links.lock import hold_lock
from links.notify import notify_ready, notify_stopping
from scada.errors import ConfigError, Fault
from tagwire.broker import BrokerSettings, prepare_broker, read_broker
from tagwire.children import Program
from tagwire.log import Log
from tagwire.supervisor import Supervisor

BROKER = "broker"
DEMO = "demo"
PROGRAMS = ("flask_app", "modbus_server", "mqtt_server", "field_server")
_NEED_BROKER = {BROKER, DEMO, "mqtt_server", "field_server"}


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a program will listen, and the setting that says so."""

    program: str
    host: str
    port: int
    setting: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UpSettings:
    """What `tagwire up` needs to know itself. `broker` is None where MQTT_HOST names another one."""

    data_dir: Path
    database_uri: str
    mqtt: MqttSettings
    broker: BrokerSettings | None
    listeners: tuple[Listener, ...]

    @classmethod
    def from_env(cls, env: Environment) -> "UpSettings":
        """Read and check every setting; raises ConfigError with all faults."""
        data_dir = read_data_dir(env)
        mqtt = read_mqtt(env)
        listeners = [
            Listener(
                name,
                env.str(f"{name.upper()}_HOST", "127.0.0.1", validate=check.Length(min=1, error="must not be empty")),
                env.int(f"{name.upper()}_PORT", port, validate=PORT),
                f"{name.upper()}_PORT",
            )
            for name, port in (("flask_app", 5000), ("modbus_server", 8502))
        ]
        broker = None
        if env.raw("MQTT_HOST") is None:
            host = env.str("TAGWIRE_BROKER_HOST", "127.0.0.1", validate=check.Length(min=1, error="must not be empty"))
            broker = read_broker(env, data_dir / "broker", host, mqtt.port)
            if mqtt.tls:
                env.fault("MQTT_TLS", "the embedded broker has no TLS: name a broker of your own in MQTT_HOST")
            if mqtt.protocol == "5":
                env.fault("MQTT_PROTOCOL", "the embedded broker speaks 3.1.1: name a broker of your own in MQTT_HOST")
            listeners.append(Listener(BROKER, host, mqtt.port, "MQTT_PORT"))
        settings = cls(data_dir, read_database_uri(env), mqtt, broker, tuple(listeners))
        seal(env)
        return settings


def choose(only: str | None, demo: bool, own_broker: bool) -> tuple[str, ...]:
    """The names of what to start, in the order of their logs' colours. Raises ConfigError for a name that does not exist."""
    known = (BROKER, *PROGRAMS, DEMO)
    chosen = {name.strip() for name in only.split(",")} if only is not None else set(PROGRAMS)
    if demo:
        chosen.add(DEMO)
    unknown = sorted(chosen - set(known))
    if unknown:
        raise ConfigError(
            [Fault("--only", f"there is no program {name!r}; there are {', '.join(known)}") for name in unknown]
        )
    if own_broker and chosen & _NEED_BROKER:
        chosen.add(BROKER)
    elif not own_broker:
        chosen.discard(BROKER)
    return tuple(name for name in known if name in chosen)


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


def plan(settings: UpSettings, names: Sequence[str]) -> list[Program]:
    """The programs to run, with what they must be told beside their own settings. Writes the broker's configuration."""
    env = {
        "TAGWIRE_DATA_DIR": str(settings.data_dir),
        # So that `python -m NAME` finds our packages whatever the current folder, installed or not.
        "PYTHONPATH": str(CHECKOUT),
    }
    if settings.broker is not None:
        env["MQTT_HOST"] = _reachable(settings.broker.host)
    programs = []
    for name in names:
        if name == BROKER:
            assert settings.broker is not None
            broker = prepare_broker(settings.broker)
            programs.append(
                Program(
                    name,
                    broker.command,
                    ready_text=broker.ready_text,
                    hidden_text=broker.hidden_text,
                    ends_last=True,
                )
            )
        elif name == DEMO:
            programs.append(Program(name, (sys.executable, "-m", "tagwire", "demo"), env))
        else:
            programs.append(Program(name, (sys.executable, "-m", name), env))
    return programs


def run_up(only: str | None, demo: bool) -> int:
    """Start everything and keep it running until a signal. Raises ConfigError; returns the exit code."""
    settings = UpSettings.from_env(open_environment())
    names = choose(only, demo, settings.broker is not None)
    with hold_lock(settings.data_dir / "up.lock", "tagwire up"):
        check_ports([each for each in settings.listeners if each.program in names])
        return asyncio.run(_run(settings, plan(settings, names)))


async def _run(settings: UpSettings, programs: Sequence[Program]) -> int:
    loop = asyncio.get_running_loop()
    names = [program.name for program in programs]
    log = Log(sys.stdout, names, on_closed=lambda: supervisor.stop())

    def ready() -> None:
        log.print(ready_table(settings, names, sys.stdout.isatty()))
        notify_ready(f"running {', '.join(names)}")

    def stop() -> None:
        log.say("tagwire", "stopping; Ctrl-C again to hurry")
        notify_stopping()
        supervisor.stop()

    supervisor = Supervisor(programs, log.say, ready)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    code = await supervisor.run()
    for name, lines in supervisor.refusals.items():
        print("\n".join([f"{name} ended with exit code {EXIT_CONFIG}:", *lines]), file=sys.stderr)
    return code


def ready_table(settings: UpSettings, names: Sequence[str], terminal: bool) -> str:
    """Where everything listens, and how to stop it, as text."""
    # Not at the top: it takes 50 ms, which the programs can use to start.
    from rich.console import Console
    from rich.table import Table

    at = {listener.program: listener for listener in settings.listeners}
    rows: list[tuple[str, str]] = []
    if "flask_app" in names:
        flask_app = at["flask_app"]
        url = f"http://{_bracketed(_reachable(flask_app.host))}:{flask_app.port}"
        rows += [("REST API", f"{url}/api/v1"), ("API reference, try it out", f"{url}/docs/")]
    if "modbus_server" in names:
        rows.append(("Modbus TCP", str(at["modbus_server"])))
    if BROKER in names:
        rows.append(("MQTT broker (embedded)", str(at[BROKER])))
    elif settings.broker is None:
        rows.append(("MQTT broker (yours)", f"{settings.mqtt.host}:{settings.mqtt.port}"))
    if {"flask_app", "mqtt_server", "field_server"} & set(names):
        rows.append(("Database", _without_password(settings.database_uri)))
    rows.append(("Data", str(settings.data_dir)))
    if DEMO in names:
        rows.append(("Demo fleet", "20 devices, topics demo/..., registers from 1000"))
    rows.append(("Stop", "Ctrl-C"))
    table = Table("Tagwire is ready", "", title=None, header_style="bold green")
    for row in rows:
        table.add_row(*row)
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=None if terminal else 120, soft_wrap=True)
    console.print(table)
    return out.getvalue().rstrip()


def _without_password(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if "@" in rest else uri


def _reachable(host: str) -> str:
    """An address that means "everywhere" when it is listened on, as one to connect to."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

"""`tagwire up`: which programs run, with which settings, and where everything listens."""

import asyncio
import io
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from links.environment import (
    CHECKOUT,
    EXIT_CONFIG,
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
from tagwire.listeners import (
    BROKER,
    BROKER_SETTING,
    MODBUS_SETTING,
    REST_SETTING,
    TLS_SETTING,
    Listener,
    check_ports,
    read_broker_listener,
    read_modbus,
    read_modbus_tls,
    read_rest,
    sound_listeners,
)
from tagwire.log import Log
from tagwire.program_settings import setting_faults_of
from tagwire.supervisor import Supervisor

DEMO = "demo"
PROGRAMS = ("flask_app", "modbus_server", "mqtt_server", "field_server")
_NEED_BROKER = {BROKER, DEMO, "mqtt_server", "field_server"}


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
        modbus = read_modbus(env)
        broker = None
        own = read_broker_listener(env, mqtt.port)
        if own is not None:
            broker = read_broker(env, data_dir / "broker", own.host, own.port)
            if mqtt.tls:
                env.fault("MQTT_TLS", "the embedded broker has no TLS: name a broker of your own in MQTT_HOST")
            if mqtt.protocol == "5":
                env.fault("MQTT_PROTOCOL", "the embedded broker speaks 3.1.1: name a broker of your own in MQTT_HOST")
        every = (read_rest(env), modbus, read_modbus_tls(env, modbus.host), own)
        listeners = [each for each in every if each is not None]
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
    with ExitStack() as held:
        settings, programs = _checked(only, demo, held)
        return asyncio.run(_run(settings, programs))


@dataclass(slots=True)
class _Faults:
    """What is wrong, from several readers. Of a setting that several of them read, the first one's word counts."""

    found: list[Fault] = field(default_factory=list)

    def add(self, faults: Iterable[Fault]) -> None:
        named = {fault.field for fault in self.found if fault.field}
        self.found += [fault for fault in faults if fault.field not in named]

    @contextmanager
    def gathered(self) -> Iterator[None]:
        try:
            yield
        except ConfigError as exc:
            self.add(exc.faults)


def _checked(only: str | None, demo: bool, held: ExitStack) -> tuple[UpSettings, list[Program]]:
    """Everything that can be known to be wrong before anything is started, in one ConfigError; else what to run.

    `held` gets the lock that keeps a second `tagwire up` from the same data.
    """
    env = open_environment()
    faults = _Faults()
    names: tuple[str, ...] = ()
    with faults.gathered():
        names = choose(only, demo, env.raw("MQTT_HOST") is None)
    for each in setting_faults_of([name for name in PROGRAMS if name in names]).values():
        faults.add(each)
    settings = None
    with faults.gathered():
        settings = UpSettings.from_env(env)
    with faults.gathered():
        held.enter_context(hold_lock(read_data_dir(open_environment()) / "up.lock", "tagwire up"))
        # Only now: where another one runs, the ports are in use by its programs.
        with faults.gathered():
            check_ports([each for each in sound_listeners() if each.program in names])
        if settings is not None:
            programs = plan(settings, names)
    if faults.found:
        raise ConfigError(faults.found)
    assert settings is not None
    return settings, programs


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

    at = {listener.setting: listener for listener in settings.listeners}
    rows: list[tuple[str, str]] = []
    if "flask_app" in names:
        rest = at[REST_SETTING]
        url = f"http://{_bracketed(_reachable(rest.host))}:{rest.port}"
        rows += [("REST API", f"{url}/api/v1"), ("API reference, try it out", f"{url}/docs/")]
    if "modbus_server" in names:
        rows.append(("Modbus TCP", str(at[MODBUS_SETTING])))
        if TLS_SETTING in at:
            rows.append(("Modbus TCP with TLS", str(at[TLS_SETTING])))
    if BROKER in names:
        rows.append(("MQTT broker (embedded)", str(at[BROKER_SETTING])))
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
    console = Console(file=out, force_terminal=terminal, width=None if terminal else 200, soft_wrap=True)
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

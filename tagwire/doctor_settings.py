"""The doctor on settings: every program's, all faults; and what of them the other checks can go on with."""

import asyncio
import json
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from environs import validate as check

from links.environment import (
    CHECKOUT,
    PORT,
    BusSettings,
    Environment,
    MqttSettings,
    open_environment,
    read_bus,
    read_data_dir,
    read_database_uri,
    read_mqtt,
)
from scada.errors import ConfigError, Fault
from tagwire.doctor_findings import Finding, fault, ok, setting_faults, warning
from tagwire.up import PROGRAMS, Listener, UpSettings

_READ_S = 20.0
_LEAST_BYTES = 50 * 1024 * 1024
_FEW_BYTES = 1024 * 1024 * 1024
# Programs do not import one another, and neither do we: each one's settings are read by itself, in a process of its own.
_READ = """
import json, sys
from importlib import import_module
from scada.errors import ConfigError
found = {}
for name in sys.argv[1:]:
    module = import_module(name + ".settings")
    try:
        (getattr(module, "from_env", None) or module.Settings.from_env)()
    except ConfigError as exc:
        found[name] = [[fault.field, fault.message] for fault in exc.faults]
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Known:
    """What can be used; None where its settings are wrong."""

    mqtt: MqttSettings | None
    bus: BusSettings | None
    database_uri: str | None
    data_dir: Path | None
    listeners: tuple[Listener, ...]


def read_known() -> Known:
    """Each group of settings by itself, so that a fault in one does not hide the others. Raises ConfigError for `.env`."""

    def clean(env: Environment) -> bool:
        return not env.faults()

    mqtt = read_mqtt(env := open_environment())
    known_mqtt = mqtt if clean(env) else None
    bus = read_bus(env := open_environment())
    known_bus = bus if clean(env) else None
    uri = read_database_uri(env := open_environment())
    known_uri = uri if clean(env) else None
    folder = read_data_dir(env := open_environment())
    known_folder = folder if clean(env) else None
    listeners = []
    for name, port in (("flask_app", 5000), ("modbus_server", 8502)):
        env = open_environment()
        host = env.str(f"{name.upper()}_HOST", "127.0.0.1", validate=check.Length(min=1))
        number = env.int(f"{name.upper()}_PORT", port, validate=PORT)
        if clean(env):
            listeners.append(Listener(name, host, number, f"{name.upper()}_PORT"))
    return Known(known_mqtt, known_bus, known_uri, known_folder, tuple(listeners))


async def check_settings() -> list[Finding]:
    """Every fault of every program's settings, each once."""
    programs: dict[Fault, list[str]] = defaultdict(list)
    try:
        UpSettings.from_env(open_environment())
    except ConfigError as error:
        for each in error.faults:
            programs[each].append("tagwire up")
    for name, faults in (await _read_all()).items():
        for each in faults:
            programs[each].append(name)
    if not programs:
        return [ok("settings", "", f"those of {', '.join(PROGRAMS)} are in order")]
    return [
        Finding(each.level, each.check, each.where, f"{each.message} (for {', '.join(names)})", each.advice)
        for each, names in zip(setting_faults(programs), programs.values(), strict=True)
    ]


async def _read_all() -> Mapping[str, list[Fault]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", _READ, *PROGRAMS),
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_READ_S):
            out, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return {"the programs": [Fault("", f"their settings could not be read within {_READ_S:g} s")]}
    if process.returncode:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        return {"the programs": [Fault("", f"their settings could not be read: {last}")]}
    return {name: [Fault(*each) for each in faults] for name, faults in json.loads(out).items()}


def check_data_dir(folder: Path, least: int = _LEAST_BYTES, few: int = _FEW_BYTES) -> list[Finding]:
    """Whether the data folder can be written, and has room: faults below `least` bytes, warnings below `few`."""
    where = f"TAGWIRE_DATA_DIR {folder}"
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        return [fault("data", where, f"{existing} is no folder", "Name another folder, or move that file away")]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [
            fault("data", where, f"{existing} cannot be written by this user", "Change its owner, or run as its owner")
        ]
    free = shutil.disk_usage(existing).free
    room = f"{free / 1024**2:,.0f} MiB free"
    if free < least:
        return [fault("data", where, f"only {room}", "Make room: registers, buffers and the broker's store need it")]
    if free < few:
        return [warning("data", where, f"only {room}", "Make room soon")]
    return [ok("data", where, f"{room}{'' if folder.exists() else '; it is made at the first start'}")]

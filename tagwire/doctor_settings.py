"""The doctor on settings: every program's, all faults; and what of them the other checks can go on with."""

import asyncio
import os
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from links.environment import (
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
from tagwire.listeners import Listener, read_modbus, read_rest
from tagwire.program_settings import setting_faults_of
from tagwire.up import PROGRAMS, UpSettings

_LEAST_BYTES = 50 * 1024 * 1024
_FEW_BYTES = 1024 * 1024 * 1024


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
    for read in (read_rest, read_modbus):
        listener = read(env := open_environment())
        if clean(env):
            listeners.append(listener)
    return Known(known_mqtt, known_bus, known_uri, known_folder, tuple(listeners))


async def check_settings() -> list[Finding]:
    """Every fault of every program's settings, each once."""
    programs: dict[Fault, list[str]] = defaultdict(list)
    try:
        UpSettings.from_env(open_environment())
    except ConfigError as error:
        for each in error.faults:
            programs[each].append("tagwire up")
    for name, faults in (await asyncio.to_thread(setting_faults_of, PROGRAMS)).items():
        for each in faults:
            programs[each].append(name)
    if not programs:
        return [ok("settings", "", f"those of {', '.join(PROGRAMS)} are in order")]
    return [
        Finding(each.level, each.check, each.where, f"{each.message} (for {', '.join(names)})", each.advice)
        for each, names in zip(setting_faults(programs), programs.values(), strict=True)
    ]


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

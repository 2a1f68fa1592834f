"""`tagwire doctor`: looks at everything that can be wrong, changes nothing, and says in words what is."""

import asyncio
import logging
import sys
import time
from collections.abc import Sequence

import click
from sqlalchemy import Engine

from scada.config import DeviceConfig
from scada.errors import ConfigError, LinkError
from storage.config_reader import ConfigReader
from tagwire.doctor_broker import BusFacts, check_broker
from tagwire.doctor_config import check_config
from tagwire.doctor_database import check_buffers, check_contents, open_checked
from tagwire.doctor_devices import check_devices
from tagwire.doctor_findings import Finding, Level, as_json, as_text, fault, has_faults, setting_faults
from tagwire.doctor_ports import check_port
from tagwire.doctor_programs import check_programs
from tagwire.doctor_settings import Known, check_data_dir, check_settings, read_known
from tagwire.doctor_tags import check_tags

_ORDER = {Level.FAULT: 0, Level.WARNING: 1, Level.OK: 2}


@click.command()
@click.option("--json", "as_document", is_flag=True, help="Print JSON: a list of findings.")
@click.option(
    "--listen",
    "listen_s",
    type=click.FloatRange(0, 60),
    default=3.5,
    show_default=True,
    help="Seconds to listen for programs; each sends a sign of life every 3.",
)
def doctor(as_document: bool, listen_s: float) -> None:
    """Check settings, database, broker, ports, programs, and every device's link.

    It reads only, and can be run beside a running plant. One line a check: ok, warning or FAULT; where, what, and what to
    do. Exit code 0: no faults, 1: faults, 2: wrong usage.
    """
    # What links log is in the findings.
    logging.getLogger("links").addHandler(logging.NullHandler())
    logging.getLogger("links").propagate = False
    findings = asyncio.run(examine(listen_s))
    findings.sort(key=lambda finding: _ORDER[finding.level])
    click.echo(as_json(findings) if as_document else as_text(findings))
    sys.exit(1 if has_faults(findings) else 0)


async def examine(listen_s: float) -> list[Finding]:
    """Every check; those that need what another did not find are left out, since that one has told why."""
    try:
        known = read_known()
    except ConfigError as error:
        return setting_faults(error.faults)
    async with asyncio.TaskGroup() as tasks:
        settings = tasks.create_task(check_settings(), name="settings")
        ports = [tasks.create_task(check_port(each), name=f"port {each}") for each in known.listeners]
        database = tasks.create_task(_check_database(known), name="database")
        broker = tasks.create_task(_check_broker(known, listen_s), name="broker")
    findings = settings.result()
    if known.data_dir is not None:
        findings += check_data_dir(known.data_dir)
        findings += await asyncio.to_thread(check_buffers, known.data_dir)
    devices, found = database.result()
    findings += found
    facts, found = broker.result()
    findings += found
    findings += (port.result() for port in ports)
    if devices is None and facts is None:
        return findings
    found, offline = await check_devices(facts, devices or ())
    findings += found
    if facts is not None:
        findings += check_programs(facts, devices or ())
        findings += check_tags(facts, devices or (), offline)
    return findings


async def _check_database(known: Known) -> tuple[Sequence[DeviceConfig] | None, list[Finding]]:
    if known.database_uri is None:
        return None, []
    engine, findings = await open_checked(known.database_uri)
    if engine is None:
        return None, findings
    try:
        devices, more = await asyncio.to_thread(_read, engine)
        return devices, findings + more
    except LinkError as error:
        return None, [*findings, fault("database", "", str(error))]
    finally:
        engine.dispose()


def _read(engine: Engine) -> tuple[Sequence[DeviceConfig], list[Finding]]:
    devices = ConfigReader(engine).load_devices(-1)
    return devices, check_config(devices) + check_contents(engine, devices, time.time_ns() // 1_000_000)


async def _check_broker(known: Known, listen_s: float) -> tuple[BusFacts | None, list[Finding]]:
    if known.mqtt is None or known.bus is None:
        return None, []
    return await check_broker(known.mqtt, known.bus.root, listen_s)

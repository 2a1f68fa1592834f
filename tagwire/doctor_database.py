"""The doctor on the database: there, whole, of our version, free to be written; and what stands in it that should not wait."""

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine

from scada.config import DeviceConfig
from scada.errors import ConfigError, LinkError, NotFound, TagwireError
from storage.command_store import CommandLog, CommandQuery
from storage.damage import set_aside
from storage.event_store import RejectLog
from storage.inspection import open_for_reading, stored_version, waiting_samples, writer
from storage.location import parse_url, sqlite_path, unwritable
from storage.migrate import HEAD
from storage.outbox import Outbox
from tagwire.doctor_findings import Finding, ago, fault, first_few, ok, warning

CHECK = "database"
LOCKED_S = 2.0
"""Who writes longer than this keeps all others from it; a commit takes milliseconds."""
_LOOK_S = 0.2
LATELY_MS = 600_000
_MANY_WAITING = 10_000


async def open_checked(uri: str) -> tuple[Engine | None, list[Finding]]:
    """The database for reading, when its tables can be read, and what is wrong with it."""
    try:
        path = sqlite_path(parse_url(uri))
        where = str(path) if path else "SQLALCHEMY_DATABASE_URI"
        engine = await asyncio.to_thread(open_for_reading, uri)
    except NotFound:
        return None, [warning(CHECK, where, "does not exist yet", "The first program that starts makes it")]
    except ConfigError as error:
        return None, [fault(CHECK, "SQLALCHEMY_DATABASE_URI", str(error), "See docs/database.md")]
    except LinkError as error:
        return None, [
            fault(CHECK, where, str(error).removeprefix(f"{where}: ").removeprefix(f"{where} "), _advice(error))
        ]
    findings: list[Finding] = []
    usable: Engine | None = engine
    try:
        version = await asyncio.to_thread(stored_version, engine)
    except TagwireError as error:
        usable, version = None, HEAD
        findings.append(fault(CHECK, where, str(error), "Update this program, or name the right database"))
    if version != HEAD:
        usable = None
        found = (
            "has no tables yet" if version is None else f"its tables are of version {version}, the programs need {HEAD}"
        )
        findings.append(warning(CHECK, where, found, "The next program that starts brings it up to date"))
    findings += (
        fault(
            CHECK, str(moved), "was damaged and moved aside; programs wait",
            "Restore the configuration from a backup or an export, then move this file elsewhere",
        )
        for moved in set_aside(engine)
    )  # fmt: skip
    # Whoever asks for the file's locks may not have it open; the next use opens it again.
    engine.dispose()
    if path is not None:
        findings += await _check_file(path)
    return usable, findings or [ok(CHECK, where, f"answers, version {HEAD}")]


async def _check_file(path: Path) -> list[Finding]:
    place = unwritable(path)
    if place is not None:
        return [fault(CHECK, str(path), f"{place} is read-only for this user", "Change its owner, or run as its owner")]
    holders: set[int | None] = set()
    for _ in range(int(LOCKED_S / _LOOK_S)):
        holders.add(await asyncio.to_thread(writer, path))
        if None in holders or len(holders) > 1:
            return []
        await asyncio.sleep(_LOOK_S)
    (holder,) = holders
    message = f"locked: process {holder} ({_command(holder)}) has been writing for {LOCKED_S:g} s, nobody else can"
    return [fault(CHECK, str(path), message, "End that process, or let it finish")]


def _command(pid: int | None) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "of another user, or gone"
    return " ".join(words).strip()[:80]


def _advice(error: LinkError) -> str:
    text = str(error)
    if "damaged" in text:
        return "Start a program: it moves the file aside. Then restore a backup or import an export"
    if "locked" in text:
        return "End the program that holds it"
    if os.geteuid() and "cannot be opened" in text:
        return "Look at the rights of the file and its folder"
    return "See docs/database.md"


def check_contents(engine: Engine, devices: Sequence[DeviceConfig], now_ms: int) -> list[Finding]:
    """What waits in the outbox, and what went wrong lately. Raises LinkError."""
    findings = []
    waiting = Outbox(engine).load() if Outbox(engine).count() else []
    if waiting:
        names = {binding.id: device.name for device in devices for tag in device.tags for binding in tag.bindings}
        counts = Counter(names.get(row.binding_id, "deleted devices") for row in waiting)
        oldest = ago(min(row.time_ms for row in waiting), now_ms)
        of = first_few([f"{count:,} for {name}" for name, count in counts.most_common()])
        make = fault if len(waiting) > _MANY_WAITING else warning
        findings.append(
            make("outbox", "", f"{len(waiting):,} values wait for their devices: {of}; the oldest is {oldest} old",
                 "They are written when the devices answer again")
        )  # fmt: skip
    failed, _ = CommandLog(engine).listing(CommandQuery(filters={"state": "failed"}))
    recent = [step for step in failed if now_ms - step.time_ms < LATELY_MS]
    if recent:
        last = recent[0]
        name = f"{last.device}@{last.tag}" if last.tag else last.device
        message = (
            f"{len(recent)} failed in the last 10 minutes; the last, {ago(last.time_ms, now_ms)} ago: {last.reason}"
        )
        findings.append(warning("commands", name, message, "GET /api/v1/commands shows them all"))
    rows, _ = RejectLog(engine).list(1, 1000)
    rejects = [row for row in rows if now_ms - row["time_ms"] < LATELY_MS]
    if rejects:
        codes = ", ".join(f"{count} {code}" for code, count in Counter(row["code"] for row in rejects).most_common(3))
        last_reject = rejects[0]
        message = (
            f"{len(rejects)} values were rejected in the last 10 minutes ({codes}); the last: {last_reject['reason']}"
        )
        findings.append(warning("rejects", last_reject["topic"], message, "GET /api/v1/rejects shows them all"))
    return findings


def check_buffers(folder: Path) -> list[Finding]:
    """Samples that programs keep for the broker."""
    findings = []
    for path in sorted(folder.glob("bus-*.sqlite")):
        try:
            count = waiting_samples(path)
        except LinkError as error:
            findings.append(fault("buffer", str(path), str(error), "The program moves it aside when it starts"))
            continue
        if count:
            advice = "They are delivered when the program runs and the broker answers; if it does not get less, look at its log"
            findings.append(warning("buffer", str(path), f"{count:,} samples wait for the broker", advice))
    return findings

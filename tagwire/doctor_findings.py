"""What the doctor found: one finding a line, for people or as JSON. Pure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from scada.errors import Fault
from tagwire.console_values import printable


class Level(StrEnum):
    """How bad a finding is. Only a fault makes the exit code 1."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "FAULT"


@dataclass(frozen=True, slots=True)
class Finding:
    """`check`: what was looked at; `where`: the setting, address, device or tag; `advice`: what to do about it."""

    level: Level
    check: str
    where: str
    message: str
    advice: str = ""

    def __str__(self) -> str:
        text = f"{self.level:8} {self.check:10} {self.where}{': ' if self.where else ''}{self.message}"
        return printable(f"{text}. {self.advice}." if self.advice else text)


def ok(check: str, where: str, message: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, check, where, message)


def warning(check: str, where: str, message: str, advice: str = "") -> Finding:
    """Something to know about."""
    return Finding(Level.WARNING, check, where, message, advice)


def fault(check: str, where: str, message: str, advice: str = "") -> Finding:
    """Something is wrong."""
    return Finding(Level.FAULT, check, where, message, advice)


def setting_faults(faults: Iterable[Fault]) -> list[Finding]:
    """Faults of settings."""
    return [fault("settings", each.field, each.message, "See docs/settings.md") for each in faults]


def has_faults(findings: Iterable[Finding]) -> bool:
    """Whether anything is wrong."""
    return any(finding.level is Level.FAULT for finding in findings)


def as_text(findings: Sequence[Finding]) -> str:
    """One line each, and a last one that counts."""
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    last = (
        f"{counts[Level.FAULT]} faults, {counts[Level.WARNING]} warnings, {counts[Level.OK]} checks without a finding"
    )
    return "\n".join([*map(str, findings), last])


def as_json(findings: Sequence[Finding]) -> str:
    """A list of objects, as the dataclass has them; the level of a fault is "fault"."""
    rows = [asdict(finding) | {"level": finding.level.lower()} for finding in findings]
    return json.dumps(rows, ensure_ascii=False, indent=1)


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def ago(then_ms: int, now_ms: int) -> str:
    """How long ago that was, in the unit that fits."""
    seconds = max(0, now_ms - then_ms) // 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"

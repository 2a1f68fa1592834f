"""The systemd units of docs/: accepted by systemd, one per program, and true to the programs' exit codes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import CHECKOUT
from tests.support.programs import lacking

UNITS = sorted((CHECKOUT / "docs/systemd").glob("*.service"))


def test_every_program_has_a_unit() -> None:
    programs = {path.parent.name for path in CHECKOUT.glob("*/__main__.py")} - {"tagwire", "bench"}
    assert {re.sub(r"^tagwire-|\.service$", "", unit.name) for unit in UNITS} == programs


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_wrong_setting_does_not_start_the_program_for_ever(unit: Path) -> None:
    text = unit.read_text()
    assert "Type=notify\n" in text
    assert "Restart=on-failure\n" in text
    assert "RestartPreventExitStatus=2\n" in text


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/tagwire/.venv/bin/python", sys.executable))
    try:
        done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        lacking("systemd-analyze is not installed")
    # Other units of the machine may be at fault: only what concerns ours counts.
    ours = [line for line in done.stderr.splitlines() if unit.name in line]
    assert not ours, ours

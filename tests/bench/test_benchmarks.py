"""That the benchmarks still fit what they measure: ten minutes of measuring are a late moment to notice."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from bench.__main__ import names

PEERS = sorted(path.stem for path in (Path(__file__).parents[2] / "bench" / "peers").glob("*.py"))


def test_there_are_some() -> None:
    assert {"bus", "gateway", "modbus_server", "polling", "rest", "start"} <= set(names())


@pytest.mark.parametrize("name", names())
def test_a_benchmark_finds_what_it_imports(name: str) -> None:
    """One failed after a constant had moved."""
    assert callable(import_module(f"bench.{name}").run)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_finds_what_it_imports(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import bench.peers.{name}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr

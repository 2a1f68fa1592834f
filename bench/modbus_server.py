"""Our Modbus server beside the pymodbus server and a C server on libmodbus: requests per second from one raw-socket client.

All servers run at the same time, and short slices of load go to each in turn, so that whatever else the machine does hits
them alike. Servers and client are bound to one processor: left free, one request at a time ran at 20,000 or at 55,000 a
second, ours and libmodbus's alike, with where the scheduler happened to put the two, which says nothing about a server.
Figures are upper quartiles over the slices, because interference only ever slows. Ours keeps its registers in a file
meanwhile, as it does by default.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.table import Row
from tests.support.processes import clean_environment, free_port, start, start_program

PEERS = Path(__file__).with_name("peers")
OURS = "tagwire"
FACTORS = {"pymodbus": 3.0, "libmodbus": 1.0}
MANY = 1000


def run(quick: bool) -> list[Row]:
    """Rows {"figure", "ours", "peers", "unit", "target", "met"}; `quick` takes fewer and shorter slices."""
    rounds, slice_s = (15, 0.1) if quick else (60, 0.15)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard) if hard > 0 else 4096, hard))
    with tempfile.TemporaryDirectory() as folder, _one_processor(), ExitStack() as stack:
        load = _load_client(Path(folder))
        ports = {OURS: stack.enter_context(_ours(Path(folder))), "pymodbus": stack.enter_context(_pymodbus())}
        libmodbus = _compile(Path(folder), "libmodbus_server", "libmodbus")
        if libmodbus:
            ports["libmodbus"] = stack.enter_context(_peer([libmodbus]))
        rows = [
            _compare(load, ports, clients, kind, rounds, slice_s) for clients in (1, 32) for kind in ("read", "write")
        ]
        rows.append(_many(load, ports[OURS], 1.0 if quick else 3.0))
    return rows


def _compare(
    load: Sequence[str | Path], ports: dict[str, int], clients: int, kind: str, rounds: int, slice_s: float
) -> Row:
    rates: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(rounds):
        for name, port in ports.items():
            requests, seconds, *_ = _load(load, port, clients, slice_s, kind)
            rates[name].append(requests / seconds)
    figures = {name: statistics.quantiles(values, n=4)[2] for name, values in rates.items()}
    ours = figures.pop(OURS)
    return {
        "figure": f"Modbus server, {clients} client{'s' * (clients > 1)}, {kind} 10 registers",
        "ours": ours,
        "peers": figures,
        "unit": "requests/s",
        "target": ", ".join(f">= {FACTORS[name]:g} x {name}" for name in figures),
        "met": all(ours >= FACTORS[name] * rate for name, rate in figures.items()),
    }


def _many(load: Sequence[str | Path], port: int, seconds: float) -> Row:
    requests, elapsed, _, p99_us, answered = _load(load, port, MANY, seconds, "read")
    at = f"{requests / elapsed:,.0f} requests/s, p99 {p99_us / 1000:.0f} ms"
    return {
        "figure": f"Modbus server, open connections served (of {MANY}, at {at})",
        "ours": answered,
        "peers": {},
        "unit": "connections",
        "target": f">= {MANY}",
        "met": answered >= MANY,
    }


def _load(load: Sequence[str | Path], port: int, clients: int, seconds: float, kind: str) -> list[float]:
    command = [*map(str, load), str(port), str(clients), str(seconds), kind, "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    if done.returncode:
        raise RuntimeError(f"load on port {port} failed: {done.stderr.strip()}")
    return [float(field) for field in done.stdout.split()]


def _load_client(folder: Path) -> Sequence[str | Path]:
    compiled = _compile(folder, "modbus_load")
    return [compiled] if compiled else [sys.executable, PEERS / "modbus_load.py"]


def _compile(folder: Path, name: str, library: str | None = None) -> Path | None:
    """A C program of `peers`, None where there is no compiler or not its library."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        return None
    flags: list[str] = []
    if library:
        pkg_config = shutil.which("pkg-config")
        found = pkg_config and subprocess.run(
            [pkg_config, "--cflags", "--libs", library], capture_output=True, text=True, check=False
        )
        if not found or found.returncode:
            return None
        flags = found.stdout.split()
    target = folder / name
    subprocess.run([compiler, "-O2", PEERS / f"{name}.c", "-o", target, *flags], check=True)
    return target


@contextmanager
def _one_processor() -> Iterator[None]:
    """Children inherit it. Where the system has no such thing, nothing happens."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _ours(folder: Path) -> Iterator[int]:
    port = free_port()
    with start_program("modbus_server", TAGWIRE_DATA_DIR=folder, MODBUS_SERVER_PORT=port) as process:
        process.wait_ready()
        yield port


@contextmanager
def _pymodbus() -> Iterator[int]:
    with _peer([sys.executable, PEERS / "pymodbus_server.py"]) as port:
        yield port


@contextmanager
def _peer(command: Sequence[str | Path]) -> Iterator[int]:
    port = free_port()
    with start([*command, str(port)], clean_environment()) as process:
        process.wait_output(str(port))
        yield port


def main() -> None:
    """Print the table."""
    for row in run(quick="--quick" in sys.argv):
        ratios = ", ".join(f"{row['ours'] / rate:.2f} x {name} ({rate:,.0f})" for name, rate in row["peers"].items())
        verdict = "met" if row["met"] else "NOT MET"
        print(f"{row['figure']}: {row['ours']:,.0f} {row['unit']}  {ratios}  target {row['target']}: {verdict}")


if __name__ == "__main__":
    main()

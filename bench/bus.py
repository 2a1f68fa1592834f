"""The bus's speed, from `publish` in one process to a handler in another, beside bare paho with one change a message.

Both run over the same brokers: Mosquitto and the embedded one.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from bench.table import Row
from tests.support.brokers import Broker, start_mosquitto, start_nats
from tests.support.processes import clean_environment

MOSQUITTO = """
listener {port} 127.0.0.1
allow_anonymous true
max_inflight_messages 1000
max_queued_messages 0
"""
MUST_CHANGES = 20_000
MUST_P99_MS = 20.0
RATE = 5_000
TIMEOUT_S = 90


class Result(NamedTuple):
    """Of one run: changes a second, milliseconds from the making to the handler, and how many were lost."""

    rate: float
    p50_ms: float
    p99_ms: float
    lost: int


def measure(broker: Broker, peer: str, count: int, rate: float) -> Result:
    """`peer` is "" for ours and "_paho" for the bare one; `rate` 0 is as fast as it goes."""
    command = [sys.executable, "-m", "bench.peers.bus_ends"]
    arguments = [str(broker.port), str(count), str(rate)]
    with subprocess.Popen(
        [*command, f"subscribe{peer}", *arguments], env=clean_environment(), stdout=subprocess.PIPE, text=True
    ) as subscriber:
        assert subscriber.stdout is not None
        try:
            assert subscriber.stdout.readline() == "ready\n"
            subprocess.run(
                [*command, f"publish{peer}", *arguments], env=clean_environment(), check=True, timeout=TIMEOUT_S
            )
            out, _ = subscriber.communicate(timeout=TIMEOUT_S)
        finally:
            subscriber.kill()
    seconds, p50_ms, p99_ms, _repeats, seen = out.split()
    return Result(count / float(seconds), float(p50_ms), float(p99_ms), count - int(seen))


def run(quick: bool) -> list[Row]:
    """Throughput and latency over both brokers."""
    rows: list[Row] = []
    starts: dict[str, Callable[[Path], AbstractContextManager[Broker]]] = {
        "Mosquitto": lambda folder: start_mosquitto(folder, MOSQUITTO),
        "the embedded broker": start_nats,
    }
    with tempfile.TemporaryDirectory(prefix="tagwire-bench-") as name:
        for broker_name, start in starts.items():
            with start(Path(name) / broker_name.rpartition(" ")[2]) as broker:
                ours = measure(broker, "", 20_000 if quick else 300_000, 0)
                bare = measure(broker, "_paho", 5_000 if quick else 30_000, 0)
                steady = measure(broker, "", RATE if quick else 8 * RATE, RATE)
                steady_bare = measure(broker, "_paho", RATE if quick else 8 * RATE, RATE)
            rows += [
                {
                    "figure": f"bus over {broker_name}: changes end to end, none lost",
                    "ours": ours.rate,
                    "peers": {"bare paho": bare.rate},
                    "unit": "changes/s",
                    "target": f">= {MUST_CHANGES:,}/s",
                    "met": ours.rate >= MUST_CHANGES and ours.lost == 0,
                },
                {
                    "figure": f"bus over {broker_name}: p99 at {RATE:,} changes/s (p50 {steady.p50_ms:.1f} ms)",
                    "ours": steady.p99_ms,
                    "peers": {"bare paho": steady_bare.p99_ms},
                    "unit": "ms",
                    "target": f"<= {MUST_P99_MS:g} ms",
                    "met": steady.p99_ms <= MUST_P99_MS and steady.lost == 0,
                },
            ]
    return rows

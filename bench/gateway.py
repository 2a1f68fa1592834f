"""The gateway's speed against a bare subscriber and against the naive way, with a real Mosquitto and a real Modbus server.

Throughput is measured as a drain: the messages wait in a persistent session at the broker, then the program connects.
So the publisher takes no share of the processors while the clock runs, and every program gets the same messages.
"""

import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from bench.table import Row
from links.loop import collect_rarely
from scada.mapping import compile_device
from storage.config_reader import ConfigReader
from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate
from tests.support.brokers import Broker, start_mosquitto
from tests.support.processes import Process, clean_environment, free_port

DEVICES = 20
WINDOW = 1000


class Bench:
    """A folder with a broker, a Modbus server and a database, and what is started on them."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.folder = folder
        self.broker = broker
        self.modbus_port = free_port()
        self.uri = f"sqlite:///{folder}/bench.sqlite"
        self.engine = open_engine(self.uri)
        migrate(self.engine)
        self.store = ConfigStore(self.engine)

    def environment(self) -> dict[str, str]:
        return clean_environment(
            MQTT_HOST="127.0.0.1",
            MQTT_PORT=self.broker.port,
            SQLALCHEMY_DATABASE_URI=self.uri,
            TAGWIRE_DATA_DIR=self.folder,
            MODBUS_SERVER_PORT=self.modbus_port,
        )

    @contextmanager
    def program(self, name: str) -> Iterator[Process]:
        process = Process([sys.executable, "-m", name], self.environment())
        try:
            yield process.wait_ready()
        finally:
            process.close()

    def configure(self, devices: int = DEVICES, tags: int = 4, ports: list[int] | None = None) -> None:
        """Devices whose first tag `seq` is a running number (uint32), the others floats; registers one after the other."""
        for number in range(devices):
            base = number * 2 * tags % 60_000
            port = self.modbus_port if ports is None else ports[number]
            self.store.create_device(
                {
                    "name": f"d{number}",
                    "network": {"mqtt": {"topic": f"bench/d{number}"}, "modbus": {"host": "127.0.0.1", "port": port}},
                    "tags": [
                        {
                            "name": "seq" if tag == 0 else f"v{tag}",
                            "data_type": "int" if tag == 0 else "float",
                            "bindings": [
                                {
                                    "protocol": "mqtt",
                                    "direction": "in",
                                    "address": {"path": "seq" if tag == 0 else f"v{tag}"},
                                },
                                {
                                    "protocol": "modbus",
                                    "direction": "out",
                                    "address": {
                                        "register": base + 2 * tag,
                                        "type": "uint32" if tag == 0 else "float32",
                                    },
                                },
                            ],
                        }
                        for tag in range(tags)
                    ],
                }
            )

    def publish(self, count: int, rate: float = 0.0, devices: int = DEVICES) -> list[float]:
        """Publish `count` messages round robin, seq counting per device from 1; returns each one's time (monotonic)."""
        client = Client(CallbackAPIVersion.VERSION2)
        client.max_inflight_messages_set(WINDOW)
        acknowledged = 0

        def on_publish(*_: object) -> None:
            nonlocal acknowledged
            acknowledged += 1

        client.on_publish = on_publish
        client.connect("127.0.0.1", self.broker.port)
        # No thread: `publish` sends at once, and acknowledgements are read while waiting for the next message's time.
        times: list[float] = []
        start = time.monotonic()
        for number in range(count):
            due = start + number / rate if rate else 0.0
            while len(times) - acknowledged >= WINDOW or time.monotonic() < due:
                _read_for(client, 0.1 if not rate else min(max(due - time.monotonic(), 0), 0.1))
            seq = number // devices + 1
            payload = b'{"seq": %d, "v1": %d.5, "v2": 21.25, "v3": -4.75}' % (seq, number % 100)
            times.append(time.monotonic())
            client.publish(f"bench/d{number % devices}", payload, 1)
        while acknowledged < count:
            _read_for(client, 1.0)
        client.disconnect()
        return times


def _read_for(client: Client, wait_s: float) -> None:
    """Wait for the broker up to `wait_s`, and read what came."""
    while select.select([client.socket()], [], [], wait_s)[0]:
        client.loop_read()
        wait_s = 0


class Reader:
    """The smallest Modbus client: reads holding registers over a raw socket."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, register: int, count: int) -> bytes:
        self._socket.sendall(struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, register, count))
        data = b""
        while len(data) < 9 + 2 * count:
            data += self._socket.recv(4096)
        return data[9:]

    def number(self, register: int) -> int:
        return int.from_bytes(self.read(register, 2), "big")

    def close(self) -> None:
        self._socket.close()


@contextmanager
def _bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="tagwire-bench-") as name:
        folder = Path(name)
        with start_mosquitto(folder / "mosquitto", MOSQUITTO) as broker:
            bench = Bench(folder, broker)
            try:
                yield bench
            finally:
                bench.engine.dispose()


MOSQUITTO = """
listener {port} 127.0.0.1
allow_anonymous true
max_inflight_messages 1000
max_queued_messages 0
"""


def _throughput(count: int) -> tuple[float, float]:
    """Messages per second of the gateway, and of the bare subscriber, on the same broker and the same messages."""
    with _bench() as bench:
        bench.configure()
        bare_command = [sys.executable, "-m", "bench.peers.bare_subscriber", str(bench.broker.port), "bare"]
        subprocess.run([*bare_command, "0"], env=bench.environment(), check=True, capture_output=True)
        with bench.program("modbus_server"):
            gateway = Process([sys.executable, "-m", "mqtt_server"], bench.environment())
            gateway.wait_ready().wait_output("online (tagwire-mqtt_server)")
            time.sleep(0.3)
            gateway.terminate()
            gateway.close()
            bench.publish(count)
            done = subprocess.run([*bare_command, str(count)], env=bench.environment(), check=True, capture_output=True)
            bare = count / float(done.stdout.split()[-1])
            reader = Reader(bench.modbus_port)
            gateway = Process([sys.executable, "-m", "mqtt_server"], bench.environment())
            try:
                ours = _drained(reader, count)
            finally:
                gateway.close()
                reader.close()
    return ours, bare


def _drained(reader: Reader, count: int) -> float:
    """Messages per second from the first value seen to the last device's last one."""
    last = count // DEVICES
    started = 0.0
    while True:
        data = reader.read(0, 120)
        now = time.perf_counter()
        if not started and any(data):
            started, first = now, int.from_bytes(data[:4], "big")
        if started and int.from_bytes(data[:4], "big") >= last and reader.number((DEVICES - 1) * 8) >= last:
            return (count - first * DEVICES) / (time.perf_counter() - started)
        time.sleep(0.002)


def _naive(count: int) -> float:
    with _bench() as bench:
        bench.configure()
        with bench.program("modbus_server"):
            command = [
                sys.executable,
                "-m",
                "bench.peers.naive_gateway",
                str(bench.broker.port),
                str(bench.modbus_port),
                bench.uri,
                str(count),
            ]
            with subprocess.Popen(command, env=bench.environment(), stdout=subprocess.PIPE, text=True) as naive:
                assert naive.stdout is not None
                assert naive.stdout.readline() == "ready\n"
                bench.publish(count)
                return count / float(naive.stdout.readline())


def _latency(count: int, rate: float) -> tuple[float, float]:
    """p50 and p99 in ms from `publish` to the value being readable at the Modbus server."""
    with _bench() as bench:
        bench.configure()
        with bench.program("modbus_server"), bench.program("mqtt_server") as gateway:
            gateway.wait_output("online (tagwire-mqtt_server)")
            time.sleep(0.3)
            watcher = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "bench.peers.watcher",
                    str(bench.modbus_port),
                    str(DEVICES),
                    str(count // DEVICES),
                ],
                env=bench.environment(),
                stdout=subprocess.PIPE,
                text=True,
            )
            time.sleep(0.3)
            times = bench.publish(count, rate)
            out, _ = watcher.communicate(timeout=30)
    first_seen: dict[tuple[int, int], float] = {}
    for line in out.splitlines():
        device, seq, when = line.split()
        first_seen[int(device), int(seq)] = float(when)
    latencies = []
    for device in range(DEVICES):
        steps = sorted((seq, when) for (d, seq), when in first_seen.items() if d == device)
        previous = 0
        for seq, when in steps:
            latencies += [when - times[(s - 1) * DEVICES + device] for s in range(previous + 1, seq + 1)]
            previous = seq
    latencies.sort()
    return statistics.median(latencies) * 1000, latencies[int(len(latencies) * 0.99)] * 1000


def _others_p99(dead: int, count: int, rate: float, devices: int = 100) -> float:
    """p99 in ms from `publish` to the write's arrival, over the devices that live, while the first `dead` never answer."""
    with _bench() as bench:
        command = [sys.executable, "-m", "bench.peers.device_farm", str(devices), str(dead)]
        with subprocess.Popen(
            command, env=bench.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as farm:
            assert farm.stdout is not None
            bench.configure(devices, 4, [int(port) for port in farm.stdout.readline().split()])
            with bench.program("mqtt_server") as gateway:
                gateway.wait_output("online (tagwire-mqtt_server)")
                time.sleep(0.3)
                times = bench.publish(count, rate, devices)
                time.sleep(1.0)
            output, _ = farm.communicate(timeout=20)
    writes: dict[int, list[tuple[int, float]]] = {}
    for line in output.splitlines():
        device, seq, when = line.split()
        writes.setdefault(int(device), []).append((int(seq), float(when)))
    latencies = []
    for device, steps in writes.items():
        previous = 1  # the first message of a device pays for its connection
        for seq, when in steps:
            latencies += [when - times[(s - 1) * devices + device] for s in range(previous + 1, seq + 1)]
            previous = max(previous, seq)
    latencies.sort()
    return latencies[int(len(latencies) * 0.99)] * 1000


def _compile_s(devices: int, tags: int) -> tuple[float, float]:
    """Seconds to load a configuration from SQLite, and to compile it; with the collector set as the gateway sets it."""
    with _bench() as bench:
        bench.configure(devices, tags)
        reader = ConfigReader(bench.engine)
        collect_rarely()
        start = time.perf_counter()
        configs = reader.load_devices(-1)
        loaded = time.perf_counter()
        plans = [compile_device(config) for config in configs]
        elapsed_s = time.perf_counter() - loaded
        assert sum(len(plan.tags) for plan in plans if plan is not None) == devices * tags
    return loaded - start, elapsed_s


def _memory(devices: int, tags: int) -> float:
    """Resident MB of a gateway in service with this configuration."""
    with _bench() as bench:
        bench.configure(devices, tags)
        with bench.program("mqtt_server") as gateway:
            gateway.wait_output("online (tagwire-mqtt_server)")
            time.sleep(1.0)
            status = Path(f"/proc/{gateway.pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def _row(figure: str, ours: float, unit: str, target: str, met: bool, **peers: float) -> Row:
    return {"figure": f"gateway, {figure}", "ours": ours, "peers": peers, "unit": unit, "target": target, "met": met}


def run(quick: bool) -> list[Row]:
    """The gateway's rows of the table. Where a ratio counts, both sides are measured in turn and their medians compared."""
    repeats = 1 if quick else 3
    drains = [_throughput(10_000 if quick else 60_000) for _ in range(repeats)]
    ours, bare = (statistics.median(each) for each in zip(*drains, strict=True))
    naive = _naive(40 if quick else 150)
    latencies = [_latency(5_000 if quick else 50_000, 5_000) for _ in range(repeats)]
    p50, p99 = (statistics.median(each) for each in zip(*latencies, strict=True))
    devices = 100 if quick else 1000
    memory = _memory(devices, 20)
    load_s, compile_s = _compile_s(devices, 100)
    total_s = load_s + compile_s
    pairs = [(_others_p99(1, 4_000, 400), _others_p99(0, 4_000, 400)) for _ in range(repeats)]
    one_dead, none_dead = (statistics.median(each) for each in zip(*pairs, strict=True))
    met = ours >= 0.5 * bare and ours >= 100 * naive
    peers = {"bare paho subscriber": bare, "naive gateway": naive}
    size = f"{devices:,} devices"
    return [
        _row("QoS 1 messages of 4 tags", ours, "messages/s", ">= 0.5 x bare, >= 100 x naive", met, **peers),
        _row("publish to readable register at 5,000 messages/s, p50", p50, "ms", "<= 3 ms", p50 <= 3),
        _row("publish to readable register at 5,000 messages/s, p99", p99, "ms", "<= 10 ms", p99 <= 10),
        _row(f"memory with {size}, {20 * devices:,} tags", memory, "MB", "<= 150 MB", memory <= 150),
        _row(f"compile the plan of {100 * devices:,} tags", compile_s, "s", "<= 3 s", compile_s <= 3),
        _row(f"load {100 * devices:,} tags from SQLite, compile them", total_s, "s", "<= 3 s", total_s <= 3),
        _row(
            "1 dead device of 100: p99 of the others",
            one_dead,
            "ms",
            "<= 1.1 x",
            one_dead <= 1.1 * none_dead,
            **{"none dead": none_dead},
        ),
    ]


if __name__ == "__main__":
    for row in run(quick="--quick" in sys.argv):
        print(row)

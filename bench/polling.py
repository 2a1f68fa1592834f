"""The field server's speed: many Modbus devices in a process of their own, a real broker, a real subscriber."""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from bench.table import Row
from drivers.contract import Point
from drivers.modbus.driver import DRIVER
from scada.modbus.registers import RegisterType
from scada.protocols.modbus import ModbusAddress, ModbusNetwork, ModbusOptions
from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate
from tests.support.brokers import Broker, start_mosquitto
from tests.support.farm import Farm
from tests.support.processes import Process, clean_environment, free_port

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MOSQUITTO = """
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages 0
"""
PER_BLOCK = 4
"""Floats before each gap of two registers: 20 % of the addresses are gaps."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a run showed. Seconds; memory in MB; `cpu` is the share of one core; `changes` a second as a subscriber saw them."""

    tags_per_s: float
    changes_per_s: float
    cpu: float
    memory_mb: float
    period_p99_s: float
    requests_per_s: float


@contextmanager
def plant(folder: Path, broker: Broker, farm: Farm, tags: int, gaps: bool = True) -> Iterator[Process]:
    """The field server with a tag of type float32 for each value of each device, once a second."""
    uri = f"sqlite:///{folder}/bench.sqlite"
    engine = open_engine(uri)
    migrate(engine)
    store = ConfigStore(engine)
    for number, port in enumerate(farm.ports):
        store.create_device(
            {
                "name": f"plc{number}",
                "network": {"modbus": {"host": "127.0.0.1", "port": port}},
                "tags": [
                    {
                        "name": f"v{tag}",
                        "bindings": [
                            {
                                "protocol": "modbus",
                                "direction": "inout",
                                "period_ms": 1000,
                                "address": {
                                    "register": 2 * (tag + (tag // PER_BLOCK if gaps else 0)),
                                    "type": "float32",
                                },
                            }
                        ],
                    }
                    for tag in range(tags)
                ],
            }
        )
    engine.dispose()
    environment = clean_environment(
        MQTT_HOST="127.0.0.1", MQTT_PORT=broker.port, SQLALCHEMY_DATABASE_URI=uri, TAGWIRE_DATA_DIR=folder
    )
    process = Process([sys.executable, "-m", "field_server"], environment)
    try:
        yield process.wait_ready(60)
    finally:
        process.close()


class Changes:
    """Counts what arrives on the bus, in paho's thread, without looking into it more than it must."""

    def __init__(self, broker: Broker) -> None:
        self.count = 0
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._count
        self._client.connect("127.0.0.1", broker.port)
        self._client.subscribe("tagwire/data/+/+", 0)
        self._client.loop_start()

    def _count(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        self.count += message.payload.count(b'"good"')

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def measure(process: Process, broker: Broker, farm: Farm, tags: int, seconds: float) -> Load:
    """Let it run for `seconds` after it has settled, then end the farm."""
    time.sleep(5)
    changes = Changes(broker)
    time.sleep(1)
    farm.tell("mark")
    begun, cpu, seen = time.monotonic(), cpu_s(process.pid), changes.count
    time.sleep(seconds)
    took, used, told = time.monotonic() - begun, cpu_s(process.pid) - cpu, changes.count - seen
    memory = memory_mb(process.pid)
    counted = farm.close()
    changes.close()
    periods = [after - before for times in counted["reads"][farm.dead :] for before, after in pairwise(times)]
    reads = sum(len(times) for times in counted["reads"])
    p99 = statistics.quantiles(periods, n=100)[98]
    return Load(tags * reads / took, told / took, used / took, memory, p99, counted["requests"] / took)


def cpu_s(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mb(pid: int) -> float:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


def set_latency(folder: Path, broker: Broker, count: int, pause_s: float) -> list[float]:
    """Milliseconds from a POST of a command over REST to its answer with the verdict `verified`."""
    port = free_port()
    environment = clean_environment(
        MQTT_HOST="127.0.0.1",
        MQTT_PORT=broker.port,
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{folder}/bench.sqlite",
        TAGWIRE_DATA_DIR=folder,
        FLASK_APP_PORT=port,
    )
    process = Process([sys.executable, "-m", "flask_app"], environment)
    times = []
    try:
        process.wait_ready(30)
        time.sleep(2)
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        for number in range(count):
            body = json.dumps({"value": 1000.5 + number})
            begun = time.monotonic()
            connection.request(
                "POST", "/api/v1/tags/plc0@v7/commands?wait=5", body, {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            answer = json.loads(response.read())
            times.append(1000 * (time.monotonic() - begun))
            assert (response.status, answer["state"]) == (200, "verified"), answer
            time.sleep(pause_s)
    finally:
        process.close()
    return times


def restart(broker: Broker, farm: Farm) -> tuple[float, float]:
    """All devices restart at once: seconds until the last is good again, and the most connections in one second."""
    online: dict[str, bool] = {}

    def note(_client: Client, _userdata: object, message: MQTTMessage) -> None:
        online[message.topic] = bool(json.loads(message.payload)["online"])

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = note
    client.connect("127.0.0.1", broker.port)
    client.subscribe("tagwire/link/field_server/+", 0)
    client.loop_start()
    time.sleep(1)
    farm.tell("mark")
    farm.tell("restart")
    begun = time.monotonic()
    while sum(online.values()) < len(farm.ports) - farm.dead:
        assert time.monotonic() - begun < 90, f"{sum(online.values())} of {len(farm.ports)} are back"
        time.sleep(0.05)
    took = time.monotonic() - begun
    client.disconnect()
    client.loop_stop()
    connects = farm.close()["connects"]
    most = max(sum(1 for each in connects if at <= each < at + 1) for at in connects)
    return took, float(most)


def run(quick: bool) -> list[Row]:
    """Everything about polling."""
    return [*_hundred_devices(quick), *_contiguous(), *_thousand_devices(quick)]


def _hundred_devices(quick: bool) -> list[Row]:
    devices, tags, seconds = (20, 200, 5) if quick else (100, 1000, 20)
    with tempfile.TemporaryDirectory() as name, start_mosquitto(Path(name) / "broker", MOSQUITTO) as broker:
        farm = Farm(devices, 0)
        with plant(Path(name), broker, farm, tags) as process:
            time.sleep(5)
            times = set_latency(Path(name), broker, 30 if quick else 300, 0.02)
            load = measure(process, broker, farm, tags, seconds)
    title = f"polling {devices} x {tags} floats at 1 s, 20 % gaps"
    wanted = devices * tags
    cuts = statistics.quantiles(times, n=100)
    return [
        _row(f"{title}: read", load.tags_per_s, "tags/s", f">= {wanted:,}", load.tags_per_s >= 0.99 * wanted),
        _row(f"{title}: changes on the bus", load.changes_per_s, "1/s", "all", load.changes_per_s >= 0.98 * wanted),
        _row(f"{title}: field_server", 100 * load.cpu, "% of a core", "<= 60", load.cpu <= 0.6),
        _row(f"{title}: period p99", load.period_p99_s, "s", "<= 1.2", load.period_p99_s <= 1.2),
        _row(f"{title}: memory", load.memory_mb, "MB", "<= 300", load.memory_mb <= 300),
        _row(
            "set over REST to verified, meanwhile: p50",
            cuts[49],
            "ms",
            "<= 20",
            cuts[49] <= 20,
            commercial_as_published=523.0,
        ),
        _row("set over REST to verified, meanwhile: p99", cuts[98], "ms", "<= 60", cuts[98] <= 60),
    ]


def _contiguous() -> list[Row]:
    """Requests for 1,000 contiguous floats, beside one request for each."""
    network = ModbusNetwork(host="127.0.0.1")
    points = [
        Point(number, f"v{number}", 1, network, ModbusAddress(2 * number, type=RegisterType.FLOAT32), ModbusOptions())
        for number in range(1000)
    ]
    requests = len(DRIVER.open(network).plan(points))
    title = "requests a cycle for 1,000 contiguous floats"
    return [_row(title, requests, "", "<= 1/50", requests <= len(points) / 50, one_per_tag=float(len(points)))]


def _thousand_devices(quick: bool) -> list[Row]:
    devices, few, many, seconds = (100, 1, 10, 5) if quick else (1000, 1, 100, 15)
    loads = {}
    rows = []
    for dead in (0, few, many):
        with tempfile.TemporaryDirectory() as name, start_mosquitto(Path(name) / "broker", MOSQUITTO) as broker:
            farm = Farm(devices, dead)
            with plant(Path(name), broker, farm, 10, gaps=False) as process:
                loads[dead] = measure(process, broker, farm, 10, seconds)
    good = loads[0].period_p99_s
    for dead, most in ((few, 1.1), (many, 1.5)):
        ours = loads[dead].period_p99_s
        title = f"{devices} devices of 10 tags, {dead} dead: period p99 of the others"
        rows.append(_row(title, ours, "s", f"<= {most} x", ours <= most * good, none_dead=good))
    with tempfile.TemporaryDirectory() as name, start_mosquitto(Path(name) / "broker", MOSQUITTO) as broker:
        farm = Farm(devices, 0)
        with plant(Path(name), broker, farm, 10, gaps=False):
            time.sleep(5 if quick else 15)
            took, most_connects = restart(broker, farm)
    rows += [
        _row(f"all {devices} devices restart: all good after", took, "s", "<= 30", took <= 30),
        _row(f"all {devices} devices restart: connects", most_connects, "1/s", "<= 100", most_connects <= 100),
    ]
    return rows


def _row(figure: str, ours: float, unit: str, target: str, met: bool, **peers: float) -> Row:
    return {"figure": figure, "ours": ours, "peers": peers, "unit": unit, "target": target, "met": met}

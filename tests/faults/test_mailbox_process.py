"""Row P1 of the mailbox: what a client was answered is told on the bus, whenever the Modbus server is killed."""

import random
import threading
import time
from pathlib import Path

import pytest
from pyModbusTCP.client import ModbusClient

from tests.support.brokers import Broker
from tests.support.mailbox import BusEar, MailboxPlant, bus_ear, mailbox_plant, register_tag, told
from tests.support.processes import wait_until
from tests.support.soak import rounds

pytestmark = pytest.mark.system


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Broker:
    return request.getfixturevalue(request.param)


class Writer:
    """A client that writes a running number into two registers, in a thread, one request after the other, until `close`."""

    def __init__(self, port: int, register: int) -> None:
        self.sent = 0
        self.answered: list[int] = []
        self._client = ModbusClient("127.0.0.1", port, timeout=2, auto_open=True)
        self._register = register
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(10)
        self._client.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.sent += 1
            if self._client.write_multiple_registers(self._register, [self.sent >> 16, self.sent & 0xFFFF]):
                self.answered.append(self.sent)
            time.sleep(0.002)


@pytest.mark.parametrize("broker", ["mosquitto", "nats"], indirect=True)
def test_p1_killed_at_random_during_numbered_writes(broker: Broker, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with mailbox_plant(tmp_path, broker) as plant, bus_ear(broker) as ear:
        plant.device("press", [register_tag("count", 100, type="uint32", data_type="int")])
        with plant.server():
            told(ear, "press", "count", 0, "uncertain")
        writer = Writer(plant.port, 100)
        try:
            for _ in range(rounds(3, 30)):
                with plant.server() as server:
                    if rng.random() < 0.8:
                        server.wait_output("1 tags from registers")
                    time.sleep(rng.uniform(0.0, 1.5))
                    server.kill()
        finally:
            writer.close()
        judge(plant, ear, writer)


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_p1_killed_while_the_broker_is_away(broker: Broker, tmp_path: Path) -> None:
    """Some of it stands in the bus's buffer then, the last in the journal, and nothing anywhere else."""
    with mailbox_plant(tmp_path, broker) as plant, bus_ear(broker) as ear:
        plant.device("press", [register_tag("count", 100, type="uint32", data_type="int")])
        with plant.server():
            told(ear, "press", "count", 0, "uncertain")
        time.sleep(1.5)  # until the broker has the subscription on its disk
        broker.kill()
        writer = Writer(plant.port, 100)
        try:
            for _ in range(2):
                with plant.server() as server:
                    server.wait_output("1 tags from registers")
                    time.sleep(0.7)
                    server.kill()
        finally:
            writer.close()
        broker.start()
        judge(plant, ear, writer)


def judge(plant: MailboxPlant, ear: BusEar, writer: Writer) -> None:
    """Nothing that was answered is lost, nothing is told that was not written, the first copies come in order."""
    assert len(writer.answered) > 20
    with plant.server():

        def missing() -> set[int]:
            return set(writer.answered) - {row[0] for row in ear.samples("press", "count") if row[1] == "good"}

        wait_until(lambda: not missing(), 40, f"{len(writer.answered)} answered; never told: {sorted(missing())[:20]}")
        rows = ear.samples("press", "count")
        good = [row[0] for row in rows if row[1] == "good"]
        assert set(good) <= set(range(1, writer.sent + 1))
        first = list(dict.fromkeys(good))
        assert first == sorted(first)
        times = {}
        for value, quality, time_ms, *_ in rows:
            if quality == "good":
                assert times.setdefault(value, time_ms) == time_ms, "a repeated sample has another time"
        print(f"{len(writer.answered)} answered, {len(good) - len(first)} told again")

"""A program with a bus and nothing else: `python -m tests.support.bus_writer PORT FOLDER FIRST` publishes numbers.

From FIRST on, 200 a second, over the devices d0..d3; it prints each number when it has published it, for the ledger.
"""

import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path

from links.bus import Bus
from links.environment import MqttSettings
from scada.topics import BusTopics
from scada.values import Quality, Sample
from storage.bus_buffer import BusBuffer

DEVICES = 4


async def run(port: int, folder: Path, number: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    bus = Bus(MqttSettings(port=port), BusTopics(), "writer", buffer=BusBuffer(folder / "bus-writer.sqlite"))
    bus.start()
    while not stop.is_set():
        now_ms = time.time_ns() // 1_000_000
        bus.publish(f"d{number % DEVICES}", [Sample("t", number, Quality.GOOD, now_ms)])
        print(number, now_ms, flush=True)
        number += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.005)
    await bus.close()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))

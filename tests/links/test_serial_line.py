"""Modbus clients of several programs on one serial line: nobody takes another's reply, and nobody waits for long."""

import asyncio
import os
import signal
import sys
import termios
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from links.modbus_client import ModbusClient
from scada.errors import LinkError
from scada.modbus.endpoint import Endpoint, Transport
from scada.modbus.limits import Table
from scada.modbus.rtu import crc16
from tests.support.fault_device import FaultDevice
from tests.support.modbus_peer import Peer
from tests.support.processes import Process, clean_environment
from tests.support.serial_line import SerialLine, socat

UNIT = 1
HOLDING = Table.HOLDING_REGISTER


@pytest.fixture
def line(tmp_path: Path) -> Iterator[SerialLine]:
    with SerialLine(tmp_path) as line:
        yield line


def endpoint(line: SerialLine | Path, baudrate: int = 115_200, **more: float) -> Endpoint:
    path = str(line) if isinstance(line, Path) else line.near
    return Endpoint(Transport.SERIAL, serial_port=path, baudrate=baudrate, **more)  # type: ignore[arg-type]


async def test_two_clients_each_get_their_own_answers(line: SerialLine) -> None:
    async with Peer(Transport.SERIAL, serial_port=line.far) as device:
        clients = ModbusClient(endpoint(line)), ModbusClient(endpoint(line))

        async def ask(client: ModbusClient, address: int) -> None:
            await client.connect()
            for number in range(100):
                await client.write_registers(UNIT, address, bytes((address, number)))
                assert await client.read_registers(UNIT, HOLDING, address, 1) == bytes((address, number))

        await asyncio.gather(*(ask(client, address) for address, client in enumerate(clients, 1)))
        assert device.history(1) == [256 + number for number in range(100)]
        for client in clients:
            await client.close()


async def test_who_only_has_the_line_open_takes_no_bytes(line: SerialLine) -> None:
    async with (
        Peer(Transport.SERIAL, serial_port=line.far),
        ModbusClient(endpoint(line)) as idle,
        ModbusClient(endpoint(line)) as busy,
    ):
        for _ in range(50):
            await busy.read_registers(UNIT, HOLDING, 0, 100)
        await idle.read_registers(UNIT, HOLDING, 0, 1)


async def test_a_client_that_opens_or_closes_does_not_disturb_a_request(line: SerialLine) -> None:
    async with Peer(Transport.SERIAL, serial_port=line.far), ModbusClient(endpoint(line)) as client:
        for _ in range(20):
            reading = asyncio.create_task(client.read_registers(UNIT, HOLDING, 0, 100))
            async with ModbusClient(endpoint(line)):
                pass
            await reading


async def test_what_came_before_the_turn_is_no_answer(line: SerialLine) -> None:
    async with Peer(Transport.SERIAL, serial_port=line.far), ModbusClient(endpoint(line)) as client:
        frame = bytes((UNIT, 3, 2, 0, 111))
        far = os.open(line.far, os.O_WRONLY | os.O_NOCTTY)
        os.write(far, frame + crc16(frame).to_bytes(2, "little"))
        os.close(far)
        await asyncio.sleep(0.1)
        assert await client.read_registers(UNIT, HOLDING, 0, 1) == b"\0\0"


@asynccontextmanager
async def slow_device(folder: Path, delay_s: float) -> AsyncIterator[tuple[FaultDevice, Path]]:
    """A device that answers late, and the file of its line."""
    path = folder / "line"
    async with FaultDevice("delay", delay_s, framing="rtu") as device:
        device.registers[1], device.registers[2] = 111, 222
        with socat(f"tcp:127.0.0.1:{device.port},nodelay", f"pty,raw,echo=0,link={path}", makes=(path,)):
            yield device, path


async def test_a_late_reply_to_another_client_is_not_taken_for_ours(tmp_path: Path) -> None:
    async with slow_device(tmp_path, 0.45) as (device, path):
        one, other = ModbusClient(endpoint(path, timeout_s=0.3)), ModbusClient(endpoint(path, timeout_s=2))
        await one.connect()
        await other.connect()
        with pytest.raises(LinkError, match="no reply within"):
            await one.read_registers(UNIT, HOLDING, 1, 1)
        await device.set_mode("good")
        assert await other.read_registers(UNIT, HOLDING, 2, 1) == b"\0\xde"
        await one.close()
        await other.close()


async def test_nor_is_the_reply_to_a_request_that_was_cancelled(tmp_path: Path) -> None:
    async with slow_device(tmp_path, 0.5) as (device, path):
        one, other = ModbusClient(endpoint(path, timeout_s=0.3)), ModbusClient(endpoint(path, timeout_s=2))
        await one.connect()
        await other.connect()
        asking = asyncio.create_task(one.read_registers(UNIT, HOLDING, 1, 1))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.wait([asking])
        await asyncio.sleep(0.3)  # as long as it would have waited, but the device may take twice that
        await device.set_mode("good")
        assert await other.read_registers(UNIT, HOLDING, 2, 1) == b"\0\xde"
        await one.close()
        await other.close()


ASKER = """
import asyncio, sys
from links.modbus_client import ModbusClient
from scada.modbus.endpoint import Endpoint, Transport
from scada.modbus.limits import Table
async def ask():
    endpoint = Endpoint(Transport.SERIAL, serial_port=sys.argv[1], baudrate=115200, timeout_s=float(sys.argv[2]))
    async with ModbusClient(endpoint) as client:
        await client.read_registers(1, Table.HOLDING_REGISTER, 1, 1)
asyncio.run(ask())
"""


async def asker(device: FaultDevice, path: Path, timeout_s: float) -> Process:
    """Another program, whose request has reached the device."""
    process = Process([sys.executable, "-c", ASKER, path, str(timeout_s)], clean_environment())
    deadline = time.monotonic() + 20
    while not device.seen:
        assert time.monotonic() < deadline, process.output
        await asyncio.sleep(0.01)
    return process


async def test_the_reply_to_a_program_that_was_killed_is_not_taken_for_ours(tmp_path: Path) -> None:
    async with slow_device(tmp_path, 0.45) as (device, path), ModbusClient(endpoint(path, timeout_s=2)) as client:
        process = await asker(device, path, 0.5)
        try:
            process.kill()
            await device.set_mode("good")
            assert await client.read_registers(UNIT, HOLDING, 2, 1) == b"\0\xde"
        finally:
            process.close()


async def test_a_program_that_was_stopped_with_the_line_is_named_and_waited_for_no_longer(tmp_path: Path) -> None:
    async with slow_device(tmp_path, 0.1) as (device, path):
        client = ModbusClient(endpoint(path, timeout_s=0.5, connect_timeout_s=0.5))
        await device.set_mode("never")
        process = await asker(device, path, 20)
        try:
            process.signal(signal.SIGSTOP)
            began_s = time.monotonic()
            with pytest.raises(LinkError, match=f"serial {path} .*: another program has held the line for 1 s"):
                await client.connect()
            assert time.monotonic() - began_s < 5
            process.signal(signal.SIGCONT)
            process.kill()
            await device.set_mode("good")
            await client.connect()
            assert await client.read_registers(UNIT + 1, HOLDING, 2, 1) == b"\0\xde"
        finally:
            process.close()
            await client.close()


async def test_a_client_that_is_cancelled_while_it_waits_stays_connected(line: SerialLine) -> None:
    async with (
        Peer(Transport.SERIAL, units=(1, 2), serial_port=line.far) as device,
        ModbusClient(endpoint(line, timeout_s=1)) as holder,
        ModbusClient(endpoint(line)) as client,
    ):
        device.silent = {2}
        holding = asyncio.create_task(holder.read_registers(2, HOLDING, 0, 1))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(client.read_registers(UNIT, HOLDING, 0, 1))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert client.connected
        with pytest.raises(LinkError, match="no reply"):
            await holding
        await client.read_registers(UNIT, HOLDING, 0, 1)


async def test_who_asks_without_pause_lets_a_writer_in_at_once(line: SerialLine) -> None:
    polls, overtaken = 0, []

    def count(direction: str, packet: bytes) -> bytes:
        nonlocal polls
        if direction == "in" and packet:
            polls += packet[1] == 3
            if packet[1] == 6:
                overtaken.append(polls)
        return packet

    async with Peer(Transport.SERIAL, serial_port=line.far) as device:
        device.tamper = count

        async def poll() -> None:
            async with ModbusClient(endpoint(line)) as client:
                while True:
                    await client.read_registers(UNIT, HOLDING, 0, 2)

        poller = asyncio.create_task(poll())
        async with ModbusClient(endpoint(line)) as writer:
            for number in range(50):
                await asyncio.sleep(0.003 * (number % 5))
                before = polls
                await writer.write_registers(UNIT, 10, bytes((0, number)))
                overtaken[-1] -= before
        poller.cancel()
        await asyncio.wait([poller])
    assert len(overtaken) == 50
    # The one that was on its way, and one that stood before us in the queue already.
    assert max(overtaken) <= 2


async def test_the_line_is_silent_between_the_frames_of_two_clients(line: SerialLine) -> None:
    times: list[float] = []

    def note(direction: str, packet: bytes) -> bytes:
        times.append(time.monotonic())
        return packet

    async with Peer(Transport.SERIAL, serial_port=line.far) as device:
        device.tamper = note

        async def poll() -> None:
            async with ModbusClient(endpoint(line, 1200)) as client:
                for _ in range(5):
                    await client.read_registers(UNIT, HOLDING, 0, 2)

        await asyncio.gather(poll(), poll())
    assert len(times) == 20
    # Request, reply, request ...: after a reply 3.5 characters of 10 bits are 29 ms.
    assert all(later - sooner >= 0.029 for sooner, later in list(pairwise(times))[1::2])


async def test_each_client_has_its_own_settings_in_its_turns(line: SerialLine) -> None:
    watch = os.open(line.near, os.O_RDWR | os.O_NOCTTY)
    speeds = {9600: termios.B9600, 115_200: termios.B115200}
    async with (
        Peer(Transport.SERIAL, serial_port=line.far),
        ModbusClient(endpoint(line, 9600)) as slow,
        ModbusClient(endpoint(line, 115_200)) as fast,
    ):
        for client in (slow, fast, slow):
            await client.read_registers(UNIT, HOLDING, 0, 1)
            assert termios.tcgetattr(watch)[5] == speeds[client.endpoint.baudrate]
    os.close(watch)


async def test_nothing_stays_open_after_failures(line: SerialLine) -> None:
    before = len(os.listdir("/proc/self/fd"))
    client = ModbusClient(endpoint(line, timeout_s=0.05))
    for _ in range(5):
        await client.connect()
        with pytest.raises(LinkError, match="no reply"):
            await client.read_registers(UNIT, HOLDING, 0, 1)
    await client.close()
    deadline = time.monotonic() + 5
    while len(os.listdir("/proc/self/fd")) > before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)

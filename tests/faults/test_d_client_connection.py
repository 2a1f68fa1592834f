"""Rows D7 and D8 of the fault table for the Modbus client: connections that end, are refused, or fall silent."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from links.backoff import Backoff
from links.modbus_client import ModbusClient
from scada.errors import LinkError
from scada.modbus.endpoint import Endpoint
from scada.modbus.limits import Table
from tests.support.fault_device import FaultDevice
from tests.support.modbus_operations import (
    UNIT,
    WRITES,
    carry_out,
    count_fds,
    make_client,
)

pytestmark = pytest.mark.usefixtures("nothing_escapes")
ROOT = Path(__file__).parents[2]


async def connect_and_write(client: ModbusClient) -> None:
    await client.connect()
    await client.write_registers(UNIT, 0, b"\0\1")


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
async def test_d7_a_connection_closed_at_once(framing: str) -> None:
    fds = count_fds()
    async with FaultDevice("accept_close", framing=framing) as device:
        client = make_client(device, timeout_s=0.1)  # on RTU each connect waits as long after a request that failed
        for _ in range(20):
            with pytest.raises(LinkError):
                await connect_and_write(client)
        await device.set_mode("good")
        async with make_client(device, timeout_s=5) as patient:
            await carry_out(WRITES[0], patient, device)
        await client.close()
    assert abs(count_fds() - fds) <= 2


async def test_d7_a_lost_connection_is_told_before_the_timeout(device: FaultDevice) -> None:
    for mode in ("fin", "rst"):
        device.mode = mode
        async with make_client(device, timeout_s=30) as client:
            with pytest.raises(LinkError, match="connection"):
                await asyncio.wait_for(WRITES[0].ask(client), 10)


async def test_d7_a_refused_connection(device: FaultDevice) -> None:
    fds = count_fds()
    client = make_client(device)
    await device.set_mode("refuse")
    for _ in range(20):
        with pytest.raises(LinkError, match=f"127.0.0.1:{device.port}: no connection"):
            await client.connect()
    assert abs(count_fds() - fds) <= 2
    await device.set_mode("good")
    await client.connect()
    await carry_out(WRITES[0], client, device)
    await client.close()


async def test_d7_udp_where_nobody_listens() -> None:
    async with FaultDevice(framing="udp") as device:
        await device.set_mode("refuse")
        async with make_client(device, timeout_s=30) as client:
            with pytest.raises(LinkError, match="not reachable"):
                await asyncio.wait_for(WRITES[0].ask(client), 10)
            await device.set_mode("good")
            await client.connect()
            await carry_out(WRITES[0], client, device)


async def test_d7_flapping_loses_only_the_requests_it_broke(device: FaultDevice) -> None:
    fds = count_fds()
    device.mode = "flap"
    client = make_client(device, timeout_s=5)
    confirmed = []
    for value in range(60):
        await client.connect()
        try:
            await client.write_registers(UNIT, value, bytes((0, value + 1)))
        except LinkError:
            continue
        confirmed.append(value)
    assert len(confirmed) == 40
    assert all(device.registers[value] == value + 1 for value in confirmed)
    await client.close()
    await asyncio.sleep(0.05)
    assert abs(count_fds() - fds) <= 2


async def test_d7_one_connection_for_each_step_of_the_backoff(device: FaultDevice) -> None:
    device.mode = "fin"
    backoff = Backoff(first_s=0.05, cap_s=0.2, jitter=0.2)
    client = make_client(device, timeout_s=5)
    waited = []
    for _ in range(6):
        with pytest.raises(LinkError):
            await connect_and_write(client)
        waited.append(backoff.next_delay_s())
        await asyncio.sleep(waited[-1])
    assert len(device.accepted_s) == 6
    between = [later - sooner for sooner, later in pairwise(device.accepted_s)]
    assert all(gap >= delay * 0.9 for gap, delay in zip(between, waited, strict=False))


async def test_d8_a_stopped_peer_is_found_by_the_timeout_and_its_late_replies_do_no_harm() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.fault_device", cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int((await process.stdout.readline()).split()[1])
        client = ModbusClient(Endpoint(host="127.0.0.1", port=port, timeout_s=0.5))
        await client.connect()
        await client.write_registers(UNIT, 1, b"\0\x11\0\x22")
        process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(LinkError, match="no reply within"):
            await client.read_registers(UNIT, Table.HOLDING_REGISTER, 1, 1)
        assert time.monotonic() - started < 2
        await client.connect()  # the kernel of a stopped process still accepts
        with pytest.raises(LinkError, match="no reply within"):
            await client.read_registers(UNIT, Table.HOLDING_REGISTER, 1, 1)
        process.send_signal(signal.SIGCONT)
        await client.connect()
        assert await client.read_registers(UNIT, Table.HOLDING_REGISTER, 2, 1) == b"\0\x22"
        await client.close()
    finally:
        process.send_signal(signal.SIGCONT)
        process.stdin.close()
        await process.wait()


async def test_d8_a_silent_peer_is_probed(device: FaultDevice) -> None:
    async with make_client(device) as client:
        assert client._wire is not None
        sock = client._wire.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        probes = [sock.getsockopt(socket.IPPROTO_TCP, option) for option in (4, 5, 6)]  # Linux: idle, interval, count
        assert probes == [30, 10, 3]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

"""One silent unit does not cost the others their connection, and its late reply is never taken for another's."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import links.modbus_wire
from links.keepalive import unacknowledged
from links.modbus_client import ModbusClient
from scada.errors import DeviceRefused, LinkError
from scada.modbus.endpoint import Endpoint, Transport
from scada.modbus.limits import Table
from tests.support.fault_device import FaultDevice, Seen, Step
from tests.support.serial_line import socat

GOOD, BAD = 1, 2
TRANSPORT = {"tcp": Transport.TCP, "udp": Transport.UDP, "rtu": Transport.RTU_OVER_TCP}
IN_MBAP = pytest.mark.parametrize("framing", ["tcp", "udp"])


class OneBadUnit(FaultDevice):
    """`mode` is the bad unit's, and that of those above it; all others are good."""

    def answer(self, seen: Seen) -> Iterator[Step]:
        if seen.unit_id >= BAD:
            return super().answer(seen)
        mode, self.mode = self.mode, "good"
        steps = super().answer(seen)
        self.mode = mode
        return steps


def client_of(device: FaultDevice, timeout_s: float = 0.3) -> ModbusClient:
    return ModbusClient(Endpoint(TRANSPORT[device.framing], "127.0.0.1", device.port, timeout_s=timeout_s))


async def read(client: ModbusClient, unit_id: int, address: int = 1) -> int:
    return int.from_bytes(await client.read(unit_id, Table.HOLDING_REGISTER, address, 1), "big")


async def be_silent(client: ModbusClient, unit_id: int = BAD, match: str = "no reply within") -> None:
    with pytest.raises(LinkError, match=match):
        await read(client, unit_id)


@IN_MBAP
async def test_the_connection_outlives_the_silence_of_one_unit(framing: str) -> None:
    async with OneBadUnit("never", framing=framing) as device, client_of(device, 0.2) as client:
        device.registers[1] = 111
        for _ in range(3):
            assert await read(client, GOOD) == 111
            await be_silent(client)
            assert client.connected
        assert await read(client, GOOD) == 111
        assert framing == "udp" or len(device.accepted_s) == 1


async def test_the_connection_outlives_the_silence_of_many_in_a_row() -> None:
    async with OneBadUnit("never") as device, client_of(device, 0.1) as client:
        for _ in range(2):
            await read(client, GOOD)
            for unit_id in range(BAD, BAD + 8):
                await be_silent(client, unit_id)
            assert client.connected


@IN_MBAP
@pytest.mark.parametrize("late_s", [0.35, 0.45])
async def test_a_late_reply_is_not_taken_for_another_units(framing: str, late_s: float) -> None:
    async with OneBadUnit("delay", late_s, framing=framing) as device, client_of(device) as client:
        device.registers[1:4] = [111, 222, 333]
        assert await read(client, GOOD, 2) == 222
        await be_silent(client)
        assert [await read(client, GOOD, 3) for _ in range(3)] == [333] * 3
        await asyncio.sleep(late_s - 0.3)  # the late one comes while nothing is asked, too
        await device.set_mode("good")
        assert await read(client, BAD, 2) == 222
        assert client.connected
        assert framing == "udp" or len(device.accepted_s) == 1


async def test_the_same_request_goes_out_again_at_once_and_the_next_waits_for_late_replies() -> None:
    """Without transaction ids: a device was bad only after three timeouts instead of two."""
    async with FaultDevice("delay", 1.5, framing="rtu") as device, client_of(device, 1.0) as client:
        device.registers[1:3] = [111, 222]
        began = asyncio.get_running_loop().time()
        await be_silent(client, GOOD)
        await client.connect()
        with contextlib.suppress(LinkError):
            await read(client, GOOD)
        assert asyncio.get_running_loop().time() - began < 1.0 * 2 + 0.7
        await device.set_mode("good")
        await client.connect()
        assert await read(client, GOOD, 2) == 222


async def test_a_late_reply_answers_the_same_request_and_the_second_one_nothing_else(tmp_path: Path) -> None:
    line = tmp_path / "line"
    async with FaultDevice("delay", 0.95, framing="rtu") as device:
        device.registers[1:3] = [111, 222]
        with socat(f"tcp:127.0.0.1:{device.port},nodelay", f"pty,raw,echo=0,link={line}", makes=(line,)):
            endpoint = Endpoint(Transport.SERIAL, serial_port=str(line), baudrate=115200, timeout_s=0.8)
            async with ModbusClient(endpoint) as client:
                await be_silent(client, GOOD)
                await client.connect()
                assert await read(client, GOOD) == 111, "the late reply, 0.15 s after the second request"
                await device.set_mode("good")
                assert await read(client, GOOD, 2) == 222, "not the reply to the second request"


async def test_a_unit_that_says_no_answers() -> None:
    async with OneBadUnit("never") as device, client_of(device) as client:
        device.illegal = {1}
        with pytest.raises(DeviceRefused):
            await read(client, GOOD)
        await be_silent(client)
        assert client.connected


async def test_when_nobody_answers_any_more_the_connection_goes() -> None:
    async with FaultDevice() as device, client_of(device, 0.2) as client:
        for unit_id in (1, 2):
            await read(client, unit_id)
        device.mode = "never"
        for unit_id in (1, 2):
            await be_silent(client, unit_id)
            assert client.connected
        await be_silent(client, 1)
        assert not client.connected


async def test_a_device_of_one_unit_gets_a_new_connection_at_once() -> None:
    async with FaultDevice() as device, client_of(device, 0.2) as client:
        await read(client, GOOD)
        device.mode = "never"
        await be_silent(client, GOOD)
        assert not client.connected


@pytest.mark.parametrize(("mode", "match"), [("trunc_stall", "bytes but no reply"), ("slow", "bytes but no reply")])
async def test_half_a_reply_closes(mode: str, match: str) -> None:
    async with OneBadUnit(mode, 5 if mode == "trunc_stall" else 100) as device, client_of(device) as client:
        await read(client, GOOD)
        await be_silent(client, BAD, match)
        assert not client.connected


async def test_without_transaction_ids_it_closes() -> None:
    async with OneBadUnit("never", framing="rtu") as device, client_of(device, 0.2) as client:
        await read(client, GOOD)
        await be_silent(client)
        assert not client.connected


@pytest.mark.parametrize("count", [12, None])
async def test_what_the_other_end_did_not_acknowledge_closes(
    monkeypatch: pytest.MonkeyPatch, count: int | None
) -> None:
    monkeypatch.setattr(links.modbus_wire, "unacknowledged", lambda _: count)
    async with OneBadUnit("never") as device, client_of(device, 0.2) as client:
        await read(client, GOOD)
        await be_silent(client)
        assert not client.connected


async def test_a_silence_leaves_nothing_on_its_way_so_the_end_is_polite() -> None:
    ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.read(12):
                if request[6] == GOOD:
                    writer.write(request[:4] + b"\0\x05\x01\x03\x02\0\x07")
            ended.set_result(b"")
        except ConnectionResetError:
            ended.set_result(ConnectionResetError)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        endpoint = Endpoint(host="127.0.0.1", port=server.sockets[0].getsockname()[1], timeout_s=0.2)
        async with ModbusClient(endpoint) as client:
            assert await read(client, GOOD) == 7
            await be_silent(client)
        assert await asyncio.wait_for(ended, 5) == b""


def test_the_system_tells_what_was_not_acknowledged() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        assert unacknowledged(sock) == 0
        sock.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += sock.send(bytes(65536))
        assert 0 < (unacknowledged(sock) or 0) <= sent

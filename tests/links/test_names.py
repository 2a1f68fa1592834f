"""A host's name whose resolver takes its time, or for ever: who waits, how long, and with how many threads."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from links.modbus_client import ModbusClient
from links.names import HostName
from scada.errors import LinkError
from scada.modbus.endpoint import Endpoint, Transport
from scada.modbus.limits import Table
from tests.support.fault_device import FaultDevice

STREAM = socket.SOCK_STREAM


class Resolver:
    """In the place of the system's: the names under `.silent` are answered when `answer` is set, the others at once."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.addresses: list[tuple[Any, ...]] = [("127.0.0.1", 0)]
        self.asked: list[str] = []
        self.fails = False

    def __call__(self, host: str, port: int, *_: object, **__: object) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if host.endswith(".silent"):
            self.answer.wait(20)
            if self.fails:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        family = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(family[":" in each[0]], STREAM, 6, "", (each[0], port, *each[2:])) for each in self.addresses]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    ours = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", ours)
    yield ours
    ours.answer.set()


def lookups() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lookup of ")]


async def test_forty_names_that_nobody_answers_delay_no_other(resolver: Resolver) -> None:
    silent = [ModbusClient(Endpoint(host=f"plc{n}.silent", connect_timeout_s=1.0)) for n in range(40)]
    async with FaultDevice() as device:
        device.registers[0] = 7
        begun = time.monotonic()
        waiting = [asyncio.create_task(client.connect()) for client in silent]
        await asyncio.sleep(0.05)
        async with ModbusClient(Endpoint(host="plc.example", port=device.port, connect_timeout_s=5.0)) as living:
            assert await living.read_registers(1, Table.HOLDING_REGISTER, 0, 1) == b"\0\7"
            assert not any(task.done() for task in waiting), "while they wait"
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        assert time.monotonic() - begun < 3.0
    assert {type(error) for error in failed} == {LinkError}
    assert "plc0.silent:502: no connection within 1.0 s" in str(failed[0])


async def test_attempts_do_not_pile_up(resolver: Resolver) -> None:
    """What nobody can end is not begun again; and its answer is good for the next attempt, however late."""
    async with FaultDevice() as device:
        client = ModbusClient(Endpoint(host="plc.silent", port=device.port, connect_timeout_s=0.1))
        for _ in range(5):
            with pytest.raises(LinkError, match=r"no connection within 0\.1 s"):
                await client.connect()
        assert resolver.asked == ["plc.silent"]
        assert lookups() == ["lookup of plc.silent"]
        resolver.answer.set()
        await asyncio.sleep(0.1)
        await client.connect()
        await client.close()
        assert resolver.asked == ["plc.silent"]
        await client.connect()
        await client.close()
        assert resolver.asked == ["plc.silent"] * 2, "each connection asks anew: names move"


async def test_a_late_failure_is_not_the_next_attempts(resolver: Resolver, caplog: pytest.LogCaptureFixture) -> None:
    resolver.fails = True
    host = HostName("plc.silent")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(host.addresses(STREAM), 0.05)
    resolver.answer.set()
    await asyncio.sleep(0.1)
    resolver.fails = False
    assert await host.addresses(STREAM) == ["127.0.0.1"]
    assert "never retrieved" not in caplog.text


async def test_a_failure_says_what_the_resolver_said(resolver: Resolver) -> None:
    resolver.fails = True
    resolver.answer.set()
    client = ModbusClient(Endpoint(host="plc.silent"))
    for _ in range(2):
        with pytest.raises(LinkError, match=r"plc\.silent:502: no connection: .*Temporary failure in name resolution"):
            await client.connect()


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.RTU_OVER_TCP])
async def test_every_address_is_tried(resolver: Resolver, transport: Transport) -> None:
    async with FaultDevice(framing="tcp" if transport is Transport.TCP else "rtu") as device:
        resolver.addresses = [("127.0.0.2", 0), ("127.0.0.1", 0)]
        async with ModbusClient(Endpoint(transport, host="plc.example", port=device.port)) as client:
            assert await client.read_registers(1, Table.HOLDING_REGISTER, 0, 1) == b"\0\0"
        resolver.addresses = [("127.0.0.2", 0), ("127.0.0.3", 0)]
        with pytest.raises(LinkError, match=r"127\.0\.0\.2.*; .*127\.0\.0\.3"):
            await client.connect()


async def test_a_link_local_address_has_its_interface(resolver: Resolver) -> None:
    resolver.addresses = [("fe80::7", 0, 0, 3), ("::1", 0, 0, 0)]
    assert await HostName("plc.example").addresses(STREAM) == ["fe80::7%3", "::1"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "fe80::1%eth0"])
async def test_an_address_is_not_looked_up(resolver: Resolver, address: str) -> None:
    assert await HostName(address).addresses(STREAM) == [address]
    assert resolver.asked == []


async def test_no_thread_left_is_a_link_error(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(LinkError, match="no thread to look up plc"):
        await ModbusClient(Endpoint(host="plc.example")).connect()


@pytest.mark.parametrize("name", ["plc\0.example", "p" * 70 + ".example", "plc..example"])
async def test_what_cannot_be_a_name(name: str) -> None:
    with pytest.raises(LinkError, match="no connection"):
        await ModbusClient(Endpoint(host=name)).connect()

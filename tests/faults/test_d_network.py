"""Rows D8-D10 on a network that really drops packets: half-open connections, loss, and connects that hang."""

import asyncio
import socket
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from links import keepalive
from links.modbus_client import ModbusClient
from links.modbus_listener import ListenerLimits, ModbusListener
from scada.errors import LinkError
from scada.modbus.endpoint import Endpoint, Transport
from tests.support.brokers import Broker
from tests.support.modbus_peer import Peer
from tests.support.modbus_wire import modbus_server
from tests.support.netns import FarNetwork, far_network
from tests.support.plant import Plant, build_plant, tag
from tests.support.processes import wait_until
from tests.support.soak import rounds

UNIT = 1
READ = bytes.fromhex("0001 0000 0006 01 03 0000 0001")
"""One holding register over Modbus TCP; the answer has 11 bytes."""


@pytest.fixture
def network() -> Iterator[FarNetwork]:
    with far_network() as made:
        yield made


@pytest.fixture
async def plant(network: FarNetwork, tmp_path: Path, mosquitto: Broker) -> AsyncIterator[Plant]:
    async with build_plant(tmp_path, mosquitto) as built:
        yield built


def far_peer(network: FarNetwork, transport: Transport = Transport.TCP) -> Peer:
    return Peer(transport, listen=network.listen)


async def latencies_s(plant: Plant, neighbours: dict[str, Peer], numbers: range) -> list[float]:
    """How long each of some values takes to all neighbours."""
    taken = []
    for number in numbers:
        sent = time.perf_counter()
        await plant.publish([(f"plant/{name}", b'{"t": %d}' % number) for name in neighbours])
        await plant.wait(lambda number=number: all(n.register(0) == number for n in neighbours.values()), "served", 2)
        taken.append(time.perf_counter() - sent)
    return taken


async def leave_requests_behind(network: FarNetwork) -> None:
    """Requests end by timeout and by close while their connection drops packets, and newer ones follow on another."""
    async with AsyncExitStack() as stack:
        clients: list[tuple[Peer, ModbusClient]] = []
        for transport in (Transport.TCP, Transport.RTU_OVER_TCP) * 2:
            device = await stack.enter_async_context(far_peer(network, transport))
            client = ModbusClient(Endpoint(transport, network.far, device.port, timeout_s=0.3))
            clients.append((device, await stack.enter_async_context(client)))
            await client.write_registers(UNIT, 0, b"\0\1")
            network.cut(device.port)
        writes = [asyncio.create_task(client.write_registers(UNIT, 0, b"\0\2")) for _, client in clients]
        await asyncio.sleep(0.1)
        for _, client in clients[:2]:
            await client.close()
        ends = await asyncio.gather(*writes, return_exceptions=True)
        assert all(isinstance(end, LinkError) for end in ends), ends
        for _, client in clients:
            await client.connect()
            await client.write_registers(UNIT, 0, b"\0\3")
        network.heal()
        await asyncio.sleep(1.5)  # TCP repeats 0.2, 0.6 and 1.4 s after the first transmission
        assert [device.history(0) for device, _ in clients] == [[1, 3]] * 4


async def test_d9_a_request_that_was_given_up_never_arrives_later(network: FarNetwork) -> None:
    """TCP repeats what it lost even for a connection that is closed, and it would undo what another one brought since."""
    await leave_requests_behind(network)


def test_d9_nor_does_it_on_uvloop(network: FarNetwork) -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(leave_requests_behind(network))


async def test_d9_nor_does_that_of_a_killed_gateway(network: FarNetwork, plant: Plant) -> None:
    async with far_peer(network) as device:
        plant.device("far", device.port, [tag("t", 0)], host=network.far, timeout_s=1.0)
        gateway = await plant.start()
        await plant.publish([("plant/far", b'{"t": 1}')])
        await plant.wait(lambda: device.register(0) == 1, "written")
        network.cut(device.port)
        await plant.publish([("plant/far", b'{"t": 2}')])
        await asyncio.sleep(0.1)
        await asyncio.to_thread(gateway.kill)
        await plant.start()
        await plant.publish([("plant/far", b'{"t": 3}')])
        await plant.wait(lambda: device.register(0) == 3, "the next gateway writes")
        network.heal()
        await asyncio.sleep(3.0)  # TCP repeats 0.2, 0.6, 1.4 and 3.0 s after the first transmission
        assert device.register(0) == 3
        assert device.history(0) in ([1, 2, 3], [1, 3])


@pytest.mark.parametrize(("percent", "timeout_s"), [(5, 1.0), (30, 0.3)])
async def test_d9_lost_packets(network: FarNetwork, plant: Plant, percent: int, timeout_s: float) -> None:
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(far_peer(network)) for _ in range(8)]
        for index, device in enumerate(devices):
            plant.device(f"d{index}", device.port, [tag("t", 0)], host=network.far, timeout_s=timeout_s)
        await plant.start()
        last = 40
        for number in range(1, last + 1):
            if number == 2:
                network.lose(percent)
            await plant.publish([(f"plant/d{index}", b'{"t": %d}' % number) for index in range(len(devices))])
            if number == 1:
                await plant.wait(lambda: all(device.register(0) == 1 for device in devices), "connected")
        arrived = [device.history(0)[-1] for device in devices]
        if percent > 5:
            network.heal()
        else:
            assert plant.output.count("no answer") <= len(devices) // 2, "TCP repeats sooner than we give up"
        await plant.wait(lambda: all(device.register(0) == last for device in devices), "the latest values", 15)
        await plant.wait(lambda: plant.outbox() == [], "nothing is left on disk")
        for device in devices:
            history = device.history(0)
            assert all(sooner <= later for sooner, later in pairwise(history)), f"{history}, at the end {arrived}"
        assert plant.rejects() == []


async def test_d8_a_device_that_vanished_is_found_within_the_timeout(network: FarNetwork, plant: Plant) -> None:
    async with far_peer(network) as device, Peer(Transport.TCP) as neighbour:
        plant.device("far", device.port, [tag("t", 0)], host=network.far, timeout_s=3.0)
        plant.device("near", neighbour.port, [tag("t", 0)])
        await plant.start()
        await plant.publish([("plant/far", b'{"t": 1}'), ("plant/near", b'{"t": 1}')])
        await plant.wait(lambda: device.register(0) == neighbour.register(0) == 1, "both are written")
        network.drop()
        vanished = time.monotonic()
        await plant.publish([("plant/far", b'{"t": 2}'), ("plant/near", b'{"t": 2}')])
        await plant.wait(lambda: neighbour.register(0) == 2, "the neighbour is served", 2.0)
        await plant.wait(lambda: "no reply within 3.0 s" in plant.output, "found", 4.5)
        assert time.monotonic() - vanished >= 3.0
        await plant.wait(lambda: plant.outbox() == [2], "its value is on disk")
        await plant.publish([("plant/far", b'{"t": 3}')])
        await plant.wait(lambda: plant.outbox() == [3], "only the latest is kept")
        network.heal()
        await plant.wait(lambda: device.register(0) == 3, "written when the network is back", 8)
        await plant.wait(lambda: plant.outbox() == [], "the outbox is empty")
        assert device.history(0) == [1, 3]


def test_d8_a_client_that_vanished_gives_its_place_back(network: FarNetwork, tmp_path: Path) -> None:
    assert ListenerLimits().idle_timeout_s < 90
    with modbus_server(tmp_path, HOST=network.near, IDLE_TIMEOUT_S=2) as (_, port):

        def places() -> int:
            """Connections that the server holds: of its port, not listening (0A), and not left to the system (inode 0)."""
            table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
            ours = [fields for fields in table if fields[1].endswith(f":{port:04X}")]
            return sum(fields[3] != "0A" and fields[9] != "0" for fields in ours)

        with network.connect(port), network.connect(port) as spoken, network.connect(port) as half:
            spoken.sendall(READ)
            assert len(spoken.recv(100)) == 11
            half.sendall(READ[:5])
            with socket.create_connection((network.near, port), 5) as living:
                wait_until(lambda: places() == 4, what="all are served")
                network.drop()
                spoken.sendall(READ)
                vanished = time.monotonic()
                while places() > 1:
                    assert time.monotonic() - vanished < 10, "their places are free again"
                    living.sendall(READ)
                    assert len(living.recv(100)) == 11
                    time.sleep(0.05)
                time.sleep(0.3)
                living.sendall(READ)
                assert len(living.recv(100)) == 11


async def test_d8_keepalive_finds_a_silent_peer(network: FarNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends of Tagwire, nobody says a word, and no limit of idleness helps."""
    bound_s = 90.0
    if rounds(0, 1) == 0:
        monkeypatch.setattr(keepalive, "IDLE_S", 1)
        monkeypatch.setattr(keepalive, "INTERVAL_S", 1)
        monkeypatch.setattr(keepalive, "COUNT", 2)
        bound_s = 10.0
    listener = ModbusListener(lambda _: None, ListenerLimits(idle_timeout_s=86_400))  # type: ignore[arg-type]
    (where,) = listener.open(network.near, 0)
    async with far_peer(network) as device, ModbusClient(Endpoint(host=network.far, port=device.port)) as client:
        with network.connect(where[1]):
            async with asyncio.timeout(5):
                while len(listener) == 0:  # noqa: ASYNC110 - the listener has no event for it
                    await asyncio.sleep(0.01)
            network.drop()
            silent = time.monotonic()
            while client.connected or len(listener):
                assert time.monotonic() - silent < bound_s, (client.connected, len(listener))
                await asyncio.sleep(0.05)
    await listener.close(0)


async def test_d10_a_connect_that_hangs(network: FarNetwork, plant: Plant) -> None:
    async with AsyncExitStack() as stack:
        device = await stack.enter_async_context(far_peer(network))
        neighbours = {f"n{index}": await stack.enter_async_context(Peer(Transport.TCP)) for index in range(3)}
        plant.device("far", device.port, [tag("t", 0)], host=network.far, connect_timeout_s=3.0)
        for name, neighbour in neighbours.items():
            plant.device(name, neighbour.port, [tag("t", 0)])
        await plant.start()
        network.drop("tcp flags syn / syn,ack")
        before = await latencies_s(plant, neighbours, range(1, 31))
        called = time.monotonic()
        await plant.publish([("plant/far", b'{"t": 1}')])
        number, during = 100, []
        while "offline" not in plant.output:
            during += await latencies_s(plant, neighbours, range(number, number + 5))
            number += 5
        assert 2.9 < time.monotonic() - called < 4.5
        assert "no connection within 3.0 s" in plant.output
        assert len(during) >= 5
        assert statistics.median(during) < 3 * statistics.median(before) + 0.2
        assert plant.outbox() == [1]
        network.heal()
        await plant.wait(lambda: device.register(0) == 1, "written when the network is back", 8)

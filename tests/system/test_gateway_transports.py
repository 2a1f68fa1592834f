"""The whole gateway, between a real broker and devices that we did not write, over UDP, RTU over TCP and serial lines."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scada.modbus.endpoint import Transport
from tests.support.modbus_peer import Peer, spoil
from tests.support.plant import Plant, tag
from tests.support.processes import Process, clean_environment
from tests.support.programs import compile_with_libmodbus
from tests.support.serial_line import SerialLine

pytestmark = pytest.mark.system

TAGS = [
    tag("count", 0),
    tag("level", 2, "float32", address={"order": "CDAB"}),
    tag("open", 5, "bool", data_type="bool", address={"table": "coil"}),
    tag("alarm", 10, "bool", data_type="bool", address={"bit": 3}),
]


def message(count: int, level: float, on: bool) -> bytes:
    return json.dumps({"count": count, "level": level, "open": on, "alarm": on}).encode()


# 12.345 is 0x4145851F in IEEE 754, -1 is 0xBF800000; CDAB puts the low word first.
FIRST_HELD, LAST_HELD = (1, 0x851F, 0x4145, True, 8), (4, 0x0000, 0xBF80, True, 8)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[SerialLine]:
    with SerialLine(tmp_path) as line:
        yield line


def serial(line: SerialLine, **more: Any) -> dict[str, Any]:
    """The network configuration of a device on a line."""
    return {"port": 502, "transport": "serial", "serial_port": line.near, "baudrate": 115200, **more}


@dataclass(frozen=True, slots=True)
class Site:
    """A device, and how it leaves and comes back. `held` is what its store has of the tags."""

    network: dict[str, Any]
    held: Callable[[], tuple[int, ...]]
    leave: Callable[[], Any]
    come_back: Callable[[], Any]


def held_by(peer: Peer) -> Callable[[], tuple[int, ...]]:
    return lambda: (*(peer.register(address) for address in (0, 2, 3)), peer.coil(5), peer.register(10))


class LibmodbusDevice:
    """The C program on the far end of a line."""

    def __init__(self, program: Path, line: SerialLine) -> None:
        self._command = [program, line.far]
        self._process: Process | None = None

    def start(self) -> None:
        self._process = Process(self._command, clean_environment()).wait_output("serving")

    def stop(self) -> None:
        assert self._process is not None
        self._process.close()

    def held(self) -> tuple[int, ...]:
        assert self._process is not None
        words = self._process.output.rpartition(":")[2].split()
        if len(words) < 32:
            return ()
        registers = [int(word, 16) for word in words[:16]]
        return registers[0], registers[2], registers[3], words[16 + 5] == "1", registers[10]


@asynccontextmanager
async def sites(folder: Path) -> AsyncIterator[dict[str, Site]]:
    """One device for each transport that is not plain TCP."""
    program = compile_with_libmodbus(Path(__file__).with_name("libmodbus_rtu_server.c"), folder)
    with ExitStack() as stack:
        lines = [stack.enter_context(SerialLine(folder, name)) for name in ("one", "two")]
        async with (
            Peer(Transport.UDP) as udp,
            Peer(Transport.RTU_OVER_TCP) as rtu,
            Peer(Transport.SERIAL, serial_port=lines[0].far) as on_line,
        ):
            c_device = LibmodbusDevice(program, lines[1])
            c_device.start()
            stack.callback(c_device.stop)

            async def plug_in() -> None:
                lines[0].plug_in()
                await on_line.start()

            async def unplug() -> None:
                await on_line.stop()
                lines[0].unplug()

            yield {
                "udp": Site({"port": udp.port, "transport": "udp"}, held_by(udp), udp.stop, udp.start),
                "rtu": Site({"port": rtu.port, "transport": "rtu_over_tcp"}, held_by(rtu), rtu.stop, rtu.start),
                "unplugged": Site(serial(lines[0]), held_by(on_line), unplug, plug_in),
                "silenced": Site(serial(lines[1]), c_device.held, c_device.stop, c_device.start),
            }


async def call(action: Callable[[], Any]) -> None:
    result = action()
    if result is not None:
        await result


async def test_values_reach_every_kind_of_device_and_wait_while_it_is_away(
    gateway_plant: Plant, tmp_path: Path
) -> None:
    async with sites(tmp_path) as devices:
        for name, site in devices.items():
            gateway_plant.device(name, tags=TAGS, **site.network)
        await gateway_plant.start()
        await gateway_plant.publish([(f"plant/{name}", message(1, 12.345, True)) for name in devices])
        for name, site in devices.items():
            await gateway_plant.wait(lambda site=site: site.held() == FIRST_HELD, f"{name} is written")
        await gateway_plant.wait(lambda: gateway_plant.outbox() == [], "nothing is left on disk")

        for site in devices.values():
            await call(site.leave)
        for number in (2, 3):
            await gateway_plant.publish([(f"plant/{name}", message(number, 0, False)) for name in devices])
        await gateway_plant.publish([(f"plant/{name}", message(4, -1, True)) for name in devices])
        lost = (": offline", ": no answer")
        await gateway_plant.wait(lambda: sum(map(gateway_plant.output.count, lost)) >= len(devices), "all are missed")
        parked = sorted([4, -1, True, True] * len(devices))
        await gateway_plant.wait(lambda: sorted(gateway_plant.outbox()) == parked, "the latest values are on disk")
        for site in devices.values():
            await call(site.come_back)
        for name, site in devices.items():
            await gateway_plant.wait(
                lambda site=site: site.held() == LAST_HELD, f"{name} is written when it is back", 10
            )
        await gateway_plant.wait(lambda: gateway_plant.outbox() == [], "the outbox is empty")
        assert gateway_plant.rejects() == []


async def test_a_silent_unit_does_not_starve_the_other_one_on_its_line(gateway_plant: Plant, line: SerialLine) -> None:
    timeout_s = 1.5
    async with Peer(Transport.SERIAL, (1, 2), serial_port=line.far) as device:
        device.silent = {2}
        for unit_id in (1, 2):
            tags = [tag("t", 0, address={"unit_id": unit_id})]
            gateway_plant.device(f"unit{unit_id}", tags=tags, **serial(line, timeout_s=timeout_s))
        await gateway_plant.start()
        taken = []
        while device.unheard < 2:
            number = len(taken) + 1
            sent = time.monotonic()
            await gateway_plant.publish(
                [("plant/unit2", b'{"t": %d}' % number), ("plant/unit1", b'{"t": %d}' % number)]
            )
            await gateway_plant.wait(lambda number=number: device.register(0) == number, "the other one is served", 5)
            taken.append(time.monotonic() - sent)
        assert max(taken) < timeout_s + 1.3
        assert sum(each > timeout_s / 2 for each in taken) <= device.unheard
        await gateway_plant.wait(lambda: gateway_plant.outbox() == [number], "the silent one's latest value is on disk")

        device.silent = set()
        await gateway_plant.wait(lambda: device.register(0, 2) == number, "written when it answers again", 8)
        await gateway_plant.wait(lambda: gateway_plant.outbox() == [], "the outbox is empty")


async def test_only_a_sound_reply_on_a_serial_line_confirms_a_value(gateway_plant: Plant, line: SerialLine) -> None:
    def tamper(direction: str, packet: bytes) -> bytes:
        return spoil(packet) if direction == way else packet

    async with Peer(Transport.SERIAL, serial_port=line.far) as device:
        gateway_plant.device("meter", tags=[tag("t", 0)], **serial(line, timeout_s=1.0))
        await gateway_plant.start()
        for number, way in ((1, "out"), (3, "in")):
            device.tamper = tamper
            await gateway_plant.publish([("plant/meter", b'{"t": %d}' % number)])
            await gateway_plant.wait(
                lambda number=number: gateway_plant.outbox() == [number], f"spoiled {way}: not confirmed"
            )
            await gateway_plant.publish([("plant/meter", b'{"t": %d}' % (number + 1))])
            await gateway_plant.wait(lambda number=number: gateway_plant.outbox() == [number + 1], "nor the next one")
            device.tamper = lambda _, packet: packet
            await gateway_plant.wait(lambda: gateway_plant.outbox() == [], "confirmed by a sound one", 8)
            assert device.register(0) == number + 1
        assert 3 not in device.history(0)

        complaints = gateway_plant.output.count("no answer")
        device.tamper = lambda direction, packet: b"\x00\xff\x01" + packet if direction == "out" else packet
        await gateway_plant.publish([("plant/meter", b'{"t": 5}')])
        await gateway_plant.wait(lambda: device.register(0) == 5, "noise before a sound reply does no harm")
        await asyncio.sleep(0.5)
        assert gateway_plant.outbox() == []
        assert device.history(0)[-1:] == [5]
        assert gateway_plant.output.count("no answer") == complaints


async def test_a_serial_adapter_that_is_plugged_in_after_the_start(gateway_plant: Plant, tmp_path: Path) -> None:
    line = SerialLine(tmp_path)
    async with Peer(Transport.TCP) as neighbour:
        gateway_plant.device("meter", tags=[tag("t", 0)], **serial(line))
        gateway_plant.device("neighbour", neighbour.port, [tag("t", 0)])
        await gateway_plant.start()
        for number in range(1, 31):
            await gateway_plant.publish(
                [("plant/meter", b'{"t": %d}' % number), ("plant/neighbour", b'{"t": %d}' % number)]
            )
            await gateway_plant.wait(
                lambda number=number: neighbour.register(0) == number, "the neighbour is served", 1
            )
            await asyncio.sleep(0.05)
        await gateway_plant.wait(lambda: gateway_plant.outbox() == [30], "the latest value is on disk")
        told = [text for text in gateway_plant.output.splitlines() if line.near in text]
        assert len(told) == 1, told
        assert "offline" in told[0]
        assert "No such file" in told[0]
        with line:
            async with Peer(Transport.SERIAL, serial_port=line.far) as device:
                await gateway_plant.wait(lambda: device.register(0) == 30, "written when the adapter is there", 8)
                await gateway_plant.wait(lambda: gateway_plant.outbox() == [], "the outbox is empty")
                assert device.history(0) == [30]

"""Every driver with something real behind it, for the contract suite. A driver is added by one entry in RIGS."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from drivers._blueprint.configuration import LineAddress, LineNetwork, LineOptions
from drivers._blueprint.driver import DRIVER as BLUEPRINT
from drivers.contract import Driver, Link, Point
from drivers.modbus.driver import DRIVER as MODBUS
from drivers.simulated.driver import DRIVER as SIMULATED
from scada.modbus.endpoint import Transport
from scada.modbus.limits import Table
from scada.modbus.registers import RegisterType
from scada.protocols.modbus import ModbusAddress, ModbusNetwork, ModbusOptions
from scada.protocols.simulated import Model, SimulatedAddress, SimulatedNetwork, SimulatedOptions
from scada.values import Value
from tests.support.fault_device import FaultDevice
from tests.support.line_peer import LinePeer
from tests.support.modbus_peer import Peer

TIMEOUT_S = 0.5
Answer = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Control:
    """What a test does to the peer: takes it away, brings it back, makes it answer in a mode.

    Every peer has the modes "good", "silent", and "late": an answer to the request before stands in front of the right one.
    """

    lose: Callable[[], Awaitable[None]]
    come_back: Callable[[], Awaitable[None]]
    answer: Answer


@dataclass(slots=True)
class Rig:
    """A driver, its network and points. `writable` are of one unit, fit into one request and take `first`, then `second`.

    `read_only` can be read, and a write to it is refused; `unknown` does not exist in the device, but in its network; to
    `silent` nobody answers, though its link is up. `misfit` is no value for the first of `writable`.
    """

    driver: Driver
    network: Any
    other_network: Any
    writable: Sequence[Point]
    first: Sequence[Value]
    second: Sequence[Value]
    read_only: Point
    unknown: Point
    misfit: Value
    silent: Point | None = None
    control: Control | None = None
    links: list[Link] = field(default_factory=list)

    def open(self) -> Link:
        """A new link, closed at the end of the test."""
        link = self.driver.open(self.network)
        self.links.append(link)
        return link

    async def connected(self) -> Link:
        link = self.open()
        await link.connect()
        return link


@dataclass(frozen=True, slots=True)
class Maker:
    """How a rig is made. `wrong` are modes of its peer in which no value may be taken for good."""

    make: Callable[[], AbstractAsyncContextManager[Rig]]
    wrong: tuple[str, ...] = ()
    has_peer: bool = True


def _points(driver: Driver, network: Any, options: Any, *addresses: Any) -> list[Point]:
    return [
        Point(index, f"t{index}", driver.unit(address), network, address, options)
        for index, address in enumerate(addresses)
    ]


@asynccontextmanager
async def _simulated() -> AsyncIterator[Rig]:
    network = SimulatedNetwork(Model.WAVEFORMS)
    names = ("period_s", "amplitude", "sine", "cosine")
    addresses = [SimulatedAddress(name) for name in names]
    *writable, read_only, unknown = _points(SIMULATED, network, SimulatedOptions(), *addresses)
    other = SimulatedNetwork(Model.TANK)
    yield Rig(SIMULATED, network, other, writable, (7.5, 0.0), (60.0, 12.0), read_only, unknown, "much")


@asynccontextmanager
async def _blueprint() -> AsyncIterator[Rig]:
    values = {"a": 0.0, "b": 0, "c": False, "d": "", "e": 7.5}
    async with LinePeer({1: values}, read_only=("e",)) as peer:
        network = LineNetwork("127.0.0.1", peer.port, TIMEOUT_S)

        async def answer(mode: str) -> None:
            peer.mode = mode

        addresses = [LineAddress("nobody", unit=9), *(LineAddress(name) for name in (*values, "unknown"))]
        silent, *writable, read_only, unknown = _points(BLUEPRINT, network, LineOptions(), *addresses)
        yield Rig(
            BLUEPRINT,
            network,
            LineNetwork("127.0.0.1", peer.port + 1),
            writable,
            (21.5, -3, True, "warm"),
            (-0.25, 2**40, False, 'cold, \n"dry"'),
            read_only,
            unknown,
            float("nan"),
            silent,
            Control(peer.stop, peer.start, answer),
        )


def _modbus(network: ModbusNetwork, control: Control) -> Rig:
    silent, *writable, read_only, unknown = _points(
        MODBUS,
        network,
        ModbusOptions(),
        ModbusAddress(5, 9),
        ModbusAddress(10, 1, type=RegisterType.FLOAT32),
        ModbusAddress(12, 1, type=RegisterType.INT32),
        ModbusAddress(14, 1),
        ModbusAddress(5, 1, Table.INPUT_REGISTER),
        ModbusAddress(319 + 1, 1),
    )
    other = ModbusNetwork(host="127.0.0.1", port=network.port + 1)
    values = ((21.5, -70_000, 7), (-0.25, 1_000_000, 65_535))
    return Rig(MODBUS, network, other, writable, *values, read_only, unknown, "much", silent, control)


def _late(packet: bytes) -> bytes:
    """The packet as an answer to the request before it, with other values."""
    transaction = int.from_bytes(packet[:2], "big") - 1 & 0xFFFF
    return transaction.to_bytes(2, "big") + packet[2:9] + b"\x07" * len(packet[9:])


@asynccontextmanager
async def _pymodbus() -> AsyncIterator[Rig]:
    tampering: dict[str, Callable[[bytes], bytes]] = {
        "good": lambda packet: b"" if packet[6] == 9 else packet,
        "silent": lambda _: b"",
        "late": lambda packet: _late(packet) + packet,
        "other_unit": lambda packet: packet[:6] + b"\x07" + packet[7:],
        "other_function": lambda packet: packet[:7] + b"\x01" + packet[8:],
        "cut": lambda packet: packet[:-1],
    }
    async with Peer(Transport.TCP) as peer:

        async def answer(mode: str) -> None:
            peer.tamper = lambda way, packet: tampering[mode](packet) if way == "out" else packet

        await answer("good")
        network = ModbusNetwork(host="127.0.0.1", port=peer.port, timeout_s=TIMEOUT_S)
        yield _modbus(network, Control(peer.stop, peer.start, answer))


@asynccontextmanager
async def _fault_device() -> AsyncIterator[Rig]:
    async with FaultDevice() as device:
        device.illegal = {320}
        device.absent = {9}

        async def answer(mode: str) -> None:
            await device.set_mode(
                {"silent": "never", "late": "stale_then_good"}.get(mode, mode), {"exc": 4, "slow": 200}.get(mode, 0)
            )

        async def lose() -> None:
            await device.set_mode("refuse")

        network = ModbusNetwork(host="127.0.0.1", port=device.port, timeout_s=TIMEOUT_S)
        yield _modbus(network, Control(lose, lambda: device.set_mode("good"), answer))


_WRONG = (
    "wrong_tid", "zero_tid", "wrong_unit", "wrong_proto", "wrong_fc", "fewer_regs", "bytecount_lies", "trunc", "trunc_stall",
    "len_huge", "exc", "garbage", "slow", "rst", "fin",
)  # fmt: skip

RIGS = {
    "simulated": Maker(_simulated, has_peer=False),
    "blueprint": Maker(_blueprint, LinePeer.MODES),
    "modbus with pymodbus' server": Maker(_pymodbus, ("other_unit", "other_function", "cut")),
    "modbus with a faulty device": Maker(_fault_device, _WRONG),
}


def open_sockets() -> set[str]:
    """What this process has open now."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found

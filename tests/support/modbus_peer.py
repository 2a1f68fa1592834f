"""A Modbus device that we did not write (pymodbus' server), on every transport, with a ledger of what was written to it."""

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusUdpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from scada.modbus.endpoint import Transport
from tests.support.processes import free_port

_SIZE = 320
_COIL_FUNCTIONS = (1, 5, 15)


@dataclass(frozen=True, slots=True)
class Written:
    """One write that was carried out: its values are register contents, or bits as booleans."""

    unit_id: int
    function: int
    address: int
    values: tuple[int, ...]


class Peer:
    """Units of 320 coils and holding registers each.

    `tamper` may change each packet: it is called with "in" or "out" and the packet. With RTU frames, the units in `silent`
    hear nothing; `unheard` counts the requests for them. `async with` starts it; `stop` and `start` take it away and bring
    it back in the same place.
    """

    def __init__(
        self,
        transport: Transport,
        units: Iterable[int] = (1,),
        *,
        port: int = 0,
        serial_port: str = "",
        listen: Callable[[], socket.socket] | None = None,
    ) -> None:
        """`listen` makes the TCP socket to serve instead of `port` on loopback; `serial_port` is at 115,200 baud."""
        self.transport, self.port, self.serial_port = transport, port, serial_port
        self.tamper: Callable[[str, bytes], bytes] = lambda _, packet: packet
        self.silent: set[int] = set()
        self.unheard = 0
        self.written: list[Written] = []
        self._units = tuple(units)
        self._listen = listen
        self._held: dict[tuple[int, bool, int], int] = {}
        self._server: ModbusTcpServer | ModbusUdpServer | ModbusSerialServer | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Serve; what was written before is still there."""
        devices = [self._unit(unit_id) for unit_id in self._units]
        options: dict[str, Any] = {"trace_packet": self._trace}
        self.port = self.port or free_port(socket.SOCK_DGRAM if self.transport is Transport.UDP else socket.SOCK_STREAM)
        if self.transport is Transport.SERIAL:
            self._server = ModbusSerialServer(
                devices, port=self.serial_port, baudrate=115200, framer=FramerType.RTU, reconnect_delay=0.1, **options
            )
        elif self.transport is Transport.UDP:
            self._server = ModbusUdpServer(devices, address=("127.0.0.1", self.port), **options)
        else:
            framer = FramerType.SOCKET if self.transport is Transport.TCP else FramerType.RTU
            self._server = ModbusTcpServer(devices, address=("127.0.0.1", self.port), framer=framer, **options)
            if self._listen is not None:
                sock = self._listen()
                self.port = sock.getsockname()[1]
                create = self._server.loop.create_server
                self._server.call_create = partial(create, self._server.handle_new_connection, sock=sock)
        await self._server.serve_forever(background=True)

    async def stop(self) -> None:
        """Close every connection and listen no more."""
        if self._server is not None:
            await self._server.shutdown()
            self._server = None

    def register(self, address: int, unit_id: int = 1) -> int:
        """What a holding register holds."""
        return self._held.get((unit_id, False, address), 0)

    def coil(self, address: int, unit_id: int = 1) -> bool:
        """What a coil holds."""
        return bool(self._held.get((unit_id, True, address), 0))

    def history(self, address: int, unit_id: int = 1) -> list[int]:
        """Everything that was written into one holding register, in order."""
        return [
            each.values[address - each.address]
            for each in self.written
            if each.unit_id == unit_id
            and each.function not in _COIL_FUNCTIONS
            and each.address <= address < each.address + len(each.values)
        ]

    def _unit(self, unit_id: int) -> SimDevice:
        async def carry_out(function: int, _: int, address: int, __: int, ___: Any, values: Any) -> None:
            if values is None:
                return
            self.written.append(Written(unit_id, function, address, tuple(values)))
            for offset, value in enumerate(values):
                self._held[unit_id, function in _COIL_FUNCTIONS, address + offset] = int(value)

        bits = [SimData(0, count=_SIZE, values=False, datatype=DataType.BITS)]
        words = [
            SimData(address, values=self.register(address, unit_id), datatype=DataType.REGISTERS)
            for address in range(_SIZE)
        ]
        return SimDevice(unit_id, simdata=(bits, bits, words, words), action=carry_out)

    def _trace(self, sending: bool, packet: bytes) -> bytes:
        if not sending and self.silent and packet and packet[0] in self.silent:
            self.unheard += 1
            return spoil(packet)
        return self.tamper("out" if sending else "in", packet)


def spoil(packet: bytes) -> bytes:
    """An RTU frame with a wrong checksum, which nobody heeds."""
    return packet[:-1] + bytes((packet[-1] ^ 1,))

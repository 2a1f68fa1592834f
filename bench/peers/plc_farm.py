"""Many Modbus devices in one process, to be polled: `python -m bench.peers.plc_farm COUNT DEAD`.

Each listens on its own port (printed in one line). Every second all float32 values change: register pair n of a device holds
n + second / 1024, with what was written on top. The first DEAD devices accept connections and never answer. Lines on standard
input: `mark` forgets what was counted so far, `restart` closes every connection and port and opens them again a second later,
`report` prints what was counted and counts from there. At its end it prints that too, as one line of JSON: requests, registers
read, connects by time, and for each device the times of its reads from address 0.
"""

import asyncio
import json
import struct
import sys
from functools import partial
from typing import Any

import uvloop

FLOATS = 1300
HEAD = struct.Struct(">HHHBBHH")
PORT_WAIT_S = 10.0


class Farm:
    """What all devices share."""

    def __init__(self, count: int, dead: int) -> None:
        self.dead = dead
        self.ports = [0] * count
        self.written: list[dict[int, bytes]] = [{} for _ in range(count)]
        self.memory = b""
        self.connections: set[Any] = set()
        self.forget()

    def forget(self) -> None:
        """Count from here."""
        self.requests = self.registers = 0
        self.connects: list[float] = []
        self.reads: list[list[float]] = [[] for _ in self.ports]

    def report(self) -> str:
        """What was counted, as one line."""
        counted = {name: getattr(self, name) for name in ("requests", "registers", "connects", "reads")}
        return json.dumps(counted)

    async def tick(self) -> None:
        """New values every second."""
        second = 0
        while True:
            second += 1
            part = second % 1024 / 1024
            self.memory = struct.pack(f">{FLOATS}f", *(number + part for number in range(FLOATS)))
            await asyncio.sleep(1)


class Device(asyncio.Protocol):
    """One connection to device `number`."""

    def __init__(self, farm: Farm, number: int) -> None:
        self._farm = farm
        self._number = number
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._farm.connections.add(transport)
        self._farm.connects.append(asyncio.get_running_loop().time())

    def connection_lost(self, exc: Exception | None) -> None:
        self._farm.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        farm, number = self._farm, self._number
        if number < farm.dead:
            return
        self._buffer += data
        while len(self._buffer) >= 12:
            size = 6 + int.from_bytes(self._buffer[4:6], "big")
            if len(self._buffer) < size:
                return
            frame, self._buffer = self._buffer[:size], self._buffer[size:]
            transaction, _, _, unit, function, address, count = HEAD.unpack_from(frame)
            written = farm.written[number]
            if function == 3:
                farm.requests += 1
                farm.registers += count
                if address == 0:
                    farm.reads[number].append(asyncio.get_running_loop().time())
                values = farm.memory[2 * address : 2 * (address + count)]
                if written:
                    own = bytearray(values)
                    for register, value in written.items():
                        if address <= register < address + count:
                            own[2 * (register - address) : 2 * (register - address) + 2] = value
                    values = bytes(own)
                self._transport.write(
                    struct.pack(">HHHBBB", transaction, 0, 3 + 2 * count, unit, 3, 2 * count) + values
                )
            else:
                for index in range(count):
                    written[address + index] = frame[13 + 2 * index : 15 + 2 * index]
                self._transport.write(frame[:4] + struct.pack(">H", 6) + frame[6:12])


async def serve(count: int, dead: int) -> None:
    """Until the end of standard input."""
    loop = asyncio.get_running_loop()
    farm = Farm(count, dead)
    ticking = asyncio.create_task(farm.tick())

    async def open_port(number: int) -> Any:
        # After a restart some client, which may be who polls, can have got the port for a moment.
        until = loop.time() + PORT_WAIT_S
        while True:
            try:
                return await loop.create_server(partial(Device, farm, number), "127.0.0.1", farm.ports[number])
            except OSError:
                if loop.time() > until:
                    raise
                await asyncio.sleep(0.05)

    async def listen() -> list[Any]:
        servers = []
        for number in range(count):
            server = await open_port(number)
            farm.ports[number] = server.sockets[0].getsockname()[1]
            servers.append(server)
        return servers

    servers = await listen()
    print(*farm.ports, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line == "mark\n":
            farm.forget()
        elif line == "restart\n":
            for server in servers:
                server.close()
            for transport in list(farm.connections):
                transport.abort()
            await asyncio.sleep(1)
            servers = await listen()
        elif line == "report\n":
            print(farm.report(), flush=True)
            farm.forget()
            continue
        print("done", flush=True)
    ticking.cancel()
    print(farm.report(), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), int(sys.argv[2])))

"""Many small Modbus devices in one process: `python -m bench.peers.device_farm COUNT DEAD`.

Each listens on its own port and confirms FC16 writes; the first DEAD of them accept connections and never answer. Prints the
ports in one line; at the end of its standard input, `device value monotonic_time` for every write (value: two registers).
"""

import asyncio
import struct
import sys

WRITES: list[tuple[int, int, float]] = []


class Device(asyncio.Protocol):
    """One connection to device `number`."""

    def __init__(self, number: int, dead: bool) -> None:
        self._number = number
        self._dead = dead
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._dead:
            return
        self._buffer += data
        while len(self._buffer) >= 6:
            size = 6 + int.from_bytes(self._buffer[4:6], "big")
            if len(self._buffer) < size:
                return
            frame, self._buffer = self._buffer[:size], self._buffer[size:]
            assert frame[7] == 16, f"function {frame[7]}"
            value = int.from_bytes(frame[13:17], "big")
            WRITES.append((self._number, value, asyncio.get_running_loop().time()))
            self._transport.write(frame[:4] + struct.pack(">H", 6) + frame[6:12])


async def run(count: int, dead: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda n=number: Device(n, n < dead), "127.0.0.1", 0)  # type: ignore[misc]  # the lambda's default
        for number in range(count)
    ]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for write in WRITES:
        print(*write)


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), int(sys.argv[2])))

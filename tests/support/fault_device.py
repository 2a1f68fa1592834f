"""A Modbus device that misbehaves on purpose, on bare asyncio sockets: the devices of rows D1-D8.

In a test: `async with FaultDevice() as device: device.mode = "wrong_tid"`; or `await device.set_mode("refuse")`, which
concerns listening too. As a process: `python -m tests.support.fault_device --port N --mode M`; it prints `listening N`,
takes `MODE [ARGUMENT]` lines on stdin, and ends when stdin does.
"""

import argparse
import asyncio
import contextlib
import random
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from tests.support.processes import free_port

EXCEPTION_CODES = (1, 2, 3, 4, 5, 6, 8, 10, 11, 0, 255)
FLOOD_BYTES = 13_000_000
FIN, RST = "fin", "rst"
Step = bytes | float | str  # bytes to send, seconds to wait, FIN or RST


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    time_s: float
    mode: str
    transaction: int
    unit_id: int
    pdu: bytes


class FaultDevice:
    """Listens on loopback; `framing` is "tcp" (MBAP), "udp" (MBAP) or "rtu" (RTU frames over TCP).

    `registers` and `bits` are the store behind every unit and table; only modes that confirm properly change it.
    `missing` functions answer exception 1, requests that touch an `illegal` address exception 2; a `forgetful` device
    confirms writes and keeps nothing; `absent` units are silent in mode good. `argument` belongs to the mode: the code of
    `exc`, seconds of `delay`, milliseconds per byte of `slow`.
    """

    def __init__(
        self,
        mode: str = "good",
        argument: float = 0,
        *,
        framing: str = "tcp",
        listen: Callable[[], socket.socket] | None = None,
    ) -> None:
        """`listen` makes the TCP socket to serve, instead of one on loopback."""
        self.mode, self.argument, self.framing = mode, argument, framing
        self.port = 0
        self._listen = listen
        self.registers = [0] * 65536
        self.bits = [False] * 65536
        self.missing: set[int] = set()
        self.illegal: set[int] = set()
        self.forgetful = False
        self.absent: set[int] = set()
        self.seen: list[Seen] = []
        self.accepted_s: list[float] = []
        self._listener: asyncio.Server | asyncio.DatagramTransport | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def listen(self, port: int = 0) -> None:
        """Start to listen, on the same port as before when there was one."""
        kind = socket.SOCK_DGRAM if self.framing == "udp" else socket.SOCK_STREAM
        self.port = self.port or port or (free_port(kind) if self._listen is None else 0)
        if self.framing == "udp":
            loop = asyncio.get_running_loop()
            self._listener, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port)
            )
            return
        if self._listen is not None:
            self._listener = await asyncio.start_server(self._serve, sock=self._listen())
        else:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def set_mode(self, mode: str, argument: float = 0) -> None:
        """Change the mode; `refuse` closes the listener and every connection, any other opens it again."""
        self.mode, self.argument = mode, argument
        if mode == "refuse":
            await self.stop()
        elif self._listener is None:
            await self.listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted_s.append(time.monotonic())
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while self.mode != "accept_close":
                seen = await (_read_rtu if self.framing == "rtu" else _read_mbap)(reader, self.mode)
                for step in self.answer(seen):
                    if step == RST:
                        linger = struct.pack("ii", 1, 0)
                        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    if isinstance(step, str):
                        writer.transport.abort() if step == RST else writer.close()
                        return
                    if isinstance(step, bytes):
                        writer.write(step)
                        await writer.drain()
                    else:
                        await asyncio.sleep(step)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def play_datagrams(self, seen: Seen, send: Callable[[bytes], None]) -> None:
        for step in self.answer(seen):
            if isinstance(step, bytes):
                send(step)
            elif isinstance(step, float):
                await asyncio.sleep(step)

    def answer(self, seen: Seen) -> Iterator[Step]:
        """What the device does about one request in its present mode."""
        self.seen.append(seen)
        return _MODES[self.mode](self, seen)

    def frame(
        self, seen: Seen, pdu: bytes, *, tid: int | None = None, unit: int | None = None, proto: int = 0
    ) -> bytes:
        tid, unit = seen.transaction if tid is None else tid & 0xFFFF, seen.unit_id if unit is None else unit & 0xFF
        if self.framing == "rtu":
            body = bytes((unit,)) + pdu
            return body + crc(body)
        return struct.pack(">HHHB", tid, proto, len(pdu) + 1, unit) + pdu

    def execute(self, pdu: bytes) -> bytes:
        """Carry out a well-formed request and make the proper reply."""
        function, address, second = struct.unpack(">BHH", pdu[:5])
        if function in self.missing:
            return bytes((function | 0x80, 1))
        count = 1 if function in (5, 6, 22) else second
        if not self.illegal.isdisjoint(range(address, address + count)):
            return bytes((function | 0x80, 2))
        if self.forgetful and function in (5, 6, 15, 16, 22):
            return pdu if function in (5, 6, 22) else pdu[:5]
        if function in (1, 2):
            packed = sum(bit << i for i, bit in enumerate(self.bits[address : address + second]))
            data = packed.to_bytes((second + 7) // 8, "little")
        elif function in (3, 4):
            data = struct.pack(f">{second}H", *self.registers[address : address + second])
        elif function == 5:
            self.bits[address] = second == 0xFF00
            return pdu
        elif function == 6:
            self.registers[address] = second
            return pdu
        elif function == 15:
            for i in range(second):
                self.bits[address + i] = bool(pdu[6 + i // 8] >> i % 8 & 1)
            return pdu[:5]
        elif function == 16:
            self.registers[address : address + second] = struct.unpack(f">{second}H", pdu[6:])
            return pdu[:5]
        elif function == 22:
            mask = int.from_bytes(pdu[5:7], "big")
            self.registers[address] = self.registers[address] & second | mask & ~second
            return pdu
        else:
            return bytes((function | 0x80, 1))
        return bytes((function, len(data))) + data


def _good(device: FaultDevice, seen: Seen) -> Iterator[Step]:
    if seen.unit_id not in device.absent:
        yield device.frame(seen, device.execute(seen.pdu))


def _altered(alter: Callable[[bytes], bytes]) -> Callable[[FaultDevice, Seen], Iterator[Step]]:
    """A reply in a sound frame that was changed, without doing what was asked for."""

    def mode(device: FaultDevice, seen: Seen) -> Iterator[Step]:
        yield device.frame(seen, alter(_pretend(device, seen)))

    return mode


def _header(**wrong: int) -> Callable[[FaultDevice, Seen], Iterator[Step]]:
    """The reply under a wrong header; tid and unit are relative to the request's, proto is absolute."""

    def mode(device: FaultDevice, seen: Seen) -> Iterator[Step]:
        tid, unit = seen.transaction + wrong.get("tid", 0), seen.unit_id + wrong.get("unit", 0)
        yield device.frame(seen, _pretend(device, seen), tid=tid, unit=unit, proto=wrong.get("proto", 0))

    return mode


def _pretend(device: FaultDevice, seen: Seen) -> bytes:
    """The reply of a device that does nothing: its registers read 0xDEAD, its bits 1, and every write is confirmed."""
    function, count = seen.pdu[0], int.from_bytes(seen.pdu[3:5], "big")
    if function in (1, 2):
        return bytes((function, (count + 7) // 8)) + b"\xff" * ((count + 7) // 8)
    if function in (3, 4):
        return bytes((function, 2 * count)) + b"\xde\xad" * count
    return seen.pdu[:5] if function in (15, 16) else seen.pdu


def _fewer(pdu: bytes) -> bytes:
    if pdu[0] <= 4:
        cut = 2 if pdu[0] > 2 else 1
        return bytes((pdu[0], pdu[1] - cut)) + pdu[2:-cut]
    return pdu[:3] + (int.from_bytes(pdu[3:5], "big") - 1 & 0xFFFF).to_bytes(2, "big") + pdu[5:]


def _byte_count_lies(pdu: bytes) -> bytes:
    return bytes((pdu[0], pdu[1] + 2)) + pdu[2:] if pdu[0] <= 4 else pdu[:-1]


def _add(offset: int, amount: int) -> Callable[[bytes], bytes]:
    return lambda pdu: pdu[:offset] + bytes((pdu[offset] + amount & 0xFF,)) + pdu[offset + 1 :]


def _zero_tid(device: FaultDevice, seen: Seen) -> Iterator[Step]:
    yield device.frame(seen, _pretend(device, seen), tid=0)


def _stale_then_good(device: FaultDevice, seen: Seen) -> Iterator[Step]:
    yield device.frame(seen, _pretend(device, seen), tid=seen.transaction - 1)
    yield device.frame(seen, device.execute(seen.pdu))


def _twice(device: FaultDevice, seen: Seen) -> Iterator[Step]:
    yield device.frame(seen, device.execute(seen.pdu)) * 2


def _chatter(device: FaultDevice, seen: Seen) -> Iterator[Step]:
    yield device.frame(seen, device.execute(seen.pdu))
    yield 0.02
    yield b"\x00\xff\x00"


def _delay(device: FaultDevice, seen: Seen) -> Iterator[Step]:
    yield float(device.argument)
    yield device.frame(seen, device.execute(seen.pdu))


def _slow(device: FaultDevice, seen: Seen) -> Iterator[Step]:
    for byte in device.frame(seen, device.execute(seen.pdu)):
        yield float(device.argument or 30) / 1000
        yield bytes((byte,))


def _trunc(device: FaultDevice, seen: Seen) -> Iterator[Step]:
    whole = device.frame(seen, _pretend(device, seen))
    yield whole[: int(device.argument) or len(whole) - 2]
    yield FIN if device.mode == "trunc" else 0.0


def _len_huge(device: FaultDevice, seen: Seen) -> Iterator[Step]:
    whole = device.frame(seen, _pretend(device, seen))
    yield whole[:4] + b"\xff\xff" + whole[6:]


def _exc(device: FaultDevice, seen: Seen) -> Iterator[Step]:
    code = EXCEPTION_CODES[(len(device.seen) - 1) % len(EXCEPTION_CODES)]
    yield device.frame(seen, bytes((seen.pdu[0] | 0x80, int(device.argument) if device.mode == "exc" else code)))


def _garbage(device: FaultDevice, seen: Seen) -> Iterator[Step]:
    yield random.Random(len(device.seen)).randbytes(int(device.argument) or 200)


def _flood(device: FaultDevice, seen: Seen) -> Iterator[Step]:
    stale = device.frame(seen, _pretend(device, seen), tid=seen.transaction + 1000) * 1000
    for _ in range(0, FLOOD_BYTES, len(stale)):
        yield stale


def _flap(device: FaultDevice, seen: Seen) -> Iterator[Step]:
    return iter((RST,)) if len(device.seen) % 3 == 0 else _good(device, seen)


_MODES: dict[str, Callable[[FaultDevice, Seen], Iterator[Step]]] = {
    "good": _good,
    "never": lambda _, __: iter(()),
    "wrong_tid": _header(tid=7),
    "zero_tid": _zero_tid,
    "stale_then_good": _stale_then_good,
    "wrong_unit": _header(unit=1),
    "wrong_proto": _header(proto=0x1234),
    "wrong_fc": _altered(_add(0, 1)),
    "fewer_regs": _altered(_fewer),
    "bytecount_lies": _altered(_byte_count_lies),
    "trunc": _trunc,
    "trunc_stall": _trunc,
    "len_huge": _len_huge,
    "exc": _exc,
    "exc_cycle": _exc,
    "garbage": _garbage,
    "flood": _flood,
    "slow": _slow,
    "rst": lambda _, __: iter((RST,)),
    "fin": lambda _, __: iter((FIN,)),
    "accept_close": _good,  # for a connection that stood before; a new one is closed at once
    "refuse": _good,
    "flap": _flap,
    "delay": _delay,
    "twice": _twice,
    "chatter": _chatter,
    "wrong_echo_address": _altered(_add(2, 1)),
    "wrong_echo_quantity": _altered(_add(4, 1)),
    "wrong_echo_value": _altered(lambda pdu: pdu[:-1] + bytes((pdu[-1] ^ 1,))),
}


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, device: FaultDevice) -> None:
        self._device = device
        self._transport: Any = None  # a DatagramTransport, which asyncio's own is not one of in Python 3.11
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        seen = Seen(time.monotonic(), self._device.mode, int.from_bytes(data[:2], "big"), data[6], data[7:])
        play = self._device.play_datagrams(seen, lambda reply: self._transport.sendto(reply, addr))
        task = asyncio.get_running_loop().create_task(play)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def crc(body: bytes) -> bytes:
    """The RTU checksum, bit by bit as the specification's annex tells it: on purpose not the code under test."""
    value = 0xFFFF
    for byte in body:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return struct.pack("<H", value)


async def _read_mbap(reader: asyncio.StreamReader, mode: str) -> Seen:
    tid, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
    return Seen(time.monotonic(), mode, tid, unit, await reader.readexactly(length - 1))


async def _read_rtu(reader: asyncio.StreamReader, mode: str) -> Seen:
    head = await reader.readexactly(7)
    rest = {15: head[6] + 2, 16: head[6] + 2, 22: 3}.get(head[1], 1)
    whole = head + await reader.readexactly(rest)
    return Seen(time.monotonic(), mode, 0, whole[0], whole[1:-2])


async def _main() -> None:
    parser = argparse.ArgumentParser(description="a Modbus device that misbehaves on purpose")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mode", choices=sorted(_MODES), default="good")
    parser.add_argument("--argument", type=float, default=0)
    parser.add_argument("--framing", choices=("tcp", "udp", "rtu"), default="tcp")
    options = parser.parse_args()
    device = FaultDevice(options.mode, options.argument, framing=options.framing)
    await device.listen(options.port)
    if device.mode == "refuse":
        await device.stop()
    print(f"listening {device.port}", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        mode, *argument = line.split() or [device.mode]
        if mode not in _MODES:
            print(f"no mode {mode!r}", flush=True)
            continue
        await device.set_mode(mode, float(argument[0]) if argument else 0)
        print(f"mode {mode}", flush=True)
    await device.stop()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())

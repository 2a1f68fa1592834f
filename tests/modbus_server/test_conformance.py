"""Every function at each limit and beside it, asked of the real server over the wire (APS 6 and 7, Figures 11 to 30).

Each case is asked twice, since the server answers a request that it knows on a shorter way, and afterwards the registers
around every edge must be what they were, but for what the case says that it changes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.modbus_wire import Wire, modbus_server

SPARSE_MAP = """
[[unit]]
ids = [1]
coil = ["10-20", "30"]
discrete_input = ["5-9"]
holding_register = ["100-109", "110-119", "200", "65530-65535"]
input_register = ["0-9", "65535"]
"""


def register(address: int) -> int:
    return address * 40503 + 77 & 0xFFFF


def coil(address: int) -> int:
    return address * 40503 >> 7 & 1


def words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in numbers)


def pack(bits: list[int]) -> bytes:
    packed = bytearray((len(bits) + 7) // 8)
    for place, bit in enumerate(bits):
        packed[place // 8] |= bit << place % 8
    return bytes(packed)


def registers(address: int, count: int) -> bytes:
    return words(*(register(each) for each in range(address, address + count)))


def coils(address: int, count: int) -> bytes:
    return pack([coil(each) for each in range(address, address + count)])


class Case(NamedTuple):
    request: bytes
    response: bytes
    registers: Mapping[int, int] = {}
    """What it changes: new values by address."""
    coils: Mapping[int, int] = {}


def refused(code: int, request: bytes) -> Case:
    return Case(request, bytes((request[0] | 0x80, code)))


def read(function: int, address: int, count: int) -> bytes:
    return bytes((function,)) + words(address, count)


def read_ok(function: int, address: int, count: int) -> Case:
    data = {
        1: coils(address, count),
        2: bytes((count + 7) // 8),
        3: registers(address, count),
        4: bytes(2 * count),
    }[function]
    return Case(read(function, address, count), bytes((function, len(data))) + data)


def write(function: int, address: int, count: int, byte_count: int, data: bytes) -> bytes:
    return bytes((function,)) + words(address, count) + bytes((byte_count,)) + data


def write_ok(function: int, address: int, count: int) -> Case:
    if function == 15:
        bits = [1 - coil(address + step) for step in range(count)]
        request = write(15, address, count, (count + 7) // 8, pack(bits))
        return Case(request, request[:5], coils={address + step: bit for step, bit in enumerate(bits)})
    values = [register(address + step) ^ 0xFFFF for step in range(count)]
    request = write(16, address, count, 2 * count, words(*values))
    return Case(request, request[:5], registers={address + step: value for step, value in enumerate(values)})


def both(
    address: int,
    count: int,
    write_address: int,
    write_count: int,
    byte_count: int | None = None,
    size: int | None = None,
) -> bytes:
    byte_count = 2 * write_count & 0xFF if byte_count is None else byte_count
    data = b"\xa5" * (byte_count if size is None else size)
    return b"\x17" + words(address, count, write_address, write_count) + bytes((byte_count,)) + data


def both_ok(address: int, count: int, write_address: int, write_count: int) -> Case:
    written = {write_address + step: 0xA5A5 for step in range(write_count)}
    data = words(*(written.get(each, register(each)) for each in range(address, address + count)))
    request = both(address, count, write_address, write_count)
    return Case(request, bytes((0x17, len(data))) + data, registers=written)


def coil_ok(address: int, on: bool) -> Case:
    request = b"\x05" + words(address, 0xFF00 if on else 0)
    return Case(request, request, coils={address: int(on)})


def register_ok(address: int, value: int) -> Case:
    request = b"\x06" + words(address, value)
    return Case(request, request, registers={address: value})


def mask_ok(address: int, and_mask: int, or_mask: int, result: int) -> Case:
    request = b"\x16" + words(address, and_mask, or_mask)
    return Case(request, request, registers={address: result})


def sizes(good: bytes, *surplus: int) -> Iterator[Case]:
    """A request cut after every byte, or with bytes too many: its structure is at fault (APS 7, code 03)."""
    yield from (refused(3, good[:size]) for size in range(1, len(good)))
    yield from (refused(3, good + bytes(more)) for more in surplus)


def everywhere() -> Iterator[Case]:
    """What is refused before any address is looked at: it holds for an address that exists, and for one that does not."""
    for address in (0, 100, 0xFFFF):
        for function, most in ((1, 2000), (2, 2000), (3, 125), (4, 125)):  # Figures 11 to 14
            for count in (0, most + 1, most + 2, 0x7FFF, 0x8001, 0xFFFF):
                yield refused(3, read(function, address, count))
        for value in (0x0001, 0x00FF, 0x0100, 0xFE00, 0xFF01, 0xFFFF, 0x8000):  # Figure 15
            yield refused(3, b"\x05" + words(address, value))
        for count, byte_count, size in (  # Figure 21
            (0, 0, 0), (0, 1, 1), (1, 0, 0), (1, 2, 2), (8, 2, 2), (9, 1, 1), (9, 3, 3), (9, 2, 1), (9, 2, 3),
            (9, 1, 2), (9, 3, 2),
            (1967, 247, 247), (1968, 245, 245), (1968, 246, 245), (1968, 246, 247), (1969, 246, 246), (1969, 247, 247),
            (0x8001, 1, 1), (0xFFFF, 255, 247),
        ):  # fmt: skip
            yield refused(3, write(15, address, count, byte_count, bytes(size)))
        for count, byte_count, size in (  # Figure 22
            (0, 0, 0), (0, 2, 2), (1, 0, 0), (1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 3), (1, 3, 3), (1, 4, 4), (2, 2, 2),
            (122, 246, 246), (123, 244, 244), (123, 246, 245), (123, 246, 247), (124, 246, 246), (124, 248, 247),
            (0x8001, 2, 2), (0xFFFF, 254, 247),
        ):  # fmt: skip
            yield refused(3, write(16, address, count, byte_count, bytes(size)))
        for write_address in (0, 0xFFFF):  # Figure 27
            for count, write_count, byte_count, size in (
                (0, 1, 2, 2), (126, 1, 2, 2), (0xFFFF, 1, 2, 2), (1, 0, 0, 0), (1, 122, 244, 243), (1, 0xFFFF, 254, 243),
                (1, 1, 1, 1), (1, 1, 2, 1), (1, 1, 2, 3), (1, 1, 4, 4), (1, 2, 2, 2), (1, 121, 240, 240), (1, 121, 242, 243),
            ):  # fmt: skip
                yield refused(3, both(address, count, write_address, write_count, byte_count, size))
    for function in (1, 2, 3, 4):
        yield from sizes(read(function, 100, 1), 1, 2, 7, 248)
    yield from sizes(b"\x05" + words(10, 0xFF00), 1, 2, 248)
    yield from sizes(b"\x06" + words(100, 1), 1, 2, 248)
    yield from sizes(write(15, 10, 3, 1, b"\x05"), 1, 246)
    yield from sizes(write(16, 100, 1, 2, b"\x12\x34"), 1, 2, 245)
    yield from sizes(b"\x16" + words(100, 0, 0), 1, 2, 246)
    yield from sizes(both(100, 1, 101, 1), 1, 2, 241)


def beyond_the_table() -> Iterator[Case]:
    """Address + quantity past 65536 is an illegal address, wherever the map has everything else."""
    for function, most in ((1, 2000), (2, 2000), (3, 125), (4, 125)):
        for count in (1, 2, most - 1, most):
            yield read_ok(function, 0x10000 - count, count)
        for count in (2, most - 1, most):
            yield refused(2, read(function, 0x10000 - count + 1, count))
        yield read_ok(function, 0, most)
        yield refused(2, read(function, 0xFFFF, most))
    for function, most in ((15, 1968), (16, 123)):
        for count in (1, 2, 7, 8, 9, most - 1, most):
            yield write_ok(function, 0, count)
            yield write_ok(function, 0x10000 - count, count)
            if count > 1:
                good = write_ok(function, 0x10000 - count, count).request
                yield refused(2, good[:1] + words(0x10000 - count + 1) + good[3:])
    for address in (0, 1, 7, 8, 0xFFFE, 0xFFFF):
        yield from (coil_ok(address, on) for on in (False, True))
        yield from (register_ok(address, value) for value in (0, 1, 0x8000, 0xFFFF))
        yield mask_ok(address, 0xFFFF, 0xABCD, register(address))
        yield mask_ok(address, 0, 0xABCD, 0xABCD)
        yield mask_ok(address, 0xFF00, 0x0F0F, register(address) & 0xFF00 | 0x0F)
        yield mask_ok(address, 0xF00F, 0, register(address) & 0xF00F)
    for where in ((0, 125, 0, 121), (0, 1, 4, 1), (0, 3, 1, 1), (65411, 125, 65415, 121), (0xFFFF, 1, 0xFFFF, 1)):
        yield both_ok(*where)
    for where in ((65412, 125, 0, 1), (0xFFFF, 2, 0, 1), (0, 1, 65416, 121), (0, 1, 0xFFFF, 2), (0xFFFF, 2, 0xFFFF, 2)):
        yield refused(2, both(*where))


def outside_the_map() -> Iterator[Case]:
    """At both edges of each span of SPARSE_MAP, and across what is between two."""
    spans = {
        1: ((10, 20), (30, 30)),
        2: ((5, 9),),
        3: ((100, 119), (200, 200), (65530, 65535)),
        4: ((0, 9), (65535, 65535)),
    }
    for function, mapped in spans.items():
        for first, last in mapped:
            yield read_ok(function, first, 1)
            yield read_ok(function, last, 1)
            yield read_ok(function, first, last - first + 1)
            yield refused(2, read(function, first, last - first + 2))
            if first:
                yield refused(2, read(function, first - 1, 1))
                yield refused(2, read(function, first - 1, last - first + 2))
            if last < 0xFFFF:
                yield refused(2, read(function, last + 1, 1))
                yield refused(2, read(function, last, 2))
    yield refused(2, read(1, 20, 11))
    yield refused(2, read(1, 10, 2000))
    yield refused(2, read(3, 119, 82))
    yield refused(2, read(3, 100, 125))
    for address in (9, 21, 29, 31, 0, 0xFFFF):
        yield refused(2, b"\x05" + words(address, 0xFF00))
        yield refused(2, write(15, address, 1, 1, b"\x01"))
    for address in (99, 120, 199, 201, 65529, 0):
        yield refused(2, b"\x06" + words(address, 1))
        yield refused(2, b"\x16" + words(address, 0, 0))
        yield refused(2, write(16, address, 1, 2, b"\x00\x01"))
        yield refused(2, both(address, 1, 100, 1))
        yield refused(2, both(100, 1, address, 1))
    for address in (10, 20, 30):
        yield from (coil_ok(address, on) for on in (False, True))
        yield write_ok(15, address, 1)
    for address in (100, 109, 110, 119, 200, 65530, 65535):
        yield register_ok(address, 0x1234)
        yield mask_ok(address, 0, 0x1234, 0x1234)
        yield write_ok(16, address, 1)
        yield both_ok(address, 1, address, 1)
        yield both_ok(100, 20, address, 1)
    yield write_ok(15, 10, 11)
    yield Case(write(15, 12, 3, 1, b"\xff"), b"\x0f" + words(12, 3), coils={12: 1, 13: 1, 14: 1})
    yield refused(2, write(15, 10, 12, 2, b"\xff\x0f"))
    yield refused(2, write(15, 9, 12, 2, b"\xff\x0f"))
    yield refused(2, write(15, 20, 11, 2, b"\xff\x07"))
    yield write_ok(16, 100, 20)
    yield refused(2, write(16, 100, 21, 42, b"\xff" * 42))
    yield refused(2, write(16, 99, 2, 4, b"\xff" * 4))
    yield refused(2, write(16, 119, 82, 164, b"\xff" * 164))
    yield refused(2, write(16, 65535, 2, 4, b"\xff" * 4))
    yield both_ok(100, 20, 65530, 6)
    yield refused(2, both(100, 21, 200, 1))
    yield refused(2, both(200, 1, 100, 21))
    yield refused(2, both(99, 1, 99, 1))


@dataclass
class Device:
    """A server, and the parts of its coils and holding registers that are looked at."""

    wire: Wire
    coils: tuple[tuple[int, int], ...]
    registers: tuple[tuple[int, int], ...]
    dirty: bool = field(default=True)

    def prepare(self) -> None:
        for address, count in self.coils if self.dirty else ():
            self.wire.ask(write(15, address, count, (count + 7) // 8, coils(address, count)))
        for address, count in self.registers if self.dirty else ():
            self.wire.ask(write(16, address, count, 2 * count, registers(address, count)))

    def look(self) -> tuple[dict[int, int], dict[int, int]]:
        on: dict[int, int] = {}
        for address, count in self.coils:
            data = self.wire.ask(read(1, address, count))[2:]
            on |= {address + step: data[step // 8] >> step % 8 & 1 for step in range(count)}
        values: dict[int, int] = {}
        for address, count in self.registers:
            data = self.wire.ask(read(3, address, count))[2:]
            values |= {address + step: int.from_bytes(data[2 * step : 2 * step + 2], "big") for step in range(count)}
        return on, values

    def check(self, case: Case) -> None:
        self.prepare()
        self.dirty = True
        assert [self.wire.ask(case.request) for _ in range(2)] == [case.response] * 2
        on, values = self.look()
        assert on == {address: coil(address) for address in on} | case.coils
        assert values == {address: register(address) for address in values} | case.registers
        self.dirty = bool(case.coils or case.registers)


@pytest.fixture(scope="module")
def whole(port: int) -> Iterator[Device]:
    """One image for every unit id, with all addresses: its first 2,000 coils and 125 registers, and its last."""
    with Wire(port) as wire:
        edges = (0, 1000), (1000, 1000), (63536, 1000), (64536, 1000)
        yield Device(wire, edges, ((0, 100), (100, 25), (65411, 100), (65511, 25)))


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    folder: Path = tmp_path_factory.mktemp("sparse")
    (folder / "map.toml").write_text(SPARSE_MAP)
    with modbus_server(folder, MAP=folder / "map.toml") as (_, port), Wire(port) as wire:
        yield Device(wire, ((10, 11), (30, 1)), ((100, 20), (200, 1), (65530, 6)))


def name(case: object) -> str:
    assert isinstance(case, Case)
    return f"{case.request[:11].hex()}-{len(case.request)}"


@pytest.mark.parametrize("case", [*everywhere(), *beyond_the_table()], ids=name)
def test_with_every_address(whole: Device, case: Case) -> None:
    whole.check(case)


@pytest.mark.parametrize("case", [*everywhere(), *outside_the_map()], ids=name)
def test_with_a_map(sparse: Device, case: Case) -> None:
    sparse.check(case)


SUPPORTED = {1, 2, 3, 4, 5, 6, 15, 16, 22, 23, 43}


@pytest.mark.parametrize("body", ["", "00", "0E 01 00", "00 00 00 01", "00" * 252])
def test_any_other_function_is_illegal_whatever_follows(whole: Device, body: str) -> None:
    # APS 4.1: 0 is not valid, and 128 to 255 are for exception responses; Guide 4.4.2.2: then code 1.
    for function in set(range(256)) - SUPPORTED:
        answer = whole.wire.ask(bytes((function,)) + bytes.fromhex(body))
        assert answer == bytes((function | 0x80, 1)), function

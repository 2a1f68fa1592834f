"""One Modbus endpoint as field_server uses it: blocks read, values written, refusals learned from."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from drivers.contract import Point, Request
from drivers.modbus.writer import ModbusWriter
from scada.conversion import encode_coil
from scada.errors import ConfigError, Fault
from scada.modbus.barriers import DIVISIBLE, Learned
from scada.modbus.decoding import Decoder, Field, compile_bits, compile_registers
from scada.modbus.endpoint import Endpoint
from scada.modbus.limits import Table
from scada.modbus.plan import BITS_PER_REGISTER, Extent, ReadBlock, ReadLimits, plan_reads
from scada.modbus.read_cost import CostModel, first_guess
from scada.modbus.registers import Codec, codec
from scada.modbus.writes import WriteRequest, plan_writes
from scada.protocols.modbus import ModbusAddress, ModbusNetwork
from scada.values import BadValue, Value

DEFAULT_UNIT: Final = 1


@dataclass(slots=True, eq=False)
class _Read:
    """What is sent for a request, and how its reply is decoded. `teaches`: an answer to it would teach something."""

    block: ReadBlock
    points: Sequence[Point]
    registers: float
    decode: Decoder
    teaches: bool


@dataclass(frozen=True, slots=True)
class _Cell:
    """A value to be written (`scada.modbus.writes.Cell`)."""

    unit_id: int
    table: Table
    address: int
    count: int
    bit: int | None
    limit: int
    data: bytes
    alone: bool = False


class ModbusLink:
    """The link of `drivers.contract` for Modbus."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._writer = ModbusWriter(endpoint)
        self._client = self._writer.client
        self._register_lock = asyncio.Lock()
        self._learned = Learned()
        self._cost = CostModel(first_guess(endpoint))

    @property
    def connected(self) -> bool:
        """The link is up as far as is known."""
        return self._client.connected

    @property
    def learned(self) -> Sequence[str]:
        """In words, what this link has learned of its devices. Another answer than before: a new plan would be a better one."""
        texts = [*self._learned.texts(), *self._writer.learned]
        if self._cost.is_measured:
            texts.append(f"a request costs as much as reading {self._cost.worth} registers")
        return texts

    async def connect(self) -> None:
        """Open the link unless it is open; raises LinkError."""
        await self._client.connect()

    async def close(self) -> None:
        """Close the link; never raises."""
        await self._client.close()

    def plan(self, points: Sequence[Point]) -> Sequence[Request]:
        """How `points` are read with the least cost; every point is in exactly one request."""
        groups: dict[ReadLimits, list[Point]] = {}
        for point in points:
            groups.setdefault(_limits(point.network), []).append(point)
        requests: list[Request] = []
        for limits, group in groups.items():
            extents = [_extent(point) for point in group]
            blocks = plan_reads(extents, limits, self._cost.cost, self._learned.barriers)
            requests += (self._request(block, [group[member] for member in block.members]) for block in blocks)
        return requests

    async def read(self, request: Request) -> Sequence[Value | BadValue]:
        """The values of the request's points, in their order; raises LinkError, ProtocolError, DeviceRefused."""
        detail: _Read = request.detail
        block = detail.block
        began = time.monotonic()
        data = await self._client.read(block.unit_id, block.table, block.address, block.count)
        self._cost.observe(detail.registers, time.monotonic() - began)
        if detail.teaches:
            self._learned.answered(block)
            detail.teaches = self._learned.concerns(block)
        return detail.decode(data)

    def refused(self, request: Request, code: int) -> Sequence[Request] | None:
        """The halves to ask for instead of a request that was refused for an address; None when it cannot be divided."""
        if code not in DIVISIBLE:
            return None
        detail: _Read = request.detail
        halves = self._learned.refused(detail.block)
        detail.teaches = True  # asked again it may be answered after all
        if halves is None:
            return None
        points = dict(zip(detail.block.members, detail.points, strict=True))
        return [self._request(half, [points[member] for member in half.members]) for half in halves]

    def can_write(self, points: Sequence[Point]) -> None:
        """Raise ConfigError unless `points` can be written, all of them in one request."""
        _one_request([_cell(point, None) for point in points], points)

    async def write(self, values: Sequence[tuple[Point, Value]]) -> None:
        """Write raw values in one request; raises BadValue, ConfigError, LinkError, ProtocolError, DeviceRefused.

        Bits of a register go out as function 22. To a unit without it the register is read, changed and written back,
        and no other write of this link comes between.
        """
        points = [point for point, _ in values]
        request = _one_request([_cell(point, value) for point, value in values], points)
        async with self._register_lock:
            await self._writer.write(request)

    def _request(self, block: ReadBlock, points: Sequence[Point]) -> Request:
        registers = block.count / BITS_PER_REGISTER if block.table.is_bits else float(block.count)
        detail = _Read(block, points, registers, _decoder(block, points), self._learned.concerns(block))
        where = f"{block.address}" if block.count == 1 else f"{block.address}-{block.end - 1}"
        return Request(block.unit_id, tuple(points), f"unit {block.unit_id} {block.table} {where}", detail)


def unit_of(address: ModbusAddress) -> int:
    """The unit that an address names."""
    return DEFAULT_UNIT if address.unit_id is None else address.unit_id


def _limits(network: ModbusNetwork) -> ReadLimits:
    return ReadLimits(network.max_read_registers, network.max_read_bits, network.max_gap)


def _extent(point: Point) -> Extent:
    address: ModbusAddress = point.address
    return Extent(point.unit, address.table, address.register, _count(address))


def _count(address: ModbusAddress) -> int:
    return 1 if address.table.is_bits else _codec(address).registers


def _codec(address: ModbusAddress) -> Codec:
    return codec(address.type, address.order, length=address.length, bit=address.bit)


def _decoder(block: ReadBlock, points: Sequence[Point]) -> Decoder:
    addresses: list[ModbusAddress] = [point.address for point in points]
    if block.table.is_bits:
        return compile_bits([address.register - block.address for address in addresses])
    fields = [Field(address.register - block.address, _codec(address), address.bit) for address in addresses]
    return compile_registers(fields, block.count)


def _cell(point: Point, value: Value | None) -> _Cell:
    """`point` as it is written; without a value its place only. Raises ConfigError, BadValue."""
    address: ModbusAddress = point.address
    network: ModbusNetwork = point.network
    if not address.table.is_writable:
        raise ConfigError([Fault("table", f"{point.name}: a {address.table} cannot be written")])
    coil = address.table is Table.COIL
    encode = encode_coil if coil else _codec(address).encode
    count = _count(address)
    data = bytes(1 if coil else 2 * count) if value is None else encode(value)
    limit = network.max_write_coils if coil else network.max_write_registers
    return _Cell(point.unit, address.table, address.register, count, address.bit, limit, data)


def _one_request(cells: Sequence[_Cell], points: Sequence[Point]) -> WriteRequest:
    for cell, point in zip(cells, points, strict=True):
        if cell.count > cell.limit:
            raise ConfigError(
                [Fault("", f"{point.name}: {cell.count} registers, the device takes {cell.limit} in one write")]
            )
    requests = plan_writes(cells)
    if len(requests) != 1:
        names = ", ".join(point.name for point in points)
        raise ConfigError(
            [Fault("", f"{names}: not in one request: not next to each other, or more than the device takes")]
        )
    return requests[0]

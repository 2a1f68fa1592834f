"""A Modbus client with every reply checked before it counts; what is sent goes out through pymodbus (links/modbus_wire.py)."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from links.modbus_wire import CONNECT_ERRORS, READ, NoReply, Wire, WireClient, make_client
from links.names import HostName
from scada.errors import DeviceRefused, LinkError, ProtocolError, Side
from scada.modbus.decoding import unpack_bits
from scada.modbus.endpoint import Endpoint
from scada.modbus.limits import (
    MAX_READ_BITS,
    MAX_READ_REGISTERS,
    MAX_READ_WRITE_REGISTERS,
    MAX_UNIT_ID,
    MAX_WRITE_BITS,
    MAX_WRITE_REGISTERS,
    TABLE_SIZE,
    Table,
)
from scada.modbus.pdu import (
    Function,
    MaskWriteRequest,
    ReadRequest,
    ReadWriteRequest,
    Request,
    WriteRequest,
    decode_response,
)

_READ_FUNCTION: Final = {
    Table.COIL: Function.READ_COILS,
    Table.DISCRETE_INPUT: Function.READ_DISCRETE_INPUTS,
    Table.HOLDING_REGISTER: Function.READ_HOLDING_REGISTERS,
    Table.INPUT_REGISTER: Function.READ_INPUT_REGISTERS,
}
_TABLE: Final = {function: table for table, function in _READ_FUNCTION.items()} | {
    Function.WRITE_SINGLE_COIL: Table.COIL,
    Function.WRITE_MULTIPLE_COILS: Table.COIL,
}


class _Late(NamedTuple):
    """A reply to `request` may still come; None: to one whose repetition was answered already."""

    until: float
    request: Request | None


class ModbusClient:
    """One connection to one endpoint, one request in flight; requests asked for at the same time wait for each other.

    It never reconnects and never repeats: the caller owns backoff and retries. After a timeout, a broken reply or a
    cancelled request the connection is closed, so that a late reply never meets the next request; `connect()` opens a
    new one. Only when replies name their request and other units answer, it outlives the silence of one unit.

    Every method raises only: LinkError (not connected, no reply in time, connection lost), ProtocolError (remote: a
    reply that is not an answer to the request; local: an argument outside the protocol's limits), DeviceRefused (an
    exception response, the connection stays).
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._host = HostName(endpoint.host)
        self._lock = asyncio.Lock()
        self._client: WireClient | None = None
        self._wire: Wire | None = None
        self._last_transaction = 0
        self._asking: Request | None = None
        self._sent_at = 0.0
        self._late: dict[int, _Late] = {}
        """By unit, where replies do not name their request."""
        self._next_start = 0.0

    @property
    def connected(self) -> bool:
        """A connection is open, as far as this side knows."""
        wire = self._wire
        return wire is not None and wire.transport is not None and not wire.transport.is_closing()

    async def connect(self) -> None:
        """Connect unless connected. Raises LinkError within `connect_timeout_s`."""
        async with self._lock:
            if self.connected:
                return
            self._drop(LinkError("closed"))
            self._asking = None
            try:
                client, wire = make_client(self.endpoint)
                await wire.open(self._host, self.endpoint.connect_timeout_s)
            except TimeoutError as exc:
                raise LinkError(f"{self.endpoint}: no connection within {self.endpoint.connect_timeout_s} s") from exc
            except CONNECT_ERRORS as exc:
                raise LinkError(f"{self.endpoint}: no connection: {exc}") from exc
            wire.next_tid = self._last_transaction  # a port may be used again while old datagrams are on their way
            self._client, self._wire = client, wire

    async def close(self) -> None:
        """Close; a request in flight ends with LinkError. Does nothing when closed already."""
        self._drop(LinkError("closed"))
        await asyncio.sleep(0)  # the event loop closes the socket in its next iteration

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def read(self, unit_id: int, table: Table, address: int, count: int) -> bytes:
        """The data of one read, as it came: `count` registers (1-125) big-endian, or bits (1-2000) eight a byte, lowest first."""
        self._check(unit_id, address, count, MAX_READ_BITS if table.is_bits else MAX_READ_REGISTERS)

        def send(client: WireClient) -> Awaitable[Any]:
            return READ[table](client, address, count=count, device_id=unit_id)

        return await self._ask(unit_id, ReadRequest(_READ_FUNCTION[table], address, count), send)

    async def read_registers(self, unit_id: int, table: Table, address: int, count: int) -> bytes:
        """`count` registers (1-125) of an input or holding register table: 2 * count bytes, big-endian as they came."""
        self._check(unit_id, address, count, MAX_READ_REGISTERS, not table.is_bits)
        return await self.read(unit_id, table, address, count)

    async def read_bits(self, unit_id: int, table: Table, address: int, count: int) -> list[bool]:
        """`count` bits (1-2000) of a coil or discrete input table, without the padding of the last byte."""
        self._check(unit_id, address, count, MAX_READ_BITS, table.is_bits)
        return unpack_bits(await self.read(unit_id, table, address, count))[:count]

    async def write_registers(self, unit_id: int, address: int, data: bytes, *, single: bool | None = None) -> None:
        """Write `data` (1-123 registers, big-endian) from `address`, in one request.

        One register goes out as function 6, more as function 16; `single=False` forces 16, for devices without 6.
        """
        count = len(data) // 2
        self._check(unit_id, address, count, MAX_WRITE_REGISTERS, len(data) % 2 == 0 and not (single and count > 1))
        values = struct.unpack(f">{count}H", data)
        if count == 1 and single is not False:
            one = WriteRequest(Function.WRITE_SINGLE_REGISTER, address, 1, data)
            await self._ask(unit_id, one, lambda client: client.write_register(address, values[0], device_id=unit_id))
            return
        many = WriteRequest(Function.WRITE_MULTIPLE_REGISTERS, address, count, data)
        await self._ask(unit_id, many, lambda client: client.write_registers(address, values, device_id=unit_id))

    async def write_coils(
        self, unit_id: int, address: int, bits: Sequence[bool], *, single: bool | None = None
    ) -> None:
        """Write `bits` (1-1968) from `address`, in one request.

        One bit goes out as function 5, more as function 15; `single=False` forces 15, for devices without 5.
        """
        count = len(bits)
        self._check(unit_id, address, count, MAX_WRITE_BITS, not (single and count > 1))
        packed = sum(1 << index for index, bit in enumerate(bits) if bit).to_bytes((count + 7) // 8, "little")
        if count == 1 and single is not False:
            one = WriteRequest(Function.WRITE_SINGLE_COIL, address, 1, packed)
            await self._ask(unit_id, one, lambda client: client.write_coil(address, bool(bits[0]), device_id=unit_id))
            return
        many = WriteRequest(Function.WRITE_MULTIPLE_COILS, address, count, packed)
        await self._ask(unit_id, many, lambda client: client.write_coils(address, bits, device_id=unit_id))

    async def mask_write(self, unit_id: int, address: int, and_mask: int, or_mask: int) -> None:
        """Function 22, the device's own read-modify-write: register = (register & and_mask) | (or_mask & ~and_mask)."""
        self._check(unit_id, address, 1, 1, 0 <= and_mask <= 0xFFFF and 0 <= or_mask <= 0xFFFF)
        await self._ask(
            unit_id,
            MaskWriteRequest(address, and_mask, or_mask),
            lambda client: client.mask_write_register(
                address=address, and_mask=and_mask, or_mask=or_mask, device_id=unit_id
            ),
        )

    async def read_write_registers(
        self, unit_id: int, address: int, count: int, write_address: int, data: bytes
    ) -> bytes:
        """Function 23: write `data` (1-121 registers) at `write_address`, then read `count` (1-125) from `address`."""
        self._check(unit_id, address, count, MAX_READ_REGISTERS)
        self._check(unit_id, write_address, len(data) // 2, MAX_READ_WRITE_REGISTERS, len(data) % 2 == 0)
        values = struct.unpack(f">{len(data) // 2}H", data)
        return await self._ask(
            unit_id,
            ReadWriteRequest(address, count, write_address, data),
            lambda client: client.readwrite_registers(
                read_address=address, read_count=count, write_address=write_address, values=values, device_id=unit_id
            ),
        )

    async def _ask(self, unit_id: int, request: Request, send: Callable[[WireClient], Awaitable[Any]]) -> bytes:
        """Send one request and return the data of its checked reply.

        On a transport without transaction ids it first waits until two `timeout_s` have passed since a request that failed
        went to the same unit: a late reply to that one would look like the answer to this. Other units' replies cannot, and
        for the same request once more it would be the right one; then the reply to that may be late, for the next one.
        """
        async with self._lock:
            is_repeat = False
            if (late := self._late.get(unit_id)) is not None:
                wait_s = late.until - asyncio.get_running_loop().time()
                is_repeat = wait_s > 0 and late.request == request
                if not is_repeat:
                    await asyncio.sleep(max(0.0, wait_s))
                    del self._late[unit_id]
            if self.endpoint.gap_ms:
                await asyncio.sleep(max(0.0, self._next_start - asyncio.get_running_loop().time()))
            client, wire = self._client, self._wire
            if client is None or wire is None or not self.connected:
                raise LinkError(f"{self._where(unit_id, request)}: not connected")
            try:
                await wire.take_turn(unit_id, is_repeat)
            except CONNECT_ERRORS as exc:
                raise self._dropped(LinkError(f"{self._where(unit_id, request)}: {exc}")) from exc
            wire.expect(unit_id, request)
            self._asking = request
            self._sent_at = asyncio.get_running_loop().time()
            try:
                data = decode_response(request, await send(client))
                self._answered(unit_id, is_repeat)
                return data
            except DeviceRefused as exc:
                self._answered(unit_id, is_repeat)
                raise DeviceRefused(f"{self._where(unit_id, request)}: {exc}", exc.code) from exc
            except ProtocolError as exc:
                raise self._dropped(ProtocolError(f"{self._where(unit_id, request)}: {exc}")) from exc
            except NoReply as exc:
                error = LinkError(f"{self._where(unit_id, request)}: {exc}")
                if wire.may_stay():
                    self._asking = None
                    raise error from exc
                raise self._dropped(error) from exc
            except (LinkError, OSError) as exc:
                raise self._dropped(LinkError(f"{self._where(unit_id, request)}: {exc}")) from exc
            except asyncio.CancelledError:
                self._drop(LinkError("cancelled"))
                raise
            finally:
                wire.end_turn(is_repeat)
                self._last_transaction = wire.next_tid
                if self.endpoint.gap_ms:
                    self._next_start = asyncio.get_running_loop().time() + self.endpoint.gap_ms / 1000

    def _answered(self, unit_id: int, is_repeat: bool) -> None:
        self._asking = None
        if is_repeat:
            self._note_late(unit_id, None)

    def _note_late(self, unit_id: int, request: Request | None) -> None:
        if not self.endpoint.transport.has_transaction_ids:
            self._late[unit_id] = _Late(self._sent_at + 2 * self.endpoint.timeout_s, request)

    def _dropped(self, error: LinkError | ProtocolError) -> LinkError | ProtocolError:
        self._drop(error)
        return error

    def _drop(self, error: LinkError | ProtocolError) -> None:
        wire, self._wire, self._client = self._wire, None, None
        if wire is not None:
            wire.drop(error)
            if self._asking is not None:
                self._note_late(wire.unit_id, self._asking)

    def _check(self, unit_id: int, address: int, count: int, limit: int, fits: bool = True) -> None:
        # A broadcast (unit 0 on a serial line) is never confirmed, so it could never be told from a lost one.
        first_unit = 0 if self.endpoint.transport.has_transaction_ids else 1
        if not (
            fits and first_unit <= unit_id <= MAX_UNIT_ID and 1 <= count <= limit and 0 <= address <= TABLE_SIZE - count
        ):
            text = f"{self.endpoint} unit {unit_id} address {address} x {count}: outside what Modbus can ask for"
            raise ProtocolError(text, Side.LOCAL)

    def _where(self, unit_id: int, request: Request) -> str:
        table = _TABLE.get(Function(request.function), Table.HOLDING_REGISTER)
        count = 1 if isinstance(request, MaskWriteRequest) else request[2]
        return f"{self.endpoint} unit {unit_id} {table} {request.address} x {count}"

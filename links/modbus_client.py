"""A Modbus client on pymodbus' asyncio client, with every reply checked before it counts.

pymodbus keeps the connection, the transaction ids and the requests' encoding. Receiving is ours (`_Wire`), because its
own reading takes replies with too few registers, another function or transaction id 0 for success, lets decode errors
escape into the event loop, keeps a request waiting after its connection is lost and hoards the last 20 chunks received.
"""

import asyncio
import logging
import struct
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient, AsyncModbusUdpClient
from pymodbus.client.base import ModbusBaseClient
from pymodbus.exceptions import ModbusException
from pymodbus.framer import FramerBase, FramerType
from pymodbus.transaction import TransactionManager
from pymodbus.transport import CommParams

from links.keepalive import discard_unsent, set_keepalive
from scada.errors import DeviceRefused, LinkError, ProtocolError, Side
from scada.modbus.decoding import unpack_bits
from scada.modbus.endpoint import Endpoint, Transport
from scada.modbus.limits import (
    MAX_ADU,
    MAX_READ_BITS,
    MAX_READ_REGISTERS,
    MAX_READ_WRITE_REGISTERS,
    MAX_UNIT_ID,
    MAX_WRITE_BITS,
    MAX_WRITE_REGISTERS,
    TABLE_SIZE,
    Table,
)
from scada.modbus.mbap import FrameReader
from scada.modbus.pdu import (
    Function,
    MaskWriteRequest,
    ReadRequest,
    ReadWriteRequest,
    Request,
    WriteRequest,
    decode_response,
)
from scada.modbus.rtu import find_reply

# More than this after one request is a flood, not a reply behind some stale ones.
MAX_RECEIVED: Final = 16 * MAX_ADU

# ValueError and OverflowError: a host name, port or line setting that cannot be. termios.error: one that this line refuses.
_CONNECT_ERRORS: tuple[type[Exception], ...] = (OSError, ValueError, OverflowError)
if sys.platform != "win32":
    import termios

    _CONNECT_ERRORS += (termios.error,)

_READ_FUNCTION: Final = {
    Table.COIL: Function.READ_COILS,
    Table.DISCRETE_INPUT: Function.READ_DISCRETE_INPUTS,
    Table.HOLDING_REGISTER: Function.READ_HOLDING_REGISTERS,
    Table.INPUT_REGISTER: Function.READ_INPUT_REGISTERS,
}
_READ: Final[dict[Table, Callable[..., Awaitable[Any]]]] = {
    Table.COIL: ModbusBaseClient.read_coils,
    Table.DISCRETE_INPUT: ModbusBaseClient.read_discrete_inputs,
    Table.HOLDING_REGISTER: ModbusBaseClient.read_holding_registers,
    Table.INPUT_REGISTER: ModbusBaseClient.read_input_registers,
}
_TABLE: Final = {function: table for table, function in _READ_FUNCTION.items()} | {
    Function.WRITE_SINGLE_COIL: Table.COIL,
    Function.WRITE_MULTIPLE_COILS: Table.COIL,
}


class _Reply:
    """A reply's PDU with what pymodbus' `execute` looks at."""

    __slots__ = ("dev_id", "pdu", "retries", "transaction_id")

    def __init__(self, unit_id: int, transaction_id: int, pdu: bytes) -> None:
        self.dev_id = unit_id
        self.transaction_id = transaction_id
        self.pdu = pdu
        self.retries = 0


class _Wire(TransactionManager):
    """pymodbus' transaction manager that finds the reply itself, and ends a request when its connection ends."""

    def __init__(self, params: CommParams, framer: FramerBase, transport: Transport) -> None:
        super().__init__(params, framer, 0, False, None, None, None)
        self._transport = transport
        self._frames = FrameReader() if transport.has_transaction_ids else None
        self.unit_id = 0
        self._request: Request | None = None
        self._made = asyncio.Event()
        self.received = 0

    async def open(self, timeout_s: float) -> None:
        """Connect. Unlike connect() it lets the reason of a failure through."""
        async with asyncio.timeout(timeout_s):
            transport, _ = await self.call_create()
            try:
                await self._made.wait()  # a serial transport is set up an iteration later
            except asyncio.CancelledError:
                self.loop.call_soon(transport.abort)
                raise
        if self._transport in (Transport.TCP, Transport.RTU_OVER_TCP):
            sock = transport.get_extra_info("socket")
            set_keepalive(sock)
            discard_unsent(sock, True)

    def expect(self, unit_id: int, request: Request) -> None:
        """The next thing sent is `request`; what was received before it is of no interest."""
        self.unit_id = unit_id
        self._request = request
        self.received = 0

    def drop(self, error: LinkError | ProtocolError) -> None:
        """Close at once; the request in flight, if any, ends with `error`, and what of it is still here is never sent."""
        if self._transport is not Transport.UDP and self.transport is not None:
            self._take_back(self.transport)
        self._fail(error)
        self.close()

    def _take_back(self, transport: Any) -> None:
        """A request that nobody waits for any more must not arrive after a newer one that goes over another connection."""
        if self._transport is Transport.SERIAL:
            with suppress(*_CONNECT_ERRORS):  # the line is gone, and what was to go out with it
                transport.sync_serial.reset_output_buffer()
        elif self._request is None and not transport.is_closing():
            discard_unsent(transport.get_extra_info("socket"), False)  # nothing is on its way: a polite end

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Everything received comes through here, whatever the transport."""
        self.received += len(data)
        try:
            if self.received > MAX_RECEIVED:
                raise ProtocolError(f"flood: more than {MAX_RECEIVED} bytes after one request")
            reply = self._find_rtu(data) if self._frames is None else self._find_mbap(data, self._frames)
        except ProtocolError as error:
            self.drop(error)
            return
        if reply is not None and not self.response_future.done():
            self._request = None
            self.response_future.set_result(reply)

    def callback_connected(self) -> None:
        super().callback_connected()
        self._made.set()

    def callback_disconnected(self, exc: Exception | None) -> None:
        super().callback_disconnected(exc)
        self._fail(LinkError(f"connection lost: {exc}" if exc else "connection closed by the device"), exc)

    def error_received(self, exc: Exception) -> None:
        """UDP: nobody listens there (ICMP)."""
        self._fail(LinkError(f"not reachable: {exc}"), exc)

    def _fail(self, error: LinkError | ProtocolError, cause: Exception | None = None) -> None:
        if self._request is not None and not self.response_future.done():
            self._request = None
            error.__cause__ = cause
            self.response_future.set_exception(error)

    def _find_rtu(self, data: bytes) -> _Reply | None:
        if self._request is None:
            return None
        self.recv_buffer += data
        pdu = find_reply(self.recv_buffer, self.unit_id, self._request)
        return None if pdu is None else _Reply(self.unit_id, 0, pdu)

    def _find_mbap(self, data: bytes, frames: FrameReader) -> _Reply | None:
        """Frames of other transactions are discarded, and reading goes on (Guide 4.4.1.3)."""
        reply = None
        frames.feed(data)
        while (frame := frames.next_frame()) is not None:
            if self._request is None or frame.transaction != self.request_transaction_id:
                continue
            if frame.unit_id != self.unit_id:
                raise ProtocolError(f"reply of unit {frame.unit_id}")
            reply = reply or _Reply(frame.unit_id, frame.transaction, frame.pdu)
        if self._transport is Transport.UDP and frames.waiting:
            raise ProtocolError("datagram ends within a frame")
        return reply


class ModbusClient:
    """One connection to one endpoint, one request in flight; requests asked for at the same time wait for each other.

    It never reconnects and never repeats: the caller owns backoff and retries. After a timeout, a broken reply or a
    cancelled request the connection is closed, so that a late reply never meets the next request; `connect()` opens a
    new one.

    Every method raises only: LinkError (not connected, no reply in time, connection lost), ProtocolError (remote: a
    reply that is not an answer to the request; local: an argument outside the protocol's limits), DeviceRefused (an
    exception response, the connection stays).
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._lock = asyncio.Lock()
        self._client: ModbusBaseClient | None = None
        self._wire: _Wire | None = None
        self._last_transaction = 0
        self._is_asking = False
        self._late_until: dict[int, float] = {}
        """By unit, where replies do not name their request: how long one to a request that failed may still come."""
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
            self._is_asking = False
            try:
                client, wire = _create(self.endpoint)
                await wire.open(self.endpoint.connect_timeout_s)
            except TimeoutError as exc:
                raise LinkError(f"{self.endpoint}: no connection within {self.endpoint.connect_timeout_s} s") from exc
            except _CONNECT_ERRORS as exc:
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

        def send(client: ModbusBaseClient) -> Awaitable[Any]:
            return _READ[table](client, address, count=count, device_id=unit_id)

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

    async def _ask(self, unit_id: int, request: Request, send: Callable[[ModbusBaseClient], Awaitable[Any]]) -> bytes:
        """Send one request and return the data of its checked reply.

        On a transport without transaction ids it first waits until `timeout_s` have passed since a request to the same
        unit failed: a late reply to that one would look like the answer to this. Other units' replies cannot.
        """
        async with self._lock:
            if unit_id in self._late_until:
                await asyncio.sleep(max(0.0, self._late_until[unit_id] - asyncio.get_running_loop().time()))
                del self._late_until[unit_id]
            if self.endpoint.gap_ms:
                await asyncio.sleep(max(0.0, self._next_start - asyncio.get_running_loop().time()))
            client, wire = self._client, self._wire
            if client is None or wire is None or not self.connected:
                raise LinkError(f"{self._where(unit_id, request)}: not connected")
            wire.expect(unit_id, request)
            self._is_asking = True
            try:
                reply: _Reply = await send(client)
                data = decode_response(request, reply.pdu)
                self._is_asking = False
                return data
            except DeviceRefused as exc:
                self._is_asking = False
                raise DeviceRefused(f"{self._where(unit_id, request)}: {exc}", exc.code) from exc
            except ProtocolError as exc:
                raise self._dropped(ProtocolError(f"{self._where(unit_id, request)}: {exc}")) from exc
            except (LinkError, OSError) as exc:
                raise self._dropped(LinkError(f"{self._where(unit_id, request)}: {exc}")) from exc
            except ModbusException as exc:  # with retries, ids and decoding out of pymodbus' hands: no reply in time
                what = f"{wire.received} bytes but no reply" if wire.received else "no reply"
                text = f"{self._where(unit_id, request)}: {what} within {self.endpoint.timeout_s} s"
                raise self._dropped(LinkError(text)) from exc
            except asyncio.CancelledError:
                self._drop(LinkError("cancelled"))
                raise
            finally:
                self._last_transaction = wire.next_tid
                if self.endpoint.gap_ms:
                    self._next_start = asyncio.get_running_loop().time() + self.endpoint.gap_ms / 1000

    def _dropped(self, error: LinkError | ProtocolError) -> LinkError | ProtocolError:
        self._drop(error)
        return error

    def _drop(self, error: LinkError | ProtocolError) -> None:
        wire, self._wire, self._client = self._wire, None, None
        if wire is not None:
            wire.drop(error)
            if self._is_asking and not self.endpoint.transport.has_transaction_ids:
                self._late_until[wire.unit_id] = asyncio.get_running_loop().time() + self.endpoint.timeout_s

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


def _create(endpoint: Endpoint) -> tuple[ModbusBaseClient, _Wire]:
    # pymodbus dumps its packet history on every error; each error is ours to report.
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
    limits: dict[str, Any] = {"timeout": endpoint.timeout_s, "retries": 0, "reconnect_delay": 0}
    client: ModbusBaseClient
    if endpoint.transport is Transport.SERIAL:
        client = AsyncModbusSerialClient(
            endpoint.serial_port,
            baudrate=endpoint.baudrate,
            parity=endpoint.parity,
            stopbits=endpoint.stopbits,
            bytesize=endpoint.bytesize,
            **limits,
        )
    elif endpoint.transport is Transport.UDP:
        client = AsyncModbusUdpClient(endpoint.host, port=endpoint.port, **limits)
    else:
        framer = FramerType.SOCKET if endpoint.transport is Transport.TCP else FramerType.RTU
        client = AsyncModbusTcpClient(endpoint.host, port=endpoint.port, framer=framer, **limits)
    wire = _Wire(client.comm_params, client.ctx.framer, endpoint.transport)
    client.ctx = wire
    return client, wire

"""The wire of a Modbus client: pymodbus' asyncio client with our own receiving, and one deadline for each request.

pymodbus keeps the connection, the transaction ids and the requests' encoding. Receiving is ours, because its own reading
takes replies with too few registers, another function or transaction id 0 for success, lets decode errors escape into the
event loop, keeps a request waiting after its connection is lost and hoards the last 20 chunks received.
"""

import asyncio
import logging
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from pymodbus.client import (
    AsyncModbusSerialClient,
    AsyncModbusTcpClient,
    AsyncModbusTlsClient,
    AsyncModbusUdpClient,
)
from pymodbus.client.base import ModbusBaseClient
from pymodbus.framer import FramerBase, FramerType
from pymodbus.transaction import TransactionManager
from pymodbus.transport import CommParams

from links.keepalive import discard_unsent, set_keepalive, unacknowledged
from links.names import HostName
from scada.errors import LinkError, ProtocolError
from scada.modbus.endpoint import Endpoint, Transport
from scada.modbus.limits import MAX_ADU, Table
from scada.modbus.mbap import FrameReader
from scada.modbus.pdu import Request
from scada.modbus.rtu import find_reply

# More than this after one request is a flood, not a reply behind some stale ones.
MAX_RECEIVED: Final = 16 * MAX_ADU

# ValueError and OverflowError: a host name, port or line setting that cannot be. LinkError: a line that others use.
CONNECT_ERRORS: tuple[type[Exception], ...] = (OSError, ValueError, OverflowError, LinkError)
if sys.platform != "win32":
    import termios

    CONNECT_ERRORS += (termios.error,)  # a setting that this line refuses
if sys.platform == "linux":
    from links.serial_line import SerialLine

_STREAMS: Final = (Transport.TCP, Transport.TLS, Transport.RTU_OVER_TCP)

WireClient = ModbusBaseClient
"""What requests are sent with: the methods of pymodbus' client mixin."""

READ: Final[dict[Table, Callable[..., Awaitable[Any]]]] = {
    Table.COIL: ModbusBaseClient.read_coils,
    Table.DISCRETE_INPUT: ModbusBaseClient.read_discrete_inputs,
    Table.HOLDING_REGISTER: ModbusBaseClient.read_holding_registers,
    Table.INPUT_REGISTER: ModbusBaseClient.read_input_registers,
}


class NoReply(LinkError):
    """The deadline of a request passed."""


class Wire(TransactionManager):
    """pymodbus' transaction manager that finds the reply itself, and ends a request when its connection ends."""

    def __init__(self, params: CommParams, framer: FramerBase, transport: Transport) -> None:
        super().__init__(params, framer, 0, False, None, None, None)
        self._transport = transport
        self._frames = FrameReader() if transport.has_transaction_ids else None
        self.unit_id = 0
        self._request: Request | None = None
        self._made = asyncio.Event()
        self._received = 0
        self._replies = 0
        self._last_reply: dict[int, int] = {}
        self._last_silence: dict[int, int] = {}

    async def open(self, host: HostName, timeout_s: float) -> None:
        """Connect. Unlike connect() it lets the reason of a failure through. A serial line has a limit of its own."""
        async with asyncio.timeout(None if self._transport is Transport.SERIAL else timeout_s):
            transport = await self._create(host)
            try:
                await self._made.wait()  # a serial transport is set up an iteration later
            except asyncio.CancelledError:
                self.loop.call_soon(transport.abort)
                raise
        if self._transport in _STREAMS:
            sock = transport.get_extra_info("socket")
            set_keepalive(sock)
            discard_unsent(sock, True)

    async def _create(self, host: HostName) -> Any:
        """A transport to the first of the host's addresses that lets us in. The loop never sees a name (links/names.py)."""
        if self._transport is Transport.SERIAL:
            transport, _ = await self.call_create()
            return transport
        # A certificate is for the name, whatever address it has today.
        more = {"server_hostname": host.name} if self._transport is Transport.TLS else {}
        kind = socket.SOCK_DGRAM if self._transport is Transport.UDP else socket.SOCK_STREAM
        failures: list[OSError] = []
        for address in await host.addresses(kind):
            self.init_setup_connect_listen(address, int(self.comm_params.port))
            try:
                transport, _ = await self.call_create(**more)
            except OSError as exc:
                failures.append(exc)
            else:
                return transport
        if len(failures) == 1:
            raise failures[0]
        raise OSError("; ".join(map(str, failures)))

    async def take_turn(self, unit_id: int, again: bool) -> None:
        """Wait until nobody else uses the serial line; no other transport is shared. Raises CONNECT_ERRORS.

        `again`: the unit is asked once more what it has not answered in time.
        """
        if sys.platform == "linux" and isinstance(self.transport, SerialLine):
            await self.transport.take_turn(unit_id, again)

    def end_turn(self, again: bool) -> None:
        """Leave the serial line to others, unless that is done."""
        if sys.platform == "linux" and isinstance(self.transport, SerialLine):
            self.transport.end_turn(again)

    def expect(self, unit_id: int, request: Request) -> None:
        """The next thing sent is `request`; what was received before it is of no interest."""
        self.unit_id = unit_id
        self._request = request
        self._received = 0

    async def execute(self, no_response_expected: bool, request: Any) -> Any:
        """Send pymodbus' `request`, once; bytes, the PDU of the frame that answers it. Raises LinkError, ProtocolError.

        pymodbus' own would wait and count in ways of its own, and close the connection behind our back.
        """
        request.transaction_id = self.getNextTID()
        self.recv_buffer = b""
        self.response_future = future = self.loop.create_future()
        deadline = self.loop.call_later(self.comm_params.timeout_connect, self._expire)
        try:
            self.pdu_send(request)
            return await future
        finally:
            deadline.cancel()

    def may_stay(self) -> bool:
        """Whether the connection is still good after the unit asked last was silent.

        So it is when late replies can be recognised, nothing was left half sent or half received, the other end has
        acknowledged every byte, and another unit has answered since this one was silent before.
        """
        before = self._last_silence.get(self.unit_id, 0)
        self._last_silence[self.unit_id] = self._replies
        if self._frames is None or self._frames.waiting or self.transport is None:
            return False
        if self._transport in _STREAMS:
            transport: Any = self.transport
            if transport.get_write_buffer_size() or unacknowledged(transport.get_extra_info("socket")) != 0:
                return False
        stays = any(count > before for unit_id, count in self._last_reply.items() if unit_id != self.unit_id)
        if stays:
            self._request = None
        return stays

    def drop(self, error: LinkError | ProtocolError) -> None:
        """Close at once; the request in flight, if any, ends with `error`, and what of it is still here is never sent."""
        if self._transport is not Transport.UDP and self.transport is not None:
            self._take_back(self.transport)
        self._fail(error)
        self.close()

    def _take_back(self, transport: Any) -> None:
        """A request that nobody waits for any more must not arrive after a newer one that goes over another connection."""
        if self._transport is Transport.SERIAL:
            if sys.platform != "linux":
                with suppress(*CONNECT_ERRORS):  # the line is gone, and what was to go out with it
                    transport.sync_serial.reset_output_buffer()
        elif self._request is None and not transport.is_closing():
            discard_unsent(transport.get_extra_info("socket"), False)  # nothing is on its way: a polite end
        elif self._transport is Transport.TLS:
            transport.abort()  # close() would wait half a minute for the other end's farewell

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Everything received comes through here, whatever the transport."""
        self._received += len(data)
        try:
            if self._received > MAX_RECEIVED:
                raise ProtocolError(f"flood: more than {MAX_RECEIVED} bytes after one request")
            pdu = self._find_rtu(data) if self._frames is None else self._find_mbap(data, self._frames)
        except ProtocolError as error:
            self.drop(error)
            return
        if pdu is not None and not self.response_future.done():
            self._request = None
            self._replies += 1
            self._last_reply[self.unit_id] = self._replies
            self.response_future.set_result(pdu)

    def callback_connected(self) -> None:
        super().callback_connected()
        self._made.set()

    def callback_disconnected(self, exc: Exception | None) -> None:
        super().callback_disconnected(exc)
        self._fail(LinkError(f"connection lost: {exc}" if exc else "connection closed by the device"), exc)

    def error_received(self, exc: Exception) -> None:
        """UDP: nobody listens there (ICMP)."""
        self._fail(LinkError(f"not reachable: {exc}"), exc)

    def _expire(self) -> None:
        what = f"{self._received} bytes but no reply" if self._received else "no reply"
        self._fail(NoReply(f"{what} within {self.comm_params.timeout_connect} s"))

    def _fail(self, error: LinkError | ProtocolError, cause: Exception | None = None) -> None:
        if self._request is not None and not self.response_future.done():
            if not isinstance(error, NoReply):
                self._request = None
            error.__cause__ = cause
            self.response_future.set_exception(error)

    def _find_rtu(self, data: bytes) -> bytes | None:
        if self._request is None:
            return None
        self.recv_buffer += data
        return find_reply(self.recv_buffer, self.unit_id, self._request)

    def _find_mbap(self, data: bytes, frames: FrameReader) -> bytes | None:
        """Frames of other transactions are discarded, and reading goes on (Guide 4.4.1.3)."""
        reply = None
        frames.feed(data)
        while (frame := frames.next_frame()) is not None:
            if self._request is None or frame.transaction != self.request_transaction_id:
                continue
            if frame.unit_id != self.unit_id:
                raise ProtocolError(f"reply of unit {frame.unit_id}")
            reply = reply or frame.pdu
        if self._transport is Transport.UDP and frames.waiting:
            raise ProtocolError("datagram ends within a frame")
        return reply


def make_client(endpoint: Endpoint) -> tuple[WireClient, Wire]:
    """A client of `endpoint` and its wire, not yet connected. Raises OSError, ValueError for files and names that are wrong."""
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
    elif endpoint.transport is Transport.TLS:
        context = _tls_context(endpoint)
        client = AsyncModbusTlsClient(endpoint.host, port=endpoint.port, sslctx=context, **limits)
    else:
        framer = FramerType.SOCKET if endpoint.transport is Transport.TCP else FramerType.RTU
        client = AsyncModbusTcpClient(endpoint.host, port=endpoint.port, framer=framer, **limits)
    wire = Wire(client.comm_params, client.ctx.framer, endpoint.transport)
    client.ctx = wire
    if sys.platform == "linux" and endpoint.transport is Transport.SERIAL:
        wire.call_create = partial(_open_line, endpoint, wire)
    return client, wire


async def _open_line(endpoint: Endpoint, wire: Wire) -> tuple[Any, Wire]:
    line = SerialLine(endpoint, wire)
    await line.open()
    wire.connection_made(line)
    return line, wire


def _tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """Checks the device's certificate and that it is the host's; shows ours where there is one."""
    context = ssl.create_default_context(cafile=endpoint.tls_ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if endpoint.tls_cert:
        # Without a password of ours OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(endpoint.tls_cert, endpoint.tls_key, password="")
    return context

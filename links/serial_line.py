"""A serial line as a transport of asyncio, shared with other programs: nothing is read, sent or set outside of a turn.

Linux only. Elsewhere pymodbus' own transport is used, which opens the line for itself alone.
"""

import asyncio
import os
import termios
from contextlib import suppress
from typing import Any, Final

import serial

from links.line_turns import EVERY_UNIT, LineTurns, silence_s
from scada.modbus.endpoint import Endpoint

LINE_ERRORS: Final[tuple[type[Exception], ...]] = (OSError, ValueError, OverflowError, termios.error)
"""What a line raises that is not there, or cannot be set so."""

_READ_BYTES: Final = 1024


class SerialLine(asyncio.Transport):
    """A line between `open` and `close`. `protocol` gets what is received in our turns, and is told when the line is lost."""

    def __init__(self, endpoint: Endpoint, protocol: Any) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._turns: LineTurns | None = None
        self._port: serial.Serial | None = None
        self._unsent = b""

    async def open(self) -> None:
        """Open the line while no other program is using it. Raises LinkError and LINE_ERRORS."""
        endpoint = self._endpoint
        bits = 1 + endpoint.bytesize + (endpoint.parity != "N") + endpoint.stopbits
        turns = LineTurns(endpoint.serial_port, silence_s(endpoint.baudrate, bits))
        try:
            await turns.take(EVERY_UNIT, endpoint.line_wait_s)
            # Opening sets the line, and throws away what it has received.
            self._port = serial.Serial(
                endpoint.serial_port,
                baudrate=endpoint.baudrate,
                bytesize=endpoint.bytesize,
                parity=endpoint.parity,
                stopbits=endpoint.stopbits,
                timeout=0,
                write_timeout=0,
            )
            turns.let_go()
        except BaseException:
            turns.close()
            raise
        self._turns = turns

    async def take_turn(self, unit_id: int, again: bool) -> None:
        """Wait until the line is ours to ask `unit_id`, empty, and set as we need it. Raises LinkError and LINE_ERRORS.

        `again`: the same that it has not answered in time.
        """
        turns = self._turns
        if turns is None:
            raise ConnectionError("closed")
        await turns.take(unit_id, self._endpoint.line_wait_s, again=again)
        port = self._port
        if port is None:
            raise ConnectionError("closed")
        try:
            port.baudrate = self._endpoint.baudrate  # sets the line anew if another program has set it otherwise
            port.reset_input_buffer()
            turns.asks(unit_id, 2 * self._endpoint.timeout_s)
        except BaseException:
            turns.let_go()
            raise
        self._loop.add_reader(port.fd, self._on_readable)

    def end_turn(self, again: bool) -> None:
        """The reply has come, or there was no request. Does nothing when the turn has ended already.

        `again`: what was asked twice may be answered once more.
        """
        if self._turns is not None and self._turns.asking:
            self._pause()
            with suppress(OSError):  # the line is gone, which the next turn will find
                if again:
                    self._turns.failed()
                else:
                    self._turns.answered()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; only in a turn."""
        self._unsent += bytes(data)
        self._on_writable()

    def close(self) -> None:
        """Close at once. A request without a reply is taken back as far as that is possible."""
        port, turns = self._port, self._turns
        if port is None or turns is None:
            return
        if turns.asking:
            self._pause()
            with suppress(*LINE_ERRORS):  # the line is gone, and what was to go out with it
                port.reset_output_buffer()
                turns.failed()
        self._port = self._turns = None
        port.close()
        turns.close()

    def abort(self) -> None:
        """Close at once."""
        self.close()

    def is_closing(self) -> bool:
        """Closed, or not open yet."""
        return self._port is None

    def _pause(self) -> None:
        assert self._port is not None
        self._unsent = b""
        self._loop.remove_reader(self._port.fd)
        self._loop.remove_writer(self._port.fd)

    def _on_readable(self) -> None:
        assert self._port is not None
        try:
            data = os.read(self._port.fd, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._lost(exc)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._lost(ConnectionError("the line was unplugged"))

    def _on_writable(self) -> None:
        assert self._port is not None
        try:
            self._unsent = self._unsent[os.write(self._port.fd, self._unsent) :]
        except (BlockingIOError, InterruptedError):
            pass  # the line is busy
        except OSError as exc:
            self._lost(exc)
            return
        if self._unsent:
            self._loop.add_writer(self._port.fd, self._on_writable)
        else:
            self._loop.remove_writer(self._port.fd)

    def _lost(self, exc: OSError) -> None:
        self.close()
        self._protocol.connection_lost(exc)

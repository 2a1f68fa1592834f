"""The socket: one request out, its reply in, every wait with an end."""

import asyncio
from collections.abc import Callable, Mapping

from drivers._blueprint.messages import MAX_LINE_BYTES, decode_reply
from scada.errors import LinkError, ProtocolError

# Replies to requests that were given up: more than this in front of the one awaited is a flood.
_MAX_STALE = 16


class Connection:
    """One TCP connection. The caller sends one request at a time."""

    def __init__(self, host: str, port: int, connect_timeout_s: float) -> None:
        self._where = f"{host}:{port}"
        self._host, self._port, self._connect_timeout_s = host, port, connect_timeout_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._identity = 0

    @property
    def connected(self) -> bool:
        return self._streams is not None and not self._streams[0].at_eof()

    async def connect(self) -> None:
        """Open the connection unless it is open; raises LinkError."""
        if self.connected:
            return
        await self.close()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                self._streams = await asyncio.open_connection(self._host, self._port, limit=MAX_LINE_BYTES)
        except TimeoutError as exc:
            raise LinkError(f"{self._where}: no connection within {self._connect_timeout_s:g} s") from exc
        except (OSError, ValueError) as exc:
            raise LinkError(f"{self._where}: {exc}") from exc

    async def close(self) -> None:
        """Drop the connection; never raises and never waits: what the peer has not read by now it need not read."""
        if self._streams is not None:
            self._drop(self._streams[1])

    async def request(self, encode: Callable[[int], bytes], timeout_s: float) -> Mapping[str, object]:
        """Send `encode(id)` and give the reply of that id; raises LinkError, ProtocolError.

        After a timeout the connection stays: behind it only this unit may be silent. After anything else it is closed.
        """
        if self._streams is None:
            raise LinkError(f"{self._where}: not connected")
        reader, writer = self._streams
        self._identity += 1
        try:
            async with asyncio.timeout(timeout_s):
                writer.write(encode(self._identity))
                await writer.drain()
                return await self._reply(reader)
        except TimeoutError as exc:
            raise LinkError(f"{self._where}: no answer within {timeout_s:g} s") from exc
        except (OSError, asyncio.IncompleteReadError) as exc:
            self._drop(writer)
            raise LinkError(f"{self._where}: connection lost") from exc
        except asyncio.LimitOverrunError as exc:
            self._drop(writer)
            raise ProtocolError(f"{self._where}: a line of more than {MAX_LINE_BYTES} bytes") from exc
        except ProtocolError:
            self._drop(writer)
            raise

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        """Drop this connection, which need not be the present one: a request may end after `close` and a new `connect`."""
        writer.transport.abort()
        if self._streams is not None and self._streams[1] is writer:
            self._streams = None

    async def _reply(self, reader: asyncio.StreamReader) -> Mapping[str, object]:
        """The reply to the last request; those of requests given up or cancelled before may still stand in front of it."""
        for _ in range(_MAX_STALE):
            identity, reply = decode_reply(await reader.readuntil(b"\n"))
            if identity == self._identity:
                return reply
            if not 0 < identity < self._identity:
                raise ProtocolError(f"{self._where}: a reply to request {identity}, which was never sent")
        raise ProtocolError(f"{self._where}: more than {_MAX_STALE} stale replies")

"""A broker that does what a real one does too seldom to test with."""

import asyncio
from collections.abc import Callable

PUBREC, PUBREL, PUBCOMP = 5, 6, 7
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ = 1, 2, 3, 4, 8, 9, 10, 11, 12


def packet(header: int, body: bytes) -> bytes:
    """With the remaining length as MQTT 3.1.1 section 2.2.3 codes it."""
    length, coded = len(body), b""
    while True:
        length, low = divmod(length, 128)
        coded += bytes([low | 128 * (length > 0)])
        if not length:
            return bytes([header]) + coded + body


class ScriptedBroker:
    """Speaks MQTT 3.1.1; remembers what clients subscribed to and unsubscribed from. The session is always resumed."""

    def __init__(self) -> None:
        self.subscribed: list[list[str]] = []
        self.unsubscribed: list[list[str]] = []
        self.connects = 0
        self.acknowledged: list[int] = []
        self.said: dict[int, list[int]] = {PUBREC: [], PUBCOMP: []}
        self.published: list[tuple[str, bytes]] = []
        self.suback = True
        self.refuses_subscriptions = False
        self.puback = True
        self.echo = False  # send every message back, as to a subscriber of everything
        self.session_present = True
        self.writers: list[asyncio.StreamWriter] = []
        self.changed = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        self.drop()

    def drop(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def publish(self, topic: str, payload: bytes, mid: int, *, dup: bool = False) -> None:
        body = len(topic).to_bytes(2, "big") + topic.encode() + mid.to_bytes(2, "big") + payload
        self.writers[-1].write(packet(PUBLISH << 4 | 2 | dup << 3, body))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                first = (await reader.readexactly(1))[0]
                length = shift = 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                self._take(first, await reader.readexactly(length), writer)
                self.changed.set()
        except (asyncio.IncompleteReadError, OSError):
            return

    def _take(self, first: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        kind = first >> 4
        if kind == CONNECT:
            self.connects += 1
            writer.write(bytes((CONNACK << 4, 2, self.session_present, 0)))
        elif kind in (SUBSCRIBE, UNSUBSCRIBE):
            topics, rest = [], body[2:]
            while rest:
                end = 2 + int.from_bytes(rest[:2], "big")
                topics.append(rest[2:end].decode())
                rest = rest[end + (kind == SUBSCRIBE) :]
            if kind == SUBSCRIBE:
                self.subscribed.append(topics)
                if self.suback:
                    writer.write(
                        bytes((SUBACK << 4, 2 + len(topics)))
                        + body[:2]
                        + (b"\x80" if self.refuses_subscriptions else b"\x01") * len(topics)
                    )
            else:
                self.unsubscribed.append(topics)
                writer.write(bytes((UNSUBACK << 4, 2)) + body[:2])
        elif kind == PUBLISH:
            end = 2 + int.from_bytes(body[:2], "big")
            qos = first >> 1 & 3
            topic, rest = body[2:end].decode(), body[end:]
            if qos and self.puback:
                writer.write(bytes((PUBACK << 4, 2)) + rest[:2])
            self.published.append((topic, rest[2 if qos else 0 :]))
            if self.echo:
                sent = len(topic).to_bytes(2, "big") + topic.encode() + rest[2 if qos else 0 :]
                writer.write(bytes((PUBLISH << 4, len(sent))) + sent)
        elif kind == PUBACK:
            self.acknowledged.append(int.from_bytes(body[:2], "big"))
        elif kind in (PUBREC, PUBCOMP):
            self.said[kind].append(int.from_bytes(body[:2], "big"))
        elif kind == PINGREQ:
            writer.write(bytes((13 << 4, 0)))

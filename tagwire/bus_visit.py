"""A visit to the bus: an operator's command looks at what is retained there, follows what changes, sends, and leaves no trace."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable

from links.bus_handlers import Handler, Handlers
from links.environment import MqttSettings
from links.mqtt import Delivery, MqttLink
from scada.errors import LinkError
from scada.topics import BusTopics

REACH_S = 3.0
ANSWER_S = 6.0
"""For the broker's CONNACK; the link itself gives up after five."""
ROUND_TRIP_S = 5.0
SETTLE_S = 0.05
"""Retained messages that a broker sends behind the answer to a later message come within this time of each other."""


async def reach(host: str, port: int, timeout_s: float = REACH_S) -> None:
    """Make a TCP connection and close it; LinkError that says which step failed: the name, no answer, refused."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            await loop.getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:
        raise LinkError(f"the name {host!r} is not known (DNS: {getattr(error, 'strerror', None) or error})") from error
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError as error:
        raise LinkError(f"no answer within {timeout_s:g} s (TCP connect: wrong address, or a firewall)") from error
    except OSError as error:
        reason = (
            "nobody listens there (connection refused)" if isinstance(error, ConnectionRefusedError) else str(error)
        )
        raise LinkError(reason) from error
    writer.close()


class BusVisit:
    """A connection without a session. `on_change(online)` is called in the loop at the beginning and end of connections."""

    def __init__(
        self,
        settings: MqttSettings,
        topics: BusTopics,
        name: str,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        """Raises OSError when a file of the TLS settings cannot be used."""
        self.topics = topics
        self.where = f"broker {settings.host}:{settings.port}"
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._handlers = Handlers()
        self._awaited: dict[bytes, asyncio.Future[None]] = {}
        self._looking = asyncio.Lock()
        self._held: tuple[str, Callable[[Delivery], None]] | None = None
        visitor = f"{name}-{secrets.token_hex(4)}"
        client_id = f"{settings.client_id_prefix}-{visitor}"
        self._link = MqttLink(settings, client_id, self._receive, persistent=False, on_change=on_change)
        self._own_topic = topics.heartbeat(visitor)
        self._handlers.add([self._own_topic], self._came_back)
        self._link.subscribe([self._own_topic], qos=0)

    def start(self) -> None:
        """Connect, and stay connected until `close`."""
        self._link.start()

    async def connect(self) -> None:
        """Connect now; raises LinkError, at once when nobody listens or the broker refuses."""
        try:
            await reach(self._settings.host, self._settings.port)
        except LinkError as error:
            raise LinkError(f"{self.where}: {error}") from error
        self.start()
        await self.connected()

    async def connected(self, timeout_s: float = ANSWER_S) -> None:
        """Wait until it is connected; raises LinkError."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._link.connected()
        except TimeoutError as error:
            raise LinkError(f"{self.where}: {self._link.error or 'no answer'}") from error

    async def close(self) -> None:
        """Leave."""
        await self._link.close()

    @property
    def online(self) -> bool:
        """Whether there is a connection."""
        return self._link.online.is_set()

    @property
    def error(self) -> str | None:
        """Why there is none."""
        return self._link.error

    async def round_trip(self) -> float:
        """Seconds that a message of ours takes to the broker and back; raises LinkError when it does not come."""
        token = secrets.token_hex(8).encode()
        back = self._awaited[token] = self._loop.create_future()
        sent = time.perf_counter()
        try:
            self._link.post(self._own_topic, token, None, qos=0)
            async with asyncio.timeout(ROUND_TRIP_S):
                await back
        except TimeoutError as error:
            raise LinkError(
                f"{self.where}: what is published on {self._own_topic} does not come back within {ROUND_TRIP_S:g} s: "
                "may this user publish and subscribe there?"
            ) from error
        finally:
            del self._awaited[token]
        return time.perf_counter() - sent

    async def retained(self, filters: Iterable[str]) -> dict[str, bytes]:
        """What the broker holds on topics that match, by topic; raises LinkError."""
        wanted = list(filters)
        found: dict[str, bytes] = {}
        quiet = asyncio.Event()
        settling: asyncio.TimerHandle | None = None

        def settle() -> None:
            nonlocal settling
            if settling is not None:
                settling.cancel()
            settling = self._loop.call_later(SETTLE_S, quiet.set)

        def take(topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
            if retained or topic in found:
                found[topic] = payload
                if settling is not None and retained:
                    settle()

        async with self._looking:
            self.follow(wanted, take)
            try:
                await self.round_trip()
                # Some brokers answer a later message first; they are done when nothing has come for a moment.
                settle()
                await quiet.wait()
            finally:
                self.unfollow(wanted)
        if refused := self._link.refused.intersection(wanted):
            raise LinkError(f"{self.where}: the broker refuses the subscription to {', '.join(sorted(refused))}")
        return {topic: payload for topic, payload in found.items() if payload}

    def follow(self, filters: Iterable[str], handler: Handler, qos: int = 0) -> None:
        """Give messages on topics that match to `handler`, from now on."""
        wanted = list(filters)
        self._handlers.add(wanted, handler)
        self._link.subscribe(wanted, qos)

    def unfollow(self, filters: Iterable[str]) -> None:
        """And no longer."""
        wanted = list(filters)
        self._handlers.remove(wanted)
        self._link.unsubscribe(wanted)

    async def window(self, most: int, patience_s: float) -> int:
        """How many messages of QoS 1 the broker gives us before it wants the first acknowledged: `most`, or fewer."""
        held: list[Delivery] = []
        complete = asyncio.Event()
        topic = f"{self._own_topic}-window"

        def hold(delivery: Delivery) -> None:
            held.append(delivery)
            if len(held) >= most:
                complete.set()

        self._link.subscribe([topic], qos=1)
        self._held = (topic, hold)
        try:
            await self.round_trip()
            for number in range(most):
                self._link.post(topic, b"%d" % number, None, qos=1)
            try:
                async with asyncio.timeout(patience_s):
                    await complete.wait()
            except TimeoutError:
                pass  # this is the answer
            return len(held)
        finally:
            self._held = None
            for delivery in held:
                self._link.acknowledge(delivery)
            self._link.unsubscribe([topic])

    async def send(self, topic: str, payload: bytes) -> None:
        """Publish, and wait for the acknowledgement; raises LinkError."""
        await self._link.publish(topic, payload)

    def _receive(self, topic: str, payload: bytes, retained: bool, delivery: Delivery) -> None:
        if self._held is not None and topic == self._held[0]:
            self._held[1](delivery)
            return
        for handler in self._handlers.find(topic):
            handler(topic, payload, retained, delivery.is_repeat)
        self._link.acknowledge(delivery)

    def _came_back(self, topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        waiting = self._awaited.get(payload)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

"""The MQTT link: stays connected to one broker, connection after connection, and says when it is not."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from enum import StrEnum

from links.backoff import Backoff
from links.deliveries import Delivery, OnMessage
from links.environment import MqttSettings
from links.mqtt_connection import REFUSED_PAUSE_S, BrokerRefused, MqttConnection
from links.mqtt_identity import Identity, Will, make_tls
from links.publications import OnDone
from links.subscriptions import Subscriptions
from scada.errors import LinkError

__all__ = ["Delivery", "LinkState", "MqttLink", "Will"]

log = logging.getLogger(__name__)

STABLE_S = 10.0
"""A connection that lasted this long was a good one: the next attempt comes at once."""
ABSENT_CAP_S = 4.0
"""Longest pause (jitter aside) where nobody listens: asking costs nothing, and who comes back is seen within 5 s."""
UNSTABLE_CAP_S = 8.0
"""Longest pause (jitter aside) after connections that ended soon: back within 10 s of a broker that was restarted often."""
UNSTABLE_COUNT = 3
"""So many short connections in a row are more than an accident."""


class LinkState(StrEnum):
    """Of the link to the broker."""

    OFFLINE = "offline"
    ONLINE = "online"
    REFUSED = "refused"


class MqttLink:
    """A persistent session with one broker. `on_message(topic, payload, retained, delivery)` runs in the loop and must not block.

    Messages of QoS 1 are acknowledged by `acknowledge` only. `on_change(online)` runs in the loop at the beginning of each
    connection and at its end, then after the last call of any `on_done`.
    """

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        on_message: OnMessage,
        *,
        will: Will | None = None,
        persistent: bool = True,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        self._name = f"broker {settings.host}:{settings.port}"
        self._identity = Identity(settings, client_id, self._name, will, persistent, make_tls(settings))
        self._on_change = on_change
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._subscriptions = Subscriptions()
        self._session = 0
        self._connection = self._make_connection()
        self._running: asyncio.Task[None] | None = None
        self._error: str | None = None
        self.state = LinkState.OFFLINE
        self.online = asyncio.Event()
        self._judged = asyncio.Event()  # let in, or refused
        self._short_connections = 0

    def start(self) -> None:
        """Connect, and stay connected until `close`."""
        self._running = self._loop.create_task(self._run(), name=f"{self._name} link")

    async def connected(self) -> None:
        """Wait until the link is online; raises LinkError as soon as the broker refuses. Who is not there yet is waited for."""
        await self._judged.wait()
        if not self.online.is_set():
            raise LinkError(f"{self._name}: {self._error}")

    async def close(self) -> None:
        """Leave the broker in order; the session stays there when it is a persistent one."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        """Reconnect with jittered backoff, one log line per change of state."""
        backoff = Backoff(first_s=1.0, cap_s=30.0)
        absent = Backoff(first_s=1.0, cap_s=ABSENT_CAP_S)
        unstable = Backoff(first_s=1.0, cap_s=UNSTABLE_CAP_S)
        try:
            while True:
                since = self._loop.time()
                self._session += 1
                connection = self._connection = self._make_connection()
                try:
                    await connection.open()
                    backoff.reset()
                    absent.reset()
                    since = self._loop.time()
                    await self._stay()
                except LinkError as error:
                    self.state = LinkState.REFUSED if isinstance(error, BrokerRefused) else LinkState.OFFLINE
                    self._went_offline(str(error))
                    pause_s = (backoff if connection.reached else absent).next_delay_s()
                    await asyncio.sleep(max(pause_s, REFUSED_PAUSE_S) if self.state is LinkState.REFUSED else pause_s)
                    continue
                except Exception:  # the top of this task: without it the program would live on without its broker
                    log.exception("%s: a fault in the link", self._name)
                    connection.drop()
                    self._went_offline("a fault in the link")
                if self._loop.time() - since < STABLE_S:
                    # Another client with our id, or a broker that throws us out: no ping-pong.
                    await asyncio.sleep(unstable.next_delay_s())
                else:
                    unstable.reset()
        finally:
            self._connection.leave()

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that a message is dealt with; one of an earlier connection is left to be delivered again."""
        self._connection.acknowledge(delivery)

    def subscribe(self, filters: Iterable[str], qos: int = 1) -> None:
        """Have the topics of `filters` delivered, now and after every reconnect."""
        self._subscriptions.add(filters, qos)
        self._synchronise()

    def ask_again(self, filters: Iterable[str]) -> None:
        """Have the broker repeat what is retained on subscribed topics; it misses nothing meanwhile (MQTT 3.1.1, 3.8.4)."""
        self._subscriptions.ask_again(filters)
        self._synchronise()

    def unsubscribe(self, filters: Iterable[str]) -> None:
        """Stop the delivery of `filters`, those too that only an earlier run's session still holds."""
        self._subscriptions.remove(filters)
        self._synchronise()

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, timeout_s: float = 5.0
    ) -> None:
        """Publish and wait for the broker's acknowledgement; raises LinkError. What failed is never sent again by itself."""
        done: asyncio.Future[None] = self._loop.create_future()

        def settle(error: LinkError | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        self.post(topic, payload, settle, qos=qos, retain=retain)
        if qos == 0:
            return
        try:
            await asyncio.wait_for(done, timeout_s)
        except TimeoutError as error:
            raise LinkError(f"{self._name}: no acknowledgement within {timeout_s:g} s for {topic}") from error

    def post(self, topic: str, payload: bytes, on_done: OnDone | None, *, qos: int = 1, retain: bool = False) -> None:
        """Publish without waiting; `on_done` is called once, for QoS 1 only. At most `window` of them may be unanswered.

        Raises LinkError when there is no connection, ValueError for a topic that none can have.
        """
        if not self.online.is_set():
            raise LinkError(f"{self._name}: not connected" + (f": {self._error}" if self._error else ""))
        self._connection.post(topic, payload, on_done, qos, retain)

    def drop(self, reason: str) -> None:
        """End the connection, which is dead whatever the socket says, and connect again; the broker sends the will."""
        self._connection.end_reason = reason
        self._connection.drop()

    @property
    def window(self) -> int:
        """How many messages of QoS 1 the broker lets us send before it answers (MQTT 5 section 3.2.2.3.3)."""
        return self._connection.window

    @property
    def resumed(self) -> bool:
        """Whether the broker still had our session at the last connection: then no message was missed meanwhile."""
        return self._connection.resumed

    @property
    def refused(self) -> frozenset[str]:
        """Topic filters that the broker refused (SUBACK 0x80); they are asked for again every half minute."""
        return self._subscriptions.refused

    @property
    def error(self) -> str | None:
        """Why the link is not online; None while it is."""
        return self._error

    def _make_connection(self) -> MqttConnection:
        return MqttConnection(self._identity, self._session, self._subscriptions, self._on_message)

    def _synchronise(self) -> None:
        """Later, when there is no broker."""
        if self.online.is_set():
            self._connection.synchronise()

    async def _stay(self) -> None:
        """Until the connection ends."""
        connection, client_id = self._connection, self._identity.client_id
        self.state = LinkState.ONLINE
        self._error = None
        self.online.set()
        self._judged.set()
        log.info("%s: online (%s)", self._name, client_id)
        since = self._loop.time()
        try:
            if self._on_change is not None:
                self._on_change(True)
            await connection.ended()
        finally:
            self.online.clear()
            if self._on_change is not None:
                self._on_change(False)
        reason = connection.end_reason or "connection lost"
        self._short_connections = self._short_connections + 1 if self._loop.time() - since < STABLE_S else 0
        if self._short_connections >= UNSTABLE_COUNT:
            reason += f"; soon after it was made, again and again: does another program use the client id {client_id}?"
        self._went_offline(reason)

    def _went_offline(self, error: str) -> None:
        """One line for each change of state, and for each new reason."""
        if self.state is LinkState.ONLINE:
            self.state = LinkState.OFFLINE
        if self._error != error:
            log.warning("%s: %s: %s", self._name, self.state, error)
        self._error = error
        if self.state is LinkState.REFUSED:
            self._judged.set()
        else:
            self._judged.clear()

"""The MQTT link: paho-mqtt 2 driven from the asyncio loop. Over 400 lines, because one file alone may know paho.

paho's own thread is never started: an exception in a callback would end it in silence. Here the loop reads and writes the
socket, every callback's exception surfaces in `_read`, and connecting (which blocks) runs in a worker thread.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from paho.mqtt.client import Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from links.backoff import Backoff
from links.environment import MqttSettings
from links.publications import OnDone, Publications, PublishRefused
from links.publish_packets import Publication, read_publish
from links.subscriptions import Subscriptions
from links.threads import call_in_thread
from scada.errors import LinkError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
REFUSED_PAUSE_S = 30.0
"""Pause after a broker's clean no (wrong password, not allowed): asking again soon changes nothing."""
RECEIVE_BYTES = 65_536
READ_BATCH = 64
"""Most packets read before other tasks of the loop get their turn."""
INFLIGHT = 65_535
"""Receive window asked for with MQTT 5 (3.1.1 has none: there it is the broker's setting)."""
UNREADABLE_TOPIC = "(topic is not UTF-8)"
STABLE_S = 10.0
"""A connection that lasted this long was a good one: the next attempt comes at once."""
ABSENT_CAP_S = 4.0
"""Longest pause (jitter aside) where nobody listens: asking costs nothing, and who comes back is seen within 5 s."""
UNSTABLE_CAP_S = 8.0
"""Longest pause (jitter aside) after connections that ended soon: back within 10 s of a broker that was restarted often."""
UNSTABLE_COUNT = 3
"""So many short connections in a row are more than an accident."""
PING_SHARE = 0.7
"""paho finds a dead link after two of its keep-alive periods; with this share of ours that is within 1.5 of ours."""
KEEPALIVE_LOOK_S = 0.25
SESSION_S = 7 * 24 * 3600
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux
_PUBACK = struct.Struct(">BBH")
"""MQTT 3.1.1 section 3.4; with 5 the same bytes mean success (section 3.4.2.1)."""


class LinkState(StrEnum):
    """Of the link to the broker."""

    OFFLINE = "offline"
    ONLINE = "online"
    REFUSED = "refused"


class Delivery(NamedTuple):
    """What names a received message to the broker. `session` counts connections: numbers of an old one mean nothing."""

    session: int
    mid: int
    qos: int
    is_repeat: bool = False
    """The broker sent it before (DUP): it may be older than what came since."""


@dataclass(frozen=True, slots=True)
class Will:
    """Published by the broker when this client is gone; `online` is published by the client itself when it is there."""

    topic: str
    offline: bytes
    online: bytes


class _Client(Client):
    """paho's client with a buffer under its socket: paho receives three times for each packet, and sends each answer alone."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._chunk = b""
        self._at = 0
        self._failure: OSError | None = None
        self._acknowledgements = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes received that paho has not taken yet: the loop's selector does not see them."""
        return len(self._chunk) - self._at

    def publications(self, limit: int, five: bool) -> list[Publication]:
        """The next messages, up to `limit`, that came whole and need nothing of paho's; receives when nothing is buffered."""
        if self._in_packet["command"]:
            return []  # paho has read the beginning of a packet
        if self._at >= len(self._chunk):
            try:
                self._chunk, self._at = super()._sock_recv(RECEIVE_BYTES), 0
            except BlockingIOError:
                return []
            except OSError as error:
                self._failure = error  # paho meets it at its next read, and ends the connection
                return []
        found: list[Publication] = []
        while len(found) < limit and (each := read_publish(self._chunk, self._at, five)) is not None:
            found.append(each)
            self._at = each.end
        if found:
            self._last_bytes_received = time.monotonic()  # as paho: it must not ping a broker that speaks
        return found

    def discard(self) -> None:
        """Throw away what is buffered."""
        self._chunk, self._at = b"", 0

    def acknowledge(self, mid: int) -> None:
        """Send PUBACK with the next flush, together with others; all of it goes out before what is published later."""
        self._acknowledgements += _PUBACK.pack(0x40, 2, mid)

    def send_acknowledgements(self) -> None:
        """Hand them to paho's queue, as one piece."""
        if self._acknowledgements:
            packet, self._acknowledgements = self._acknowledgements, bytearray()
            self._packet_queue(0x40, packet, 0, 0)

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._failure is not None:
            raise self._failure
        at = self._at
        if at >= len(self._chunk):
            self._chunk, at = super()._sock_recv(RECEIVE_BYTES), 0
        self._at = end = min(at + bufsize, len(self._chunk))
        return self._chunk[at:end]


class MqttLink:
    """A persistent session with one broker. `on_message(topic, payload, retained, delivery)` runs in the loop and must not block.

    Messages of QoS 1 are acknowledged by `acknowledge` only. `on_change(online)` runs in the loop at the beginning of each
    connection and at its end, then after the last call of any `on_done`.
    """

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        on_message: Callable[[str, bytes, bool, Delivery], None],
        *,
        will: Will | None = None,
        persistent: bool = True,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        self._settings = settings
        self._client_id = client_id
        self._persistent = persistent
        self._on_change = on_change
        self._on_message = on_message
        self._will = will
        self._loop = asyncio.get_running_loop()
        self._subscriptions = Subscriptions()
        self._publications = Publications()
        self._session = 0
        self._received = 0
        self._running: asyncio.Task[None] | None = None
        self._end_reason = ""
        self._retry_subscribe: asyncio.TimerHandle | None = None
        self._socket: Any = None  # paho's: a plain or a TLS socket
        self._write_scheduled = False
        self._closed = asyncio.Event()
        self._connack: asyncio.Future[None] = self._loop.create_future()
        self._error: str | None = None
        self.state = LinkState.OFFLINE
        self.online = asyncio.Event()
        self._judged = asyncio.Event()  # let in, or refused
        self._window = INFLIGHT
        self._resumed = False
        self._drop_reason = ""
        self._reached = False
        self._short_connections = 0
        self._tls = self._make_tls()
        self._five = settings.protocol == "5"
        self._client = self._make_client()

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
                try:
                    await self._connect()
                    backoff.reset()
                    absent.reset()
                    since = self._loop.time()
                    await self._stay()
                except LinkError as error:
                    self._went_offline(str(error))
                    pause_s = (backoff if self._reached else absent).next_delay_s()
                    await asyncio.sleep(max(pause_s, REFUSED_PAUSE_S) if self.state is LinkState.REFUSED else pause_s)
                    continue
                except Exception:  # the top of this task: without it the program would live on without its broker
                    log.exception("%s: a fault in the link", self._name)
                    self._drop()
                    self._went_offline("a fault in the link")
                if self._loop.time() - since < STABLE_S:
                    # Another client with our id, or a broker that throws us out: no ping-pong.
                    await asyncio.sleep(unstable.next_delay_s())
                else:
                    unstable.reset()
        finally:
            self._say_goodbye()

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that a message is dealt with; one of an earlier connection is left to be delivered again."""
        if delivery.qos and delivery.session == self._session and self._socket is not None:
            self._client.acknowledge(delivery.mid)
            self._want_write()

    def subscribe(self, filters: Iterable[str], qos: int = 1) -> None:
        """Have the topics of `filters` delivered, now and after every reconnect."""
        self._subscriptions.add(filters, qos)
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
        if self._socket is None or not self.online.is_set():
            raise LinkError(f"{self._name}: not connected" + (f": {self._error}" if self._error else ""))
        info = self._client.publish(topic, payload, qos, retain)
        if info.rc is MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            raise LinkError(f"{self._name}: too many messages without an acknowledgement")
        if qos and on_done is not None:
            self._publications.sent(info.mid, on_done)

    def drop(self, reason: str) -> None:
        """End the connection, which is dead whatever the socket says, and connect again; the broker sends the will."""
        self._drop_reason = reason
        self._drop()

    @property
    def window(self) -> int:
        """How many messages of QoS 1 the broker lets us send before it answers (MQTT 5 section 3.2.2.3.3)."""
        return self._window

    @property
    def resumed(self) -> bool:
        """Whether the broker still had our session at the last connection: then no message was missed meanwhile."""
        return self._resumed

    @property
    def refused(self) -> frozenset[str]:
        """Topic filters that the broker refused (SUBACK 0x80); they are asked for again every half minute."""
        return self._subscriptions.refused

    @property
    def error(self) -> str | None:
        """Why the link is not online; None while it is."""
        return self._error

    @property
    def _name(self) -> str:
        return f"broker {self._settings.host}:{self._settings.port}"

    def _make_tls(self) -> ssl.SSLContext | None:
        settings = self._settings
        if not settings.tls:
            return None
        context = ssl.create_default_context(cafile=settings.tls_ca)
        if settings.tls_cert is not None:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
        return context

    def _make_client(self) -> _Client:
        """One for each connection: paho's would send again by itself what its caller was told has failed."""
        settings, persistent, five = self._settings, self._persistent, self._five
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=MQTTv5 if five else MQTTv311,
            clean_session=None if five else not persistent,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        # No limit of paho's: beyond it messages queue unseen, and below it every acknowledgement walks over all of them.
        client.max_inflight_messages_set(0)
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if self._will is not None:
            client.will_set(self._will.topic, self._will.offline, qos=1, retain=True)
        properties = None
        if five:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
            properties.SessionExpiryInterval = SESSION_S if persistent else 0
            properties.ReceiveMaximum = INFLIGHT
        client.connect_async(
            settings.host,
            settings.port,
            max(1, int(settings.keepalive_s * PING_SHARE)),
            clean_start=not persistent if five else 3,
            properties=properties,
        )
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_packet
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_publish = self._on_publish
        client.on_socket_close = self._on_socket_close
        return client

    async def _connect(self) -> None:
        """Open the socket and wait for the broker's CONNACK."""
        self._connack = self._loop.create_future()
        self._closed.clear()
        self._end_reason = self._drop_reason = ""
        self._reached = False
        self._client = self._make_client()
        # Without this callback paho sends CONNECT at once, in the worker thread, before the loop watches the socket.
        self._client.on_socket_register_write = None
        try:
            await call_in_thread(self._client.reconnect, f"{self._name} connect")  # paho's connect blocks
        except (OSError, ValueError) as error:
            self.state = LinkState.OFFLINE
            raise LinkError(f"cannot connect: {error}") from error
        sock = self._client.socket()
        if sock is None:
            raise LinkError("connection closed at once")
        self._socket = sock
        # An acknowledgement and what follows it are small segments: Nagle's algorithm holds the second back for up to 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reached = True
        self._session += 1
        self._client.on_socket_register_write = self._want_write
        self._loop.add_reader(sock, self._read)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._connack
        except TimeoutError as error:
            self._drop()
            self.state = LinkState.OFFLINE
            raise LinkError(f"connected, but no answer (CONNACK) within {CONNECT_TIMEOUT_S:g} s") from error
        except BaseException:
            self._drop()
            raise

    async def _stay(self) -> None:
        """Until the connection ends: looks after the keep-alive (paho drops a broker that does not answer its ping)."""
        self.state = LinkState.ONLINE
        self._error = None
        self.online.set()
        self._judged.set()
        log.info("%s: online (%s)", self._name, self._client_id)
        if self._will is not None:
            self._client.publish(self._will.topic, self._will.online, 1, True)
        since = self._loop.time()
        try:
            if self._on_change is not None:
                self._on_change(True)
            while not self._closed.is_set():
                try:
                    async with asyncio.timeout(KEEPALIVE_LOOK_S):
                        await self._closed.wait()
                except TimeoutError:
                    self._client.loop_misc()
        finally:
            self.online.clear()
            if self._on_change is not None:
                self._on_change(False)
        reason = self._drop_reason or self._end_reason or "connection lost"
        self._short_connections = self._short_connections + 1 if self._loop.time() - since < STABLE_S else 0
        if self._short_connections >= UNSTABLE_COUNT:
            reason += (
                f"; soon after it was made, again and again: does another program use the client id {self._client_id}?"
            )
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

    def _on_connect(self, _client: Client, _userdata: object, flags: Any, reason: Any, properties: object) -> None:
        if self._connack.done():
            return
        if reason.is_failure:
            self.state = LinkState.OFFLINE if "unavailable" in str(reason) else LinkState.REFUSED
            self._connack.set_exception(LinkError(f"the broker says: {reason}"))
            return
        self._window = min(INFLIGHT, getattr(properties, "ReceiveMaximum", INFLIGHT))
        self._resumed = flags.session_present
        self._subscriptions.connected(flags.session_present)
        self._connack.set_result(None)
        self._synchronise(connecting=True)

    def _on_disconnect(self, _client: Client, _userdata: object, flags: Any, reason: Any, _properties: object) -> None:
        # 3.1.1 has no DISCONNECT from the broker; with 5 its reason says why (session taken over, not authorized ...).
        self._end_reason = f"the broker says: {reason}" if flags.is_disconnect_packet_from_server else str(reason)
        if not self._connack.done():
            self._connack.set_exception(LinkError(f"connection closed before CONNACK: {reason}"))

    def _on_socket_close(self, _client: Client, _userdata: object, _sock: object) -> None:
        """paho is about to close its socket: the loop must let go of it first."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = None
        self._closed.set()
        self._publications.lost(LinkError(f"{self._name}: connection lost before the acknowledgement"))

    def _on_packet(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        self._received += 1
        delivery = Delivery(self._session, message.mid, message.qos, message.dup)
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = UNREADABLE_TOPIC
        self._on_message(topic, bytes(message.payload), message.retain, delivery)

    def _on_publish(self, _client: Client, _userdata: object, mid: int, reason: Any, _properties: object) -> None:
        error = PublishRefused(f"{self._name}: publish refused: {reason}") if reason.is_failure else None
        self._publications.answered(mid, error)

    def _synchronise(self, connecting: bool = False) -> None:
        """Ask the broker for what the session lacks, and give back what it should not hold; later, when there is no broker."""
        if not (connecting or self.online.is_set()):
            return
        for batch in self._subscriptions.missing():
            _, mid = self._client.subscribe([(each, self._subscriptions.qos(each)) for each in batch])
            if mid is not None:
                self._subscriptions.subscribing(mid, batch)
        for batch in self._subscriptions.superfluous():
            _, mid = self._client.unsubscribe(batch)
            if mid is not None:
                self._subscriptions.unsubscribing(mid, batch)

    def _on_unsubscribe(self, _client: Client, _userdata: object, mid: int, *_: object) -> None:
        self._subscriptions.released(mid)

    def _on_subscribe(
        self, _client: Client, _userdata: object, mid: int, reasons: list[Any], _properties: object
    ) -> None:
        refused = self._subscriptions.answered(mid, [reason.is_failure for reason in reasons])
        if refused:
            log.error("%s: subscription refused: %s", self._name, ", ".join(refused))
            if self._retry_subscribe is not None:
                self._retry_subscribe.cancel()
            self._retry_subscribe = self._loop.call_later(REFUSED_PAUSE_S, self._synchronise)

    def _read(self) -> None:
        client = self._client
        left = READ_BATCH
        try:
            while left > 0:
                found = client.publications(left, self._five)
                for each in found:
                    delivery = Delivery(self._session, each.mid, each.qos, each.is_repeat)
                    self._on_message(each.topic, each.payload, each.retained, delivery)
                    if self._socket is None:
                        return  # ended by who received it; the broker sends the rest again
                left -= len(found)
                if not found:
                    before = self._received
                    if client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                        return
                    left -= self._received - before
                    if self._received == before and not client.buffered and not _decrypted(self._socket):
                        break
                elif not client.buffered:
                    break
            if client.buffered or _decrypted(self._socket):
                self._loop.call_soon(self._read_on, client)
            else:
                self._acknowledge_segments()
        except Exception:  # the top of this callback: a fault of ours or of paho's ends the link, never the program
            log.exception("%s: reading failed", self._name)
            self._drop()

    def _acknowledge_segments(self) -> None:
        """Have the system acknowledge what was received at once, not up to 40 ms later: a broker with Nagle's algorithm holds
        the next message back until then, and a message that waits for its device sends no answer that could carry it.
        """
        if self._socket is not None and _QUICK_ACK is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)  # the system forgets it again (tcp(7))

    def _read_on(self, client: _Client) -> None:
        """What the selector does not see, unless the connection has ended meanwhile."""
        if client is self._client and self._socket is not None:
            self._read()

    def _want_write(self, *_: object) -> None:
        if not self._write_scheduled:
            self._write_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        sock = self._socket
        self._write_scheduled = sock is not None
        if sock is None:
            return
        self._client.send_acknowledgements()
        self._write_scheduled = False
        self._client.loop_write()
        if self._socket is None:
            return
        if self._client.want_write():
            self._loop.add_writer(sock, self._flush)
        else:
            self._loop.remove_writer(sock)

    def _drop(self) -> None:
        """End the connection from our side, without the DISCONNECT that would suppress the will."""
        sock: Any = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):  # already gone: what was wanted
                sock.shutdown(socket.SHUT_RDWR)
            self._client.discard()
            self._client.loop_read()

    def _say_goodbye(self) -> None:
        """Leave in order: the broker keeps the session and does not send the will."""
        if self._retry_subscribe is not None:
            self._retry_subscribe.cancel()
        client = self._client
        if client.socket() is None:
            return
        client.on_socket_register_write = None
        client.send_acknowledgements()
        if self._will is not None and client.is_connected():
            client.publish(self._will.topic, self._will.offline, 1, True)
        client.disconnect()
        client.loop_write()
        self._drop()


def _decrypted(sock: Any) -> int:
    """Bytes that a TLS socket holds already: the loop's selector does not see them."""
    return sock.pending() if isinstance(sock, ssl.SSLSocket) else 0

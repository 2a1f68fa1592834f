"""One connection to an MQTT broker: paho-mqtt 2 driven from the asyncio loop. The only file that knows paho.

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
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from links.deliveries import Delivery, OnMessage
from links.mqtt_identity import Identity
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
PING_SHARE = 0.7
"""paho finds a dead link after two of its keep-alive periods; with this share of ours that is within 1.5 of ours."""
KEEPALIVE_LOOK_S = 0.25
SESSION_S = 7 * 24 * 3600
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux
_ACKNOWLEDGEMENT = struct.Struct(">BBH")
_PUBACK, _PUBCOMP = 0x40, 0x70
"""MQTT 3.1.1 sections 3.4 and 3.7; with 5 the same bytes mean success (sections 3.4.2.1, 3.7.2.1)."""


class BrokerRefused(LinkError):
    """The broker's clean no to the connection."""


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

    def acknowledge(self, mid: int, qos: int) -> None:
        """Send the last word on a message with the next flush, together with others, and before what is published later."""
        self._acknowledgements += _ACKNOWLEDGEMENT.pack(_PUBACK if qos == 1 else _PUBCOMP, 2, mid)

    def send_acknowledgements(self) -> None:
        """Hand them to paho's queue, as one piece."""
        if self._acknowledgements:
            packet, self._acknowledgements = self._acknowledgements, bytearray()
            self._packet_queue(_PUBACK, packet, 0, 0)

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._failure is not None:
            raise self._failure
        at = self._at
        if at >= len(self._chunk):
            self._chunk, at = super()._sock_recv(RECEIVE_BYTES), 0
        self._at = end = min(at + bufsize, len(self._chunk))
        return self._chunk[at:end]


class MqttConnection:
    """Opened once, used until it ends, and never again: paho's client would send again by itself what its caller was told has
    failed. `session` numbers connections; `subscriptions` is what the broker is to send, which outlives this connection.
    """

    def __init__(self, identity: Identity, session: int, subscriptions: Subscriptions, on_message: OnMessage) -> None:
        self.session = session
        self.window = INFLIGHT
        """How many messages of QoS 1 the broker lets us send before it answers (MQTT 5 section 3.2.2.3.3)."""
        self.resumed = False
        """Whether the broker still had our session."""
        self.reached = False
        """Whether somebody listens there."""
        self.end_reason = ""
        """Why the connection ended, as far as anybody said so."""
        self._identity = identity
        self._subscriptions = subscriptions
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._publications = Publications()
        self._received = 0
        self._retry_subscribe: asyncio.TimerHandle | None = None
        self._socket: Any = None  # paho's: a plain or a TLS socket
        self._write_scheduled = False
        self._closed = asyncio.Event()
        self._connack: asyncio.Future[None] = self._loop.create_future()
        self._five = identity.settings.protocol == "5"
        self._client = self._make_client()

    async def open(self) -> None:
        """Open the socket and wait for the broker's CONNACK; raises LinkError, and BrokerRefused for a clean no."""
        # Without this callback paho sends CONNECT at once, in the worker thread, before the loop watches the socket.
        self._client.on_socket_register_write = None
        try:
            await call_in_thread(self._client.reconnect, f"{self._identity.broker} connect")  # paho's connect blocks
        except (OSError, ValueError) as error:
            raise LinkError(f"cannot connect: {error}") from error
        sock = self._client.socket()
        if sock is None:
            raise LinkError("connection closed at once")
        self._socket = sock
        # An acknowledgement and what follows it are small segments: Nagle's algorithm holds the second back for up to 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reached = True
        self._client.on_socket_register_write = self._want_write
        self._loop.add_reader(sock, self._read)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._connack
        except TimeoutError as error:
            self.drop()
            raise LinkError(f"connected, but no answer (CONNACK) within {CONNECT_TIMEOUT_S:g} s") from error
        except BaseException:
            self.drop()
            raise
        if self._identity.will is not None:
            self._client.publish(self._identity.will.topic, self._identity.will.online, 1, True)

    async def ended(self) -> None:
        """Until the connection ends: looks after the keep-alive (paho drops a broker that does not answer its ping)."""
        while not self._closed.is_set():
            try:
                async with asyncio.timeout(KEEPALIVE_LOOK_S):
                    await self._closed.wait()
            except TimeoutError:
                self._client.loop_misc()

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that a message is dealt with; one of an earlier connection is left to be delivered again."""
        if delivery.qos and delivery.session == self.session and self._socket is not None:
            self._client.acknowledge(delivery.mid, delivery.qos)
            self._want_write()

    def post(self, topic: str, payload: bytes, on_done: OnDone | None, qos: int, retain: bool) -> None:
        """Publish; `on_done` is called once, for QoS 1 only. Raises LinkError, ValueError for a topic that none can have."""
        if self._socket is None:
            raise LinkError(f"{self._identity.broker}: not connected")
        info = self._client.publish(topic, payload, qos, retain)
        if info.rc is MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            raise LinkError(f"{self._identity.broker}: too many messages without an acknowledgement")
        if qos and on_done is not None:
            self._publications.sent(info.mid, on_done)

    def synchronise(self) -> None:
        """Ask the broker for what the session lacks, and give back what it should not hold."""
        if self._socket is None:
            return
        for batch in self._subscriptions.missing():
            _, mid = self._client.subscribe([(each, self._subscriptions.qos(each)) for each in batch])
            if mid is not None:
                self._subscriptions.subscribing(mid, batch)
        for batch in self._subscriptions.superfluous():
            _, mid = self._client.unsubscribe(batch)
            if mid is not None:
                self._subscriptions.unsubscribing(mid, batch)

    def drop(self) -> None:
        """End the connection from our side, without the DISCONNECT that would suppress the will."""
        sock: Any = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):  # already gone: what was wanted
                sock.shutdown(socket.SHUT_RDWR)
            self._client.discard()
            self._client.loop_read()

    def leave(self) -> None:
        """Leave in order: the broker keeps the session and does not send the will."""
        client, will = self._client, self._identity.will
        if client.socket() is None:
            return
        client.on_socket_register_write = None
        client.send_acknowledgements()
        if will is not None and client.is_connected():
            client.publish(will.topic, will.offline, 1, True)
        client.disconnect()
        client.loop_write()
        self.drop()

    def _make_client(self) -> _Client:
        identity, five = self._identity, self._five
        settings, will, persistent = identity.settings, identity.will, identity.persistent
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=identity.client_id,
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
        if identity.tls is not None:
            client.tls_set_context(identity.tls)
        if will is not None:
            client.will_set(will.topic, will.offline, qos=1, retain=True)
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

    def _on_connect(self, _client: Client, _userdata: object, flags: Any, reason: Any, properties: object) -> None:
        if self._connack.done():
            return
        if reason.is_failure:
            kind = LinkError if "unavailable" in str(reason) else BrokerRefused
            self._connack.set_exception(kind(f"the broker says: {reason}"))
            return
        self.window = min(INFLIGHT, getattr(properties, "ReceiveMaximum", INFLIGHT))
        self.resumed = flags.session_present
        self._subscriptions.connected(flags.session_present)
        self._connack.set_result(None)
        self.synchronise()

    def _on_disconnect(self, _client: Client, _userdata: object, flags: Any, reason: Any, _properties: object) -> None:
        # 3.1.1 has no DISCONNECT from the broker; with 5 its reason says why (session taken over, not authorized ...).
        said = f"the broker says: {reason}" if flags.is_disconnect_packet_from_server else str(reason)
        self.end_reason = self.end_reason or said
        if not self._connack.done():
            self._connack.set_exception(LinkError(f"connection closed before CONNACK: {reason}"))

    def _on_socket_close(self, _client: Client, _userdata: object, _sock: object) -> None:
        """paho is about to close its socket: the loop must let go of it first."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = None
        if self._retry_subscribe is not None:
            self._retry_subscribe.cancel()
        self._closed.set()
        self._publications.lost(LinkError(f"{self._identity.broker}: connection lost before the acknowledgement"))

    def _on_packet(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        self._received += 1
        delivery = Delivery(self.session, message.mid, message.qos, message.dup)
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = UNREADABLE_TOPIC
        if not topic or (message.qos and not message.mid):
            # MQTT 3.1.1 section 2.3.1, MQTT 5 section 3.3.2.1 (there are no topic aliases: we allow the broker none)
            log.error("%s: a message without a %s", self._identity.broker, "packet identifier" if topic else "topic")
            self._loop.call_soon(self.drop)  # not within paho's own reading
            return
        self._on_message(topic, bytes(message.payload), message.retain, delivery)

    def _on_publish(self, _client: Client, _userdata: object, mid: int, reason: Any, _properties: object) -> None:
        error = PublishRefused(f"{self._identity.broker}: publish refused: {reason}") if reason.is_failure else None
        self._publications.answered(mid, error)

    def _on_unsubscribe(self, _client: Client, _userdata: object, mid: int, *_: object) -> None:
        self._subscriptions.released(mid)

    def _on_subscribe(
        self, _client: Client, _userdata: object, mid: int, reasons: list[Any], _properties: object
    ) -> None:
        refused = self._subscriptions.answered(mid, [reason.is_failure for reason in reasons])
        if refused:
            log.error("%s: subscription refused: %s", self._identity.broker, ", ".join(refused))
            if self._retry_subscribe is not None:
                self._retry_subscribe.cancel()
            self._retry_subscribe = self._loop.call_later(REFUSED_PAUSE_S, self.synchronise)

    def _read(self) -> None:
        client = self._client
        left = READ_BATCH
        try:
            while left > 0:
                found = client.publications(left, self._five)
                for each in found:
                    delivery = Delivery(self.session, each.mid, each.qos, each.is_repeat)
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
                self._loop.call_soon(self._read_on)
            else:
                self._acknowledge_segments()
        except Exception:  # the top of this callback: a fault of ours or of paho's ends the link, never the program
            log.exception("%s: reading failed", self._identity.broker)
            self.drop()

    def _acknowledge_segments(self) -> None:
        """Have the system acknowledge what was received at once, not up to 40 ms later: a broker with Nagle's algorithm holds
        the next message back until then, and a message that waits for its device sends no answer that could carry it.
        """
        if self._socket is not None and _QUICK_ACK is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)  # the system forgets it again (tcp(7))

    def _read_on(self) -> None:
        """What the selector does not see, unless the connection has ended meanwhile."""
        if self._socket is not None:
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


def _decrypted(sock: Any) -> int:
    """Bytes that a TLS socket holds already: the loop's selector does not see them."""
    return sock.pending() if isinstance(sock, ssl.SSLSocket) else 0

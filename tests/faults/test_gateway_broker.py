"""Rows B1-B7 and J1-J4 seen from the gateway: brokers that die, hang and refuse, payloads that poison, floods."""

import asyncio
import json
import threading
import time
from collections import deque
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.brokers import Broker, start_mosquitto, start_nats, start_proxy
from tests.support.fault_device import FaultDevice
from tests.support.plant import Plant, build_plant, tag
from tests.support.processes import free_port, wait_until
from tests.support.soak import rounds


def values(device: FaultDevice) -> list[int]:
    """What single-register writes wrote, in order."""
    return [int.from_bytes(seen.pdu[3:5], "big") for seen in device.seen if seen.pdu[0] == 6]


def security_plugin() -> Path:
    """Mosquitto's own plugin that can refuse subscriptions; its ACL file cannot."""
    return next(Path("/usr/lib").rglob("mosquitto_dynamic_security.so"))


class Publisher:
    """A publisher that loses nothing: QoS 1, one message after the other, and what may be lost is sent again.

    Mosquitto answers PUBACK before it saves: killed in between, it has forgotten what it acknowledged. So messages stay
    here for a second after their acknowledgement, and those that the end of a connection overtook go out first on the next.
    """

    KEPT_S = 1.0

    def __init__(self, port: int) -> None:
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="source", clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._done: set[int] = set()
        self._kept: deque[tuple[float, str, bytes]] = deque()
        self._lost_at = 0.0
        self._client.on_publish = lambda _client, _userdata, mid, *_: self._done.add(mid)
        self._client.on_connect = lambda *_: self._send_again()
        self._client.on_disconnect = lambda *_: self._disconnected()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def publish(self, topic: str, payload: bytes) -> None:
        # MQTTMessageInfo refuses to wait for a message that was queued while there was no connection.
        mid = self._client.publish(topic, payload, 1).mid
        wait_until(lambda: mid in self._done, 20, "the broker has acknowledged it")
        self._done.discard(mid)
        now = time.monotonic()
        self._kept.append((now, topic, payload))
        while self._kept[0][0] < min(now, self._lost_at or now) - self.KEPT_S:
            self._kept.popleft()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _disconnected(self) -> None:
        self._lost_at = time.monotonic()

    def _send_again(self) -> None:
        for acknowledged_at, topic, payload in list(self._kept):
            if acknowledged_at >= self._lost_at - self.KEPT_S:
                self._client.publish(topic, payload, 1)
        self._lost_at = 0.0


@pytest.mark.parametrize("broker", ["mosquitto", "quick_nats"], indirect=True)
async def test_b1_the_broker_killed_again_and_again(
    gateway_plant: Plant, device: FaultDevice, request: pytest.FixtureRequest
) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0, options={"every_value": True})])
    await gateway_plant.start()
    restarts = rounds(3, 20)
    last = 100 * restarts

    def publish() -> None:
        publisher = Publisher(gateway_plant.broker.port)
        for number in range(1, last + 1):
            publisher.publish("plant/boiler", b'{"t": %d}' % number)
            time.sleep(0.01)
        publisher.close()

    publishing = asyncio.create_task(asyncio.to_thread(publish))
    for _ in range(restarts):
        await asyncio.sleep(0.7)
        assert isinstance(gateway_plant.broker, Broker)
        await asyncio.to_thread(gateway_plant.broker.restart)
    await publishing
    await gateway_plant.wait(lambda: last in values(device), "the last value is written", 20)
    if request.node.callspec.params["broker"] == "quick_nats":
        await gateway_plant.wait(
            lambda: len(set(values(device))) == last, "nothing is lost, what is sent again comes later", 10
        )
        return
    written = values(device)
    assert set(written) == set(range(1, last + 1)), "nothing is lost"
    first_seen = list(dict.fromkeys(written))
    assert first_seen == sorted(first_seen), "in order, repeats aside"


async def test_b2_the_broker_comes_later(tmp_path: Path, device: FaultDevice) -> None:
    async with build_plant(tmp_path, Broker([], free_port(), tmp_path / "unused")) as plant:
        plant.device("boiler", device.port, [tag("t", 0)])
        started = time.monotonic()
        await plant.start(online=False)
        assert time.monotonic() - started < 5.0
        await asyncio.sleep(2.0)
        assert len(plant.output.splitlines()) <= 4, plant.output
        with start_mosquitto(tmp_path / "late", port=plant.broker.port):
            await plant.wait(
                lambda: "online (tagwire-mqtt_server)" in plant.output, "online soon after the broker is there", 8
            )
            await asyncio.sleep(0.2)
            await plant.publish([("plant/boiler", b'{"t": 3}')])
            await plant.wait(lambda: device.registers[0] == 3, "and serves")


async def test_b3_a_broker_that_never_answers_the_connect(gateway_plant: Plant, device: FaultDevice) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0)])
    with start_proxy(gateway_plant.broker.port) as proxy:
        proxy.blackhole()
        async with build_plant(gateway_plant.folder, proxy) as behind:
            await behind.start(online=False)
            await behind.wait(lambda: "no answer (CONNACK) within 5 s" in behind.output, "found after 5 s", 8)
            proxy.forward()
            await behind.wait(lambda: "online (tagwire-mqtt_server)" in behind.output, "and tried again", 8)


async def test_b3_a_link_that_goes_dead_is_found(gateway_plant: Plant, device: FaultDevice) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0)])
    keepalive_s = 4
    with start_proxy(gateway_plant.broker.port) as proxy:
        async with build_plant(gateway_plant.folder, proxy, MQTT_KEEPALIVE_S=str(keepalive_s)) as behind:
            await behind.start()
            proxy.blackhole()
            dead = time.monotonic()
            await behind.wait(lambda: ": offline" in behind.output, "the dead link is found", 10)
            # A second for a machine that is busy with something else.
            assert time.monotonic() - dead <= 1.5 * keepalive_s + 1.0
            await gateway_plant.publish([("plant/boiler", b'{"t": 9}')])
            proxy.forward()
            await behind.wait(lambda: device.registers[0] == 9, "what was published meanwhile is delivered", 15)


async def test_b4_a_wrong_password_is_told_and_not_tried_again_at_once(tmp_path: Path, device: FaultDevice) -> None:
    conf = "listener {port} 127.0.0.1\nallow_anonymous false\nlog_type all\n"
    with start_mosquitto(tmp_path / "strict", conf) as broker:
        async with build_plant(tmp_path, broker, MQTT_USERNAME="tagwire", MQTT_PASSWORD="hunter2") as plant:
            await plant.start(online=False)
            await plant.wait(lambda: ": refused: the broker says: Not authorized" in plant.output, "a state of its own")
            await asyncio.sleep(3.0)
            assert plant.output.count("refused") <= 2, "once for the devices' link, once for the bus"
            assert broker.log.read_text().count("New connection") <= 4, "two by the gateway, the others by the fixture"
            assert "hunter2" not in plant.output


async def test_b4_a_refused_subscription_is_reported_and_the_others_served(tmp_path: Path, device: FaultDevice) -> None:
    allow = {"acltype": "subscribePattern", "topic": "plant/good", "allow": True, "priority": 0}
    security = {
        "defaultACLAccess": {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True},
        "clients": [],
        "groups": [{"groupname": "anybody", "roles": [{"rolename": "reader"}]}],
        "roles": [{"rolename": "reader", "acls": [allow]}],
        "anonymousGroup": "anybody",
    }  # fmt: skip
    (tmp_path / "strict").mkdir()
    (tmp_path / "strict" / "security.json").write_text(json.dumps(security))
    conf = (
        "listener {port} 127.0.0.1\nallow_anonymous true\n"
        f"plugin {security_plugin()}\nplugin_opt_config_file {{folder}}/security.json\n"
    )
    with start_mosquitto(tmp_path / "strict", conf) as broker:
        async with build_plant(tmp_path, broker) as plant:
            plant.device("good", device.port, [tag("t", 0)])
            plant.device("secret", device.port, [tag("t", 1)])
            await plant.start()
            await plant.wait(lambda: "subscription refused: plant/secret" in plant.output, "the refusal is told")
            await plant.publish([("plant/good", b'{"t": 4}')])
            await plant.wait(lambda: device.registers[0] == 4, "the other device is served")


POISON = {
    "not UTF-8": b'{"t": "\xff\xfe"}',
    "UTF-16": '{"t": 1}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"t": 1}',
    "not JSON": b"t=1",
    "empty": b"",
    "white space": b"  \n",
    "1 MB": b'{"t": "' + b"x" * 1_000_000 + b'"}',
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
    "NaN": b'{"t": NaN}',
    "Infinity": b'{"t": -Infinity}',
    "1e400": b'{"t": 1e400}',
    "5,000 digits": b'{"t": ' + b"9" * 5000 + b"}",
    "lone surrogate": b'{"t": "\\ud800"}',
    "NUL": b'{"t": "\\u0000"}',
    "trailing bytes": b'{"t": 1} 2',
    "scalar": b"12",
    "array": b"[]",
    "null": b"null",
    "null value": b'{"t": null}',
    "text": b'{"t": "12"}',
    "true": b'{"t": true}',
    "too large": b'{"t": 70000}',
    "negative": b'{"t": -1}',
    "fraction": b'{"t": 1.5}',
    "2**64": b'{"t": 18446744073709551616}',
    "200k keys": b"{" + b",".join(b'"%d":1' % n for n in range(25_000)) + b"}",
    "64 KB key": b'{"' + b"k" * 65_536 + b'": 1}',
    "__proto__": b'{"__proto__": {"t": 1}}',
}


async def test_b5_poison_payloads_are_listed_and_the_next_good_one_is_handled_soon(
    gateway_plant: Plant, device: FaultDevice
) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0)])
    gateway = await gateway_plant.start()
    publisher = await asyncio.to_thread(Publisher, gateway_plant.broker.port)
    before = gateway.resident_bytes
    for number, (name, payload) in enumerate(POISON.items(), start=1):
        good = b'{"t": %d}' % number
        await asyncio.to_thread(publisher.publish, "plant/boiler", payload)
        sent = time.monotonic()
        await asyncio.to_thread(publisher.publish, "plant/boiler", good)
        await gateway_plant.wait(lambda number=number: device.registers[0] == number, f"good after {name}", 5)
        assert time.monotonic() - sent < 1.0, name
    publisher.close()
    await gateway_plant.wait(lambda: len(gateway_plant.rejects()) == len(POISON), "each is listed once")
    assert gateway.resident_bytes - before < 30_000_000
    assert values(device) == list(range(1, len(POISON) + 1)), "poison wrote nothing"
    assert "Traceback" not in gateway_plant.output


async def test_b6_a_flood_is_bounded_and_the_last_values_are_right(gateway_plant: Plant, device: FaultDevice) -> None:
    """QoS 0, so that nothing but the gateway holds the publisher back; the device is slow on purpose."""
    names = [f"d{number}" for number in range(10)]
    for number, name in enumerate(names):
        gateway_plant.device(name, device.port, [tag("t", number), tag("u", number + 100)])
    await device.set_mode("delay", 0.02)
    gateway = await gateway_plant.start()
    before = gateway.resident_bytes
    for turn in range(10):
        burst = [(f"plant/{name}", b'{"t": %d, "u": 70000}' % (turn * 300 + n)) for n in range(300) for name in names]
        await gateway_plant.publish(burst, qos=0)
    # Another connection: the broker may still be reading what the first one sent.
    await asyncio.sleep(2.0)
    await gateway_plant.publish([(f"plant/{name}", b'{"t": 9999, "u": 1}') for name in names])
    await gateway_plant.wait(lambda: device.registers[:10] == [9999] * 10, "the last values stand", 15)
    assert gateway.resident_bytes - before < 60_000_000
    assert len(gateway_plant.rejects()) <= 1000


async def test_b7_duplicates_and_overlapping_filters(gateway_plant: Plant, device: FaultDevice) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0)])
    gateway_plant.device("all", device.port, [tag("t", 1)], mqtt={"topic": "plant/+"})
    gateway_plant.device("deep", device.port, [tag("t", 2)], mqtt={"topic": "plant/#"})
    await gateway_plant.start()
    await gateway_plant.publish([("plant/boiler", b'{"t": %d}' % number) for number in (1, 2, 2, 3, 3, 3)])
    await gateway_plant.wait(lambda: device.registers[:3] == [3, 3, 3], "every device has the last value")
    await asyncio.sleep(0.2)
    assert device.registers[:3] == [3, 3, 3]
    assert gateway_plant.rejects() == []


@pytest.mark.parametrize("broker", ["mosquitto", "nats"], indirect=True)
async def test_b7_overlapping_filters_write_each_value_once_and_in_order(tmp_path: Path, broker: Broker) -> None:
    """Each copy of a message went to every device: older values over newer ones, on the embedded broker."""
    async with build_plant(tmp_path, broker) as plant, FaultDevice() as device:
        options = {"options": {"every_value": True}}
        for number, topic in enumerate(("plant/x", "plant/+", "plant/#")):
            plant.device(f"d{number}", device.port, [tag("t", 10 * number, **options)], mqtt={"topic": topic})
        await plant.start()
        await plant.publish([("plant/x", b'{"t": %d}' % value) for value in range(1, 201)])
        await plant.wait(lambda: device.registers[:21:10] == [200, 200, 200], "the last value", 20)
        await asyncio.sleep(0.5)
        for register in (0, 10, 20):
            writes = [seen.pdu for seen in device.seen if seen.pdu[:3] == bytes((6, 0, register))]
            assert [int.from_bytes(pdu[3:], "big") for pdu in writes] == list(range(1, 201))
        await plant.publish([("plant/late", b'{"t": 77}')], retain=True)
        await plant.wait(lambda: device.registers[10:21:10] == [77, 77], "both wide ones")
        plant.device("late", device.port, [tag("t", 5)], mqtt={"topic": "plant/late"})
        await plant.wait(lambda: device.registers[5] == 77, "what is retained, although a wider filter was there")


async def test_b7_a_second_client_with_our_id_starts_no_ping_pong(gateway_plant: Plant, device: FaultDevice) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0)])
    await gateway_plant.start()
    stop, connects = threading.Event(), []

    def rival() -> None:
        """It comes back at once, whenever it is thrown out."""
        while not stop.is_set():
            client = Client(CallbackAPIVersion.VERSION2, client_id="tagwire-mqtt_server", clean_session=False)
            client.connect("127.0.0.1", gateway_plant.broker.port)
            connects.append(time.monotonic())
            while not stop.is_set() and client.loop(0.1) == 0:
                pass
            client.disconnect()

    fighting = asyncio.create_task(asyncio.to_thread(rival))
    await asyncio.sleep(5.0)
    stop.set()
    await fighting
    # Ours comes back after about 1, 2, 4 s: each time the rival is thrown out once.
    assert 2 <= len(connects) <= 4
    await gateway_plant.publish([("plant/boiler", b'{"t": 5}')])
    await gateway_plant.wait(lambda: device.registers[0] == 5, "the gateway has its session again", 15)


async def test_topics_of_deleted_devices_are_unsubscribed_although_the_gateway_was_away(
    gateway_plant: Plant, device: FaultDevice
) -> None:
    made = gateway_plant.device("gone", device.port, [tag("t", 0)])
    gateway = await gateway_plant.start()
    await asyncio.to_thread(gateway.terminate)
    gateway_plant.store.delete_device(made["id"])
    await gateway_plant.start()
    await gateway_plant.publish([("plant/gone", b'{"t": 1}')])
    await gateway_plant.wait(gateway_plant.rejects, "the session still held the topic")
    await asyncio.sleep(0.3)
    await gateway_plant.publish([("plant/gone", b'{"t": 2}')])
    await asyncio.sleep(0.5)
    assert len(gateway_plant.rejects()) == 1


async def test_a_late_repeat_does_not_replace_a_newer_value(tmp_path: Path, device: FaultDevice) -> None:
    """The embedded broker sends unacknowledged messages again after a while, behind newer ones."""
    with start_nats(tmp_path / "nats", ack_wait_s=2) as broker:
        async with build_plant(tmp_path, broker) as plant:
            plant.device("boiler", device.port, [tag("t", 0)])
            await device.set_mode("delay", 0.2)
            gateway = await plant.start()
            await plant.publish([("plant/boiler", b'{"t": 1}')])
            await plant.wait(lambda: device.seen, "the value is on its way, and not acknowledged")
            await asyncio.to_thread(gateway.kill)
            await device.set_mode("good")
            await plant.start()
            await plant.publish([("plant/boiler", b'{"t": 2}')])
            await plant.wait(lambda: device.registers[0] == 2, "the newer value")
            await asyncio.sleep(4.0)
            assert device.registers[0] == 2


async def test_the_first_run_of_many_retained_messages(gateway_plant: Plant, device: FaultDevice) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0)], mqtt={"topic": "plant/#"})
    await gateway_plant.publish([(f"plant/r{number}", b'{"t": 5}') for number in range(2000)], retain=True)
    gateway = await gateway_plant.start()
    await gateway_plant.publish([("plant/boiler", b'{"t": 6}')])
    await gateway_plant.wait(lambda: device.registers[0] == 6, "the live value after them all")
    assert gateway.resident_bytes < 150_000_000

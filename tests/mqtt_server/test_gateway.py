"""The gateway's main path, with a real broker and a device on a socket: JSON in, registers out, options kept."""

import asyncio
import struct
import time
from pathlib import Path

import orjson
import pytest

from tests.support.brokers import Broker, start_mosquitto
from tests.support.certificates import Authority
from tests.support.fault_device import FaultDevice
from tests.support.field_plant import SLOW_MACHINE_S
from tests.support.plant import Plant, build_plant, tag
from tests.support.processes import free_port


def functions(device: FaultDevice) -> list[int]:
    return [seen.pdu[0] for seen in device.seen]


@pytest.mark.parametrize("broker", ["mosquitto", "nats"], indirect=True)
async def test_values_of_a_message_stand_in_the_registers(tmp_path: Path, broker: Broker, device: FaultDevice) -> None:
    async with build_plant(tmp_path, broker) as plant:
        plant.device(
            "boiler",
            device.port,
            [
                tag("temperature", 10, "float32"),
                tag("level", 12, "int32", address={"order": "CDAB"}),
                tag("running", 3, "bool", data_type="bool", address={"table": "coil"}),
                tag("count", 14),
            ],
        )
        await plant.start()
        payload = orjson.dumps({"temperature": 71.5, "level": -2, "running": True, "count": 70000})
        await plant.publish([("plant/boiler", payload)])
        await plant.wait(lambda: device.bits[3] and device.registers[12], "all values written")
        assert struct.pack(">2H", *device.registers[10:12]) == struct.pack(">f", 71.5)
        assert struct.pack(">2H", *device.registers[12:14]) == bytes.fromhex("fffeffff")
        assert device.registers[14] == 0
        assert functions(device) == [5, 16] or functions(device) == [16, 5]
        await plant.wait(plant.rejects, "the reject is listed")
        (reject,) = plant.rejects()
        assert (reject["code"], reject["device"], reject["tag"]) == ("out_of_range", "boiler", "count")
        assert "70000" in reject["reason"]
        assert reject["topic"] == "plant/boiler"


async def test_mqtt_5_by_setting(tmp_path: Path, mosquitto: Broker, device: FaultDevice) -> None:
    async with build_plant(tmp_path, mosquitto, MQTT_PROTOCOL="5") as plant:
        plant.device("boiler", device.port, [tag("t", 0)])
        await plant.start()
        await plant.publish([("plant/boiler", b'{"t": 5}')])
        await plant.wait(lambda: device.registers[0] == 5, "value written")


async def test_tls_with_a_client_certificate(tmp_path: Path, device: FaultDevice) -> None:
    port = free_port()
    authority = Authority(tmp_path)
    server, client = authority.issue("localhost"), authority.issue("gateway")
    conf = (
        "per_listener_settings true\nlistener {port} 127.0.0.1\nallow_anonymous true\n"
        f"listener {port} 127.0.0.1\nallow_anonymous true\nrequire_certificate true\n"
        f"cafile {authority.path}\ncertfile {server[0]}\nkeyfile {server[1]}\n"
    )
    tls: dict[str, str | int | Path] = {"MQTT_HOST": "localhost", "MQTT_PORT": port, "MQTT_TLS": "true"}
    tls |= {"MQTT_TLS_CA": authority.path, "MQTT_TLS_CERT": client[0], "MQTT_TLS_KEY": client[1]}
    with start_mosquitto(tmp_path / "broker", conf) as broker:
        async with build_plant(tmp_path, broker, **tls) as plant:
            plant.device("boiler", device.port, [tag("t", 0)])
            await plant.start()
            await plant.publish([("plant/boiler", b'{"t": %d}' % value) for value in range(1, 500)])
            await plant.wait(lambda: device.registers[0] == 499, "values arrive over TLS")


async def test_new_changed_and_deleted_devices_take_effect_without_a_restart(
    gateway_plant: Plant, device: FaultDevice
) -> None:
    async def taken(count: int) -> None:
        await gateway_plant.wait(
            lambda: gateway_plant.output.count("INFO configuration ") == count, f"{count}", 1.0 + SLOW_MACHINE_S
        )
        await asyncio.sleep(0.3)  # SUBSCRIBE is on its way

    await gateway_plant.start()
    made = gateway_plant.device("late", device.port, [tag("t", 0)])
    await taken(2)
    await gateway_plant.publish([("plant/late", b'{"t": 1}')])
    await gateway_plant.wait(lambda: device.registers[0] == 1, "the new device is heard within 1 s")

    binding = made["tags"][0]["bindings"][1]
    gateway_plant.store.patch_binding(binding["id"], {"address": {"register": 100}})
    await taken(3)
    await gateway_plant.publish([("plant/late", b'{"t": 2}')])
    await gateway_plant.wait(lambda: device.registers[100] == 2, "the new address is used within 1 s")
    assert device.registers[0] == 1

    gateway_plant.store.delete_device(made["id"])
    await taken(4)
    await gateway_plant.publish([("plant/late", b'{"t": 3}')])
    await asyncio.sleep(0.3)
    assert device.registers[100] == 2


async def test_messages_sent_while_the_gateway_was_away_are_delivered(
    gateway_plant: Plant, device: FaultDevice
) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0, options={"every_value": True})])
    gateway = await gateway_plant.start()
    assert gateway.terminate() == 0
    await gateway_plant.publish([("plant/boiler", b'{"t": %d}' % value) for value in range(1, 30)])
    await gateway_plant.start()
    await gateway_plant.wait(lambda: device.registers[0] == 29, "the last value is written")
    written = [int.from_bytes(seen.pdu[3:5], "big") for seen in device.seen]
    assert written == list(range(1, 30))


async def test_several_keys_become_the_bits_of_one_register(gateway_plant: Plant, device: FaultDevice) -> None:
    bits = [tag(f"b{n}", 7, "bool", data_type="bool", address={"bit": n}) for n in range(3)]
    gateway_plant.device("boiler", device.port, bits)
    device.registers[7] = 0xFF00
    await gateway_plant.start()
    await gateway_plant.publish([("plant/boiler", b'{"b0": true, "b1": false, "b2": true}')])
    await gateway_plant.wait(lambda: device.registers[7] == 0xFF05, "three bits, the others kept")
    assert functions(device) == [22]


async def test_a_device_without_function_22_gets_its_bits_by_read_and_write(
    gateway_plant: Plant, device: FaultDevice
) -> None:
    gateway_plant.device("boiler", device.port, [tag("b", 7, "bool", data_type="bool", address={"bit": 1})])
    device.registers[7] = 0x8000
    device.missing = {22}
    await gateway_plant.start()
    await gateway_plant.publish([("plant/boiler", b'{"b": true}')])
    await gateway_plant.wait(lambda: device.registers[7] == 0x8002, "the bit is set")
    assert functions(device) == [22, 3, 6]
    await gateway_plant.publish([("plant/boiler", b'{"b": false}')])
    await gateway_plant.wait(lambda: device.registers[7] == 0x8000, "the bit is cleared")
    assert functions(device) == [22, 3, 6, 3, 6]


async def test_write_on_change_only(gateway_plant: Plant, device: FaultDevice) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0, options={"on_change": True})])
    await gateway_plant.start()
    for value in (5, 5, 5, 6):
        await gateway_plant.publish([("plant/boiler", b'{"t": %d}' % value)])
        await asyncio.sleep(0.05)
    await gateway_plant.wait(lambda: device.registers[0] == 6, "the change is written")
    assert len(device.seen) == 2


async def test_minimum_interval_keeps_the_latest_value(gateway_plant: Plant, device: FaultDevice) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0, options={"min_interval_s": 0.6})])
    await gateway_plant.start()
    for value in (1, 2, 3):
        await gateway_plant.publish([("plant/boiler", b'{"t": %d}' % value)])
        await asyncio.sleep(0.05)
    await gateway_plant.wait(lambda: device.registers[0] == 3, "the latest value is written")
    assert len(device.seen) == 2
    assert device.seen[1].time_s - device.seen[0].time_s >= 0.6


async def test_cyclic_rewrite(gateway_plant: Plant, device: FaultDevice) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0, options={"rewrite_s": 0.2, "on_change": True})])
    await gateway_plant.start()
    await gateway_plant.publish([("plant/boiler", b'{"t": 9}')])
    await gateway_plant.wait(lambda: len(device.seen) >= 4, "the value is written again and again")
    device.registers[0] = 0
    await gateway_plant.wait(lambda: device.registers[0] == 9, "a device that forgot gets its value back")


async def test_fail_safe_value_when_the_source_is_silent(gateway_plant: Plant, device: FaultDevice) -> None:
    options = {"failsafe": {"value": 99, "after_s": 0.8}, "on_change": True}
    gateway_plant.device("boiler", device.port, [tag("t", 0, options=options)])
    await gateway_plant.start()
    await gateway_plant.publish([("plant/boiler", b'{"t": 5}')])
    await gateway_plant.wait(lambda: device.registers[0] == 5, "the value is written")
    await gateway_plant.wait(lambda: device.registers[0] == 99, "the fail-safe value is written")
    await gateway_plant.publish([("plant/boiler", b'{"t": 5}')])
    await gateway_plant.wait(lambda: device.registers[0] == 5, "the source is back")
    await gateway_plant.wait(lambda: device.registers[0] == 99, "and silent again")


async def test_m2_a_flag_beside_the_value_tells_that_the_source_is_silent(
    gateway_plant: Plant, device: FaultDevice
) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0, options={"failsafe": {"after_s": 0.8, "flag": 50}})])
    device.registers[0] = 7
    await gateway_plant.start()
    await gateway_plant.wait(
        lambda: device.registers[50] == 1, "an old value is marked when nothing comes after the start"
    )
    assert device.registers[0] == 7
    await gateway_plant.publish([("plant/boiler", b'{"t": 5}')])
    await gateway_plant.wait(lambda: device.registers[50] == 0 and device.registers[0] == 5, "the source speaks")
    await gateway_plant.wait(lambda: device.registers[50] == 1, "the source is silent")
    assert device.registers[0] == 5


async def test_read_back_finds_a_device_that_keeps_another_value(gateway_plant: Plant, device: FaultDevice) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0, options={"verify": True})])
    device.forgetful = True
    await gateway_plant.start()
    await gateway_plant.publish([("plant/boiler", b'{"t": 5}')])
    await gateway_plant.wait(gateway_plant.rejects, "the difference is reported")
    (reject,) = gateway_plant.rejects()
    assert (reject["code"], reject["topic"], reject["payload"]) == ("verify_failed", "plant/boiler", '{"t": 5}')
    device.forgetful = False
    await gateway_plant.publish([("plant/boiler", b'{"t": 6}')])
    await gateway_plant.wait(lambda: device.registers[0] == 6, "the next value is written")


async def test_a_refused_value_is_reported_and_its_neighbours_are_written(
    gateway_plant: Plant, device: FaultDevice
) -> None:
    gateway_plant.device("boiler", device.port, [tag("a", 10), tag("b", 11), tag("c", 12)])
    device.illegal = {11}
    await gateway_plant.start()
    await gateway_plant.publish([("plant/boiler", b'{"a": 1, "b": 2, "c": 3}')])
    await gateway_plant.wait(
        lambda: device.registers[10] == 1 and device.registers[12] == 3, "the neighbours are written"
    )
    await gateway_plant.wait(gateway_plant.rejects, "the refusal is reported")
    assert [(r["code"], r["tag"]) for r in gateway_plant.rejects()] == [("device_refused", "b")]
    asked = len(device.seen)
    await gateway_plant.publish([("plant/boiler", b'{"a": 4, "b": 5, "c": 6}')])
    await gateway_plant.wait(lambda: device.registers[12] == 6, "later values too")
    assert len(device.seen) <= asked + 2, "the refused register is not asked again at once"


async def test_a_reject_tells_when_what_why_and_of_which_tag(gateway_plant: Plant, device: FaultDevice) -> None:
    """What a device refused had no topic, and the value for a payload."""
    made = gateway_plant.device("boiler", device.port, [tag("a", 10), tag("b", 11)])
    device.illegal = {11}
    before = time.time_ns() // 1_000_000
    await gateway_plant.start()
    long = b'{"b": 5, "text": "%s"}' % (b"x" * 5_000)
    await gateway_plant.publish([("plant/boiler", b"a=1"), ("plant/boiler", long), ("plant/boiler", b'{"b": 6}')])
    await gateway_plant.wait(lambda: len(gateway_plant.rejects()) >= 4, "all are listed")
    message, missing, *refused = sorted(gateway_plant.rejects(), key=lambda each: each["id"])
    assert before <= message.pop("time_ms") <= time.time_ns() // 1_000_000
    del message["id"]
    assert message == {
        "topic": "plant/boiler", "payload": "a=1", "code": "not_json", "reason": message["reason"],
        "device": "boiler", "tag": None,
    }  # fmt: skip
    assert "column 1" in message["reason"] or "character" in message["reason"]
    assert (missing["code"], missing["tag"]) == ("missing", "a")
    refused = [each for each in refused if each["code"] == "device_refused"]
    assert {each["payload"] for each in refused} <= {long[:199].decode() + "…", '{"b": 6}'}
    last = refused[-1]
    assert before <= last.pop("time_ms") <= time.time_ns() // 1_000_000
    del last["id"]
    assert last == {
        "topic": "plant/boiler", "payload": '{"b": 6}', "code": "device_refused", "reason": last["reason"],
        "device": "boiler", "tag": "b",
    }  # fmt: skip
    assert "exception 2" in last["reason"]
    assert "holding_register 11" in last["reason"]

    # What waits is listed with the message it came in, although that was acknowledged long ago.
    await device.set_mode("refuse")
    await gateway_plant.publish([("plant/boiler", b'{"a": 1, "b": 7}')])
    await gateway_plant.wait(lambda: gateway_plant.outbox(), "on disk")
    binding = made["tags"][0]["bindings"][1]
    gateway_plant.store.patch_binding(binding["id"], {"limits": {"low": 50}})
    await gateway_plant.wait(
        lambda: gateway_plant.rejects()[0]["code"] == "out_of_range", "it does not fit the new place"
    )
    assert (gateway_plant.rejects()[0]["topic"], gateway_plant.rejects()[0]["payload"]) == (
        "plant/boiler",
        '{"a": 1, "b": 7}',
    )


async def test_a_retained_message_never_replaces_a_newer_value(gateway_plant: Plant, device: FaultDevice) -> None:
    gateway_plant.device("boiler", device.port, [tag("t", 0)])
    await gateway_plant.publish([("plant/boiler", b'{"t": 1}')], retain=True)
    await gateway_plant.start()
    await gateway_plant.wait(lambda: device.registers[0] == 1, "the retained value serves a newcomer")
    await gateway_plant.publish([("plant/boiler", b'{"t": 2}')])
    await gateway_plant.wait(lambda: device.registers[0] == 2, "the live value is written")
    gateway_plant.broker.restart()  # type: ignore[union-attr]
    await gateway_plant.wait(lambda: gateway_plant.output.count("online (tagwire-mqtt_server)") >= 2, "online again")
    await asyncio.sleep(0.5)
    assert device.registers[0] == 2


async def test_shards_share_the_devices(tmp_path: Path, mosquitto: Broker, device: FaultDevice) -> None:
    async with (
        build_plant(tmp_path, mosquitto, TAGWIRE_SHARD="1/2") as first,
        build_plant(tmp_path, mosquitto, TAGWIRE_SHARD="2/2") as second,
    ):
        for number in range(6):
            first.device(f"d{number}", device.port, [tag("t", number)])
        await first.start()
        await second.start()
        await first.publish([(f"plant/d{number}", b'{"t": 7}') for number in range(6)])
        await first.wait(lambda: device.registers[:6] == [7] * 6, "every device is served")
        assert sum(seen.pdu[0] == 6 or seen.pdu[0] == 16 for seen in device.seen) <= 6
        assert "3 devices" in first.output
        assert "3 devices" in second.output

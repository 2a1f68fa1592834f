"""`tagwire doctor` on devices, their tags and their values, with faults planted one at a time."""

import json
import socket
import time
from contextlib import ExitStack

import pytest

from storage.outbox import Outbox
from tests.support.doctor_plant import Plant, fault_device, forgotten, modbus, only
from tests.support.processes import free_port, wait_until

pytestmark = pytest.mark.system


def test_devices_that_cannot_be_reached_each_for_its_own_reason(plant: Plant) -> None:
    closed = free_port()
    with ExitStack() as stack:
        # A full backlog: the kernel drops every further connection request, as a firewall does.
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        ports = {
            name: stack.enter_context(fault_device(mode, argument))
            for name, mode, argument in (
                ("silent", "never", 0), ("other", "wrong_unit", 0), ("babbler", "garbage", 0), ("gateway", "exc", 11),
            )
        }  # fmt: skip
        line = modbus(1)
        line["network"] = {"modbus": {"transport": "serial", "serial_port": "/dev/no-such-line", "timeout_s": 0.3}}
        planted = {
            "dead": (modbus(closed), f"tcp 127.0.0.1:{closed}: nobody listens there (connection refused)"),
            "walled": (modbus(full.getsockname()[1]), "no answer within 0.5 s (TCP connect"),
            "lost": (modbus(502, host="no-such-plc.invalid"), "'no-such-plc.invalid' is not known (DNS"),
            "silent": (modbus(ports["silent"]), "unit 1 is connected, but does not answer"),
            "other": (modbus(ports["other"]), "answers for another unit"),
            "babbler": (modbus(ports["babbler"]), "does not speak Modbus properly"),
            "gateway": (modbus(ports["gateway"]), "exception 11: it is a gateway whose unit does not answer"),
            "rs485": (line, "/dev/no-such-line: No such file"),
        }
        made = [plant.store.create_device({"name": name, **document}) for name, (document, _) in planted.items()]
        try:
            found = plant.doctor()
        finally:
            for each in made:
                plant.store.delete_device(each["id"])
            wait_until(lambda: plant.run("console", "links").stdout.count("\n") == 3, 20, "their links are withdrawn")
    assert sorted(each["where"] for each in found) == sorted(planted)
    for each in found:
        only([each], "devices", each["where"], planted[each["where"]][1])
        assert each["advice"]


def test_a_tag_that_its_device_does_not_have(plant: Plant) -> None:
    with fault_device("exc", 2) as port, plant.device("strict", modbus(port, register=77)):
        wait_until(lambda: "config_error" in plant.run("console", "list", "strict").stdout, 10)
        only(plant.doctor(), "tags", "strict@x", "config_error")


def test_a_device_that_never_published(plant: Plant) -> None:
    source = {"protocol": "mqtt", "direction": "in", "address": {"path": "v"}}
    tags = [{"name": "v", "bindings": [source]}]
    with plant.device("mute", {"network": {"mqtt": {"topic": "plant/mute"}}, "tags": tags}):
        only(plant.doctor(), "devices", "mute", "nothing was ever heard of it on topic plant/mute", "warning")


def test_two_tags_on_the_same_registers(plant: Plant) -> None:
    document = modbus(plant.settings["MODBUS_SERVER_PORT"], register=50, direction="inout")
    other = {"protocol": "modbus", "direction": "inout", "address": {"register": 49, "unit_id": 1, "type": "float32"}}
    document["tags"].append({"name": "y", "bindings": [other]})
    with plant.device("twins", document):
        wait_until(lambda: "twins\tfield_server\tonline" in plant.run("console", "links").stdout, 10)
        only(plant.doctor(), "config", "holding_register 50", "is written by twins@y and by twins@x")


def test_rows_that_nobody_understands(plant: Plant) -> None:
    with plant.device("broken", modbus(plant.settings["MODBUS_SERVER_PORT"])):
        wait_until(lambda: "broken\tfield_server\tonline" in plant.run("console", "links").stdout, 10)
        query = "UPDATE binding SET address = '{\"register\": -5}' WHERE tag_id = (SELECT max(id) FROM tag)"
        with plant.store.engine.begin() as connection:
            connection.exec_driver_sql(query)
        only(plant.doctor(), "config", "broken tags.x.bindings.modbus.address.register", "not -5")


def test_samples_from_the_future_and_bad_ones(plant: Plant) -> None:
    now_ms = time.time_ns() // 1_000_000
    late = json.dumps({"x": [1, "good", now_ms + 3_600_000]})
    plant.run("publish", "--retain", "tagwire/state/mqtt_server/fast", late)
    try:
        found = [each for each in plant.doctor() if each["check"] == "clock"]
        only(found, "clock", "fast@x", "ahead of this computer's clock")
    finally:
        plant.run("publish", "--retain", "tagwire/state/mqtt_server/fast", "")
    old = json.dumps({"x": [1, "bad", now_ms - 7_200_000, {"reason": "stale"}]})
    plant.run("publish", "--retain", "tagwire/state/mqtt_server/slow", old)
    try:
        found = [each for each in plant.doctor() if each["check"] == "tags"]
        only(found, "tags", "slow@x", "is bad (stale) since 2 h")
    finally:
        plant.run("publish", "--retain", "tagwire/state/mqtt_server/slow", "")


def test_values_that_were_rejected(plant: Plant) -> None:
    with forgotten(plant, "reject", "plant/sensor", '{"t": 8}'):
        plant.run("publish", "plant/sensor", '{"t": "hot"}')
        wait_until(lambda: len(plant.doctor()) == 2, 30, "the tag is bad, and the value was rejected")
        bad, rejected = plant.doctor()
        only([bad], "tags", "sensor@t", "is bad (config_error)")
        message = "1 values were rejected in the last 10 minutes (1 wrong_type)"
        only([rejected], "rejects", "plant/sensor", message, "warning")
    wait_until(lambda: plant.doctor() == [], 30, "all is well again")


def test_values_that_wait_for_their_device(plant: Plant) -> None:
    source = {"protocol": "mqtt", "direction": "in", "address": {"path": "t"}}
    document = modbus(port := free_port(), direction="out")
    del document["tags"][0]["bindings"][0]["period_ms"]
    document["network"]["mqtt"] = {"topic": "plant/far"}
    document["tags"][0]["bindings"].append(source)
    with plant.device("far", document):
        time.sleep(2)
        plant.run("publish", "plant/far", '{"t": 1}')
        wait_until(lambda: "far\tmqtt_server\tonline" in plant.run("console", "links").stdout, 10)
        outbox = Outbox(plant.store.engine)
        wait_until(outbox.count, 15, "the value is in the outbox")
        found = plant.doctor()
        only(
            [each for each in found if each["level"] == "fault"], "devices", "far", f"127.0.0.1:{port}: nobody listens"
        )
        waiting = [each for each in found if each["level"] == "warning"]
        only(waiting, "outbox", "", "1 values wait for their devices: 1 for far", "warning")

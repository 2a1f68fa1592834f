"""Messages to devices: the latest values, together, one message unanswered; what a lost connection does to them."""

import asyncio
import json
from typing import Any

from mqtt_server.publisher import Publisher
from scada.config import BindingConfig, DeviceConfig, Direction, LimitsConfig, ScalingConfig, TagConfig
from scada.errors import LinkError
from scada.mapping import DevicePlan, compile_device
from scada.protocols.modbus import ModbusAddress, ModbusNetwork, ModbusOptions
from scada.protocols.mqtt import MqttAddress, MqttNetwork, MqttOptions
from scada.values import DataType


class Link:
    def __init__(self) -> None:
        self.online = asyncio.Event()
        self.online.set()
        self.posted: list[tuple[str, Any, bool]] = []
        self.unanswered: list[Any] = []

    def post(self, topic: str, payload: bytes, on_done: Any, *, retain: bool = False) -> None:
        if not self.online.is_set():
            raise LinkError("not connected")
        self.posted.append((topic, json.loads(payload), retain))
        self.unanswered.append(on_done)

    def answer(self) -> None:
        self.unanswered.pop(0)(None)


def device(**mqtt: Any) -> DevicePlan:
    def tag(number: int, name: str, path: str, **more: Any) -> TagConfig:
        source = BindingConfig(number, "modbus", Direction.IN, ModbusAddress(number), ModbusOptions(), None, None)
        options = MqttOptions(enum=more.get("enum"))
        sink = BindingConfig(
            number + 100,
            "mqtt",
            Direction.OUT,
            MqttAddress(path=path),
            options,
            more.get("scaling"),
            more.get("limits"),
        )
        return TagConfig(number, name, DataType.FLOAT, None, None, 0.0, (source, sink))

    tags = (
        tag(1, "level", "tank.level"),
        tag(2, "flow", "tank.flow", scaling=ScalingConfig(gain=0.5), limits=LimitsConfig(0, 10)),
        tag(3, "door", "door", enum={"open": 1, "closed": 0}),
        tag(4, "clash", "tank"),
    )
    networks = {"modbus": ModbusNetwork(host="h"), "mqtt": MqttNetwork(**mqtt)}
    plan = compile_device(DeviceConfig(7, "plc", 1, networks, tags))
    assert plan is not None
    assert [fault.field for fault in plan.faults] == ["plc@clash"]
    return plan


class Rig:
    def __init__(self, **mqtt: Any) -> None:
        self.link = Link()
        self.rejects: list[tuple[str, str | None]] = []
        self.publisher = Publisher(self.link, lambda code, _why, _device, tag, _value: self.rejects.append((code, tag)))  # type: ignore[arg-type]
        self.publisher.put(device(**mqtt))

    def sent(self) -> list[Any]:
        documents = [document for _, document, _ in self.link.posted]
        self.link.posted.clear()
        return documents


async def test_values_that_change_together_are_one_message() -> None:
    rig = Rig(out_topic="site/plc", out_retain=True)
    rig.publisher.send(7, {"level": 5.5, "flow": 3, "door": 1})
    assert rig.link.posted == [("site/plc", {"tank": {"level": 5.5, "flow": 6.0}, "door": "open"}, True)]
    rig.publisher.send(7, {"flow": 11})
    assert rig.rejects == [("out_of_range", "flow")]


async def test_the_latest_values_follow_when_the_broker_has_answered() -> None:
    rig = Rig()
    for level in (1, 2, 3):
        rig.publisher.send(7, {"level": level})
    rig.publisher.send(7, {"door": 0})
    assert rig.sent() == [{"tank": {"level": 1}}]
    rig.link.answer()
    assert rig.sent() == [{"tank": {"level": 3}, "door": "closed"}]
    rig.link.answer()
    assert rig.sent() == []
    await asyncio.wait_for(rig.publisher.drained(), 1)


async def test_what_a_lost_connection_did_not_take_for_good_is_sent_again() -> None:
    rig = Rig()
    rig.publisher.send(7, {"level": 1})
    rig.link.answer()
    rig.publisher.send(7, {"door": 1})
    rig.sent()
    rig.link.online.clear()
    lost = rig.link.unanswered.pop()
    lost(LinkError("gone"))
    rig.publisher.connection(False)
    rig.publisher.send(7, {"flow": 1})
    assert rig.sent() == []
    rig.link.online.set()
    rig.publisher.connection(True)
    assert rig.sent() == [{"tank": {"level": 1, "flow": 2.0}, "door": "open"}]
    lost(None)
    assert rig.sent() == [], "an answer of the old connection means nothing"


async def test_a_device_that_is_gone_gets_nothing() -> None:
    rig = Rig()
    rig.publisher.remove(7)
    rig.publisher.send(7, {"level": 1})
    assert rig.sent() == []

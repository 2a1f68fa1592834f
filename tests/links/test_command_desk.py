"""Who answers for what: three desks hear everything, and one of them speaks. The bus is a stand-in here."""

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from links.command_desk import CommandDesk, Report
from scada.commands import Call, Command, CommandState, Step
from scada.config import BindingConfig, DeviceConfig, Direction, TagConfig
from scada.protocols.mailbox import MailboxAddress, MailboxOptions
from scada.protocols.modbus import ModbusAddress, ModbusOptions
from scada.protocols.mqtt import MqttAddress, MqttOptions
from scada.topics import BusTopics
from scada.values import DataType, Sample, Value

INOUT = Direction.INOUT
MODBUS = BindingConfig(1, "modbus", INOUT, ModbusAddress(register=1), ModbusOptions(), None, None)
MAILBOX = BindingConfig(1, "modbus_server", INOUT, MailboxAddress(register=1), MailboxOptions(), None, None)
MQTT = BindingConfig(1, "mqtt", Direction.IN, MqttAddress(path="a"), MqttOptions(), None, None)
OWNERS = {"field_server": MODBUS, "modbus_server": MAILBOX, "mqtt_server": MQTT}


def device(name: str, **bindings: BindingConfig | None) -> DeviceConfig:
    tags = [
        TagConfig(number, tag, DataType.FLOAT, None, None, 0.0, () if binding is None else (binding,))
        for number, (tag, binding) in enumerate(bindings.items())
    ]
    return DeviceConfig(1, name, 1, {}, tuple(tags))


DEVICES = {
    each.name: each
    for each in (
        device("plc", a=MODBUS, b=MODBUS),
        device("panel", a=MAILBOX, b=MAILBOX),
        device("sensor", a=MQTT, b=MQTT),
        device("mixed", none=None, a=MQTT, b=MODBUS),
        device("bare", a=None),
    )
}


class Ear:
    """What a desk needs of a bus."""

    online = True

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[str, bytes, bool, bool], None]] = {}

    def watch(self, watcher: Callable[[bool], None]) -> None:
        watcher(True)

    def subscribe(self, filters: Iterable[str], handler: Callable[[str, bytes, bool, bool], None]) -> None:
        self.handlers |= {each.split("/")[1]: handler for each in filters}


class Program:
    """A performer that knows the devices it has a part in, as the real ones do."""

    def __init__(self, owner: str, desk: Callable[["Program"], CommandDesk]) -> None:
        self.owner = owner
        self.done: list[Command] = []
        self.steps: list[Step] = []
        desk(self)

    def device(self, name: str) -> DeviceConfig | None:
        config = DEVICES.get(name)
        is_known = config is not None and any(
            self.owner == "field_server" or binding is OWNERS[self.owner]
            for tag in config.tags
            for binding in tag.bindings or (None,)
        )
        return config if is_known else None

    def is_mine(self, owner: str) -> bool:
        return owner == self.owner or (self.owner == "field_server" and not owner)

    def last_value(self, device: str, tag: str) -> Value | None:
        return None

    async def carry_out(self, command: Command, report: Report, seconds: float) -> None:
        self.done.append(command)

    async def read(self, call: Call) -> tuple[Sample, ...]:
        return ()


class Site:
    """All three programs."""

    def __init__(self) -> None:
        self.ears = [Ear() for _ in OWNERS]
        self.programs = []
        for owner, ear in zip(OWNERS, self.ears, strict=True):

            def desk(program: Program, ear: Ear = ear) -> CommandDesk:
                is_field = program.owner == "field_server"
                bus: Any = ear
                return CommandDesk(bus, BusTopics(), program, program.steps.extend, answers_unknown=is_field)

            self.programs.append(Program(owner, desk))

    def send(self, topic: str, payload: bytes | dict[str, Any], retained: bool = False) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        for ear in self.ears:
            ear.handlers[topic.split("/")[0]](f"tagwire/{topic}", data, retained, False)

    @property
    def steps(self) -> list[tuple[str, Step]]:
        """What was told, and by whom."""
        return [(program.owner, step) for program in self.programs for step in program.steps]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr("links.command_desk.BACKLOG_S", 0.0)
    return Site()


REFUSED: dict[str, bytes | dict[str, Any]] = {
    "a tag twice": b'{"id": "x", "tag": "a", "value": 5, "tag": "b"}',
    "null": {"id": "x", "tag": "a", "value": None},
    "an object": {"id": "x", "tag": "a", "value": {}},
    "an empty group": {"id": "x", "values": {}},
    "text for a time": {"id": "x", "tag": "a", "value": 1, "expires_ms": "soon"},
    "two hours ahead": {"id": "x", "tag": "a", "value": 1, "expires_ms": 99999999999999},
    "no such tag": {"id": "x", "tag": "nobody", "value": 1},
}


@pytest.mark.parametrize("name", [*DEVICES, "unknown"])
@pytest.mark.parametrize("message", REFUSED.values(), ids=REFUSED)
async def test_a_refusal_is_told_once_and_logged_once(
    site: Site, message: bytes | dict[str, Any], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.send(f"set/{name}", message)
    ((owner, step),) = site.steps
    assert (step.id, step.device, step.state, step.final) == ("x", name, CommandState.FAILED, True)
    assert step.reason
    answering = {"panel": "modbus_server", "sensor": "mqtt_server", "mixed": "mqtt_server"}
    assert owner == answering.get(name, "field_server")
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) <= 1
    assert not any(program.done for program in site.programs)


NOBODY: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "an array": b"[]",
    "a number as id": b'{"id": 7, "tag": "a", "value": 1}',
    "a long id": b'{"id": "' + b"x" * 65 + b'", "tag": "a", "value": 1}',
    "two ids": b'{"id": "x", "id": "y", "tag": "a", "value": 1}',
}


@pytest.mark.parametrize("kind", ["set", "call"])
@pytest.mark.parametrize("message", NOBODY.values(), ids=NOBODY)
async def test_what_cannot_be_answered_is_logged_by_one(
    site: Site, message: bytes, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [*DEVICES, "unknown"]:
        caplog.clear()
        site.send(f"{kind}/{name}", message)
        assert site.steps == []
        assert len([each for each in caplog.records if name in each.getMessage()]) == 1
        caplog.clear()
        site.send(f"{kind}/{name}", b'{"id": "y", "tag": "a", "value": 1}', retained=True)
        assert site.steps == []
        assert len([each for each in caplog.records if "retained" in each.getMessage()]) == 1


async def test_without_an_id_a_refusal_is_told_under_a_new_one(site: Site) -> None:
    site.send("set/plc", {"tag": "a", "value": None})
    ((owner, step),) = site.steps
    assert (owner, step.state, len(step.id)) == ("field_server", CommandState.FAILED, 32)
    assert step.reason == "value: must be a number, text, true or false, not null"


@pytest.mark.parametrize("name", [*DEVICES, "unknown"])
async def test_a_call_that_is_refused_is_answered_once(site: Site, name: str) -> None:
    site.send(f"call/{name}", {"id": "x", "tags": 5})
    ((_, step),) = site.steps
    assert (step.id, step.state, step.is_of_call) == ("x", CommandState.FAILED, True)
    assert step.reason == "tags: must be an array of tag names, not integer 5"

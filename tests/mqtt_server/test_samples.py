"""Which samples messages become: changes only, with the right quality; and what silence does."""

import asyncio
from typing import Any

import pytest

from mqtt_server import samples as module
from mqtt_server.samples import Samples
from scada.config import BindingConfig, DeviceConfig, Direction, TagConfig
from scada.mapping import DevicePlan, compile_device
from scada.protocols.mqtt import MqttAddress, MqttNetwork, MqttOptions
from scada.values import DataType, Quality, Reason, Sample
from tests.support.field import Told


def tag(number: int, name: str, **more: Any) -> TagConfig:
    binding = BindingConfig(number, "mqtt", Direction.IN, MqttAddress(path=name), MqttOptions(), None, None)
    return TagConfig(
        number,
        name,
        more.get("data_type", DataType.FLOAT),
        None,
        more.get("limits"),
        more.get("deadband", 0.0),
        (binding,),
    )


def device(*tags: TagConfig, name: str = "boiler", **network: Any) -> DevicePlan:
    plan = compile_device(DeviceConfig(7, name, 1, {"mqtt": MqttNetwork(**network)}, tags))
    assert plan is not None
    return plan


class Rig:
    def __init__(self, plan: DevicePlan) -> None:
        self.told = Told()
        self.samples = Samples(self.told)
        self.samples.put(plan)
        self.plan = plan

    def message(self, payload: bytes, time_ms: int = 1000, session: int = 1, repeat: bool = False) -> None:
        self.samples.take(7, self.plan.map(payload, time_ms).reports, session, repeat)

    def retained(self, payload: bytes) -> None:
        self.samples.take(7, self.plan.map(payload, 1000).reports, 1, False, True)

    def news(self) -> list[tuple[str, Any, str, str]]:
        self.samples.close()
        found = [(each.tag, each.value, str(each.quality), str(each.reason)) for _, _, each in self.told.samples]
        self.told.samples.clear()
        return found


async def test_only_changes_are_told_and_deadbands_are_kept() -> None:
    rig = Rig(device(tag(1, "a"), tag(2, "b", deadband=1.0)))
    rig.message(b'{"a": 1, "b": 10}')
    assert rig.news() == [("a", 1, "good", ""), ("b", 10, "good", "")]
    rig.message(b'{"a": 1, "b": 10.9}')
    assert rig.news() == []
    rig.message(b'{"a": 2, "b": 11}')
    rig.message(b'{"a": 3, "b": 11.1}')
    assert rig.news() == [("a", 2, "good", ""), ("a", 3, "good", ""), ("b", 11.1, "good", "")]


async def test_a_rejected_value_makes_its_tag_bad_and_keeps_what_was_there() -> None:
    from scada.config import LimitsConfig

    rig = Rig(device(tag(1, "a", limits=LimitsConfig(0, 100)), tag(2, "b")))
    rig.message(b'{"a": "hot", "b": 1}')
    assert rig.news() == [("a", None, "bad", "config_error"), ("b", 1, "good", "")]
    rig.message(b'{"a": 50, "b": 1}')
    rig.message(b'{"a": 101, "b": 1}')
    rig.message(b'{"a": 102, "b": null}')
    assert rig.news() == [("a", 50, "good", ""), ("a", 50, "bad", "out_of_range"), ("b", 1, "bad", "config_error")]
    rig.message(b'{"a": 50, "b": 1}')
    assert rig.news() == [("a", 50, "good", ""), ("b", 1, "good", "")]


async def test_a_clamped_value_is_uncertain() -> None:
    from scada.config import LimitsConfig
    from scada.scaling import OutOfLimits

    rig = Rig(device(tag(1, "a", limits=LimitsConfig(0, 100, OutOfLimits.CLAMP))))
    rig.message(b'{"a": 150}')
    rig.message(b'{"a": 170}')
    rig.message(b'{"a": 100}')
    assert rig.news() == [("a", 100.0, "uncertain", "out_of_range"), ("a", 100, "good", "")]


async def test_what_a_message_leaves_out_is_as_it_was() -> None:
    rig = Rig(device(tag(1, "a"), tag(2, "b")))
    rig.message(b'{"a": 1, "b": 2}')
    rig.message(b'{"b": 3}')
    assert rig.news() == [("a", 1, "good", ""), ("b", 2, "good", ""), ("b", 3, "good", "")]


async def test_the_source_s_own_time_is_the_sample_s() -> None:
    plan = device(tag(1, "a"), samples="s", time="t")
    rig = Rig(plan)
    rig.message(b'{"s": [{"t": 1767323045000, "a": 1}, {"t": "never", "a": 5}, {"t": 1767323046000, "a": 2}]}')
    rig.samples.close()
    assert [(each.value, each.time_ms) for _, _, each in rig.told.samples] == [(1, 1767323045000), (2, 1767323046000)]


async def test_a_repeat_behind_newer_messages_says_nothing() -> None:
    rig = Rig(device(tag(1, "a")))
    rig.message(b'{"a": 1}', session=4, repeat=True)
    rig.message(b'{"a": 2}', session=4)
    rig.message(b'{"a": 1}', session=4, repeat=True)
    assert [value for _, value, _, _ in rig.news()] == [1, 2]


async def test_a_silent_source_is_stale_tag_by_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    rig = Rig(device(tag(1, "a"), tag(2, "b"), silent_after_s=0.5))
    watch = asyncio.create_task(rig.samples.watch())
    try:
        rig.message(b'{"a": 1, "b": 2}')
        for _ in range(8):
            await asyncio.sleep(0.1)
            rig.message(b'{"a": 1}')
        assert rig.news() == [("a", 1, "good", ""), ("b", 2, "good", ""), ("b", 2, "bad", "stale")]
        assert rig.told.links == [("boiler", True, None)]
        await asyncio.sleep(0.8)
        assert rig.news() == [("a", 1, "bad", "stale")]
        assert rig.told.links[-1] == ("boiler", False, "silent for 0.5 s")
        rig.message(b'{"a": 1, "b": 2}')
        assert rig.news() == [("a", 1, "good", ""), ("b", 2, "good", "")]
        assert rig.told.links[-1] == ("boiler", True, None)
    finally:
        watch.cancel()


async def test_what_is_sent_again_comes_behind_a_retained_message_and_counts() -> None:
    """The embedded broker sends it later than what it has retained, which is older."""
    rig = Rig(device(tag(1, "a")))
    rig.retained(b'{"a": 1}')
    rig.message(b'{"a": 2}', repeat=True)
    assert rig.news() == [("a", 1, "good", ""), ("a", 2, "good", "")]


@pytest.mark.parametrize("first", [b'{"a": 1}', b'{"a": 1, "b": 2}'])
async def test_a_retained_message_does_not_end_silence(first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    rig = Rig(device(tag(1, "a"), tag(2, "b"), silent_after_s=0.5))
    watch = asyncio.create_task(rig.samples.watch())
    try:
        rig.retained(first)
        assert ("a", 1, "good", "") in rig.news()
        for _ in range(8):
            await asyncio.sleep(0.1)
            rig.retained(first)
        assert ("a", 1, "bad", "stale") in rig.news()
        rig.retained(b'{"a": 3, "b": 3}')
        assert rig.news() == []
        assert rig.told.links[-1] == ("boiler", False, "silent for 0.5 s")
        rig.message(b'{"a": 3, "b": 3}')
        assert rig.news() == [("a", 3, "good", ""), ("b", 3, "good", "")]
    finally:
        watch.cancel()


@pytest.mark.parametrize("resumed", [True, False])
async def test_a_broker_that_is_away_makes_tags_uncertain(resumed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    monkeypatch.setattr(module, "AWAY_S", 0.1)
    rig = Rig(device(tag(1, "a"), tag(2, "never")))
    rig.samples.broker(True, False, None)
    watch = asyncio.create_task(rig.samples.watch())
    try:
        rig.message(b'{"a": 1}')
        rig.samples.broker(False, False, "gone")
        await asyncio.sleep(0.3)
        assert rig.news() == [
            ("a", 1, "good", ""),
            ("a", 1, "uncertain", "not_connected"),
            ("never", None, "bad", "not_connected"),
        ]
        assert rig.told.links[-1] == ("boiler", False, "gone")
        rig.samples.broker(True, resumed, None)
        assert rig.news() == ([("a", 1, "good", "")] if resumed else [])
        rig.message(b'{"a": 1}')
        assert rig.news() == ([] if resumed else [("a", 1, "good", "")])
    finally:
        watch.cancel()


async def test_what_an_earlier_run_told_holds_until_something_newer_is_known() -> None:
    rig = Rig(device(tag(1, "a"), tag(2, "b")))
    rig.message(b'{"b": 5}')
    recalled = [Sample("a", 1, Quality.GOOD, 10), Sample("b", 2, Quality.BAD, 10, Reason.STALE)]
    rig.samples.recall("boiler", recalled)
    rig.samples.recall("other", recalled)
    assert rig.news() == [("b", 5, "good", ""), ("a", 1, "good", "")]


async def test_a_changed_device_keeps_what_was_told_and_withdraws_what_is_gone() -> None:
    rig = Rig(device(tag(1, "a"), tag(2, "b")))
    rig.message(b'{"a": 1, "b": 2}')
    rig.news()
    rig.plan = device(tag(2, "b", deadband=5.0))
    rig.samples.put(rig.plan)
    assert rig.told.forgotten == [("boiler", frozenset({"a"}))]
    rig.message(b'{"b": 3}')
    assert rig.news() == []
    rig.samples.put(device(tag(2, "b"), name="kettle"))
    assert rig.told.forgotten[-1] == ("boiler", None)
    rig.samples.remove(7)
    assert rig.told.forgotten[-1] == ("kettle", None)

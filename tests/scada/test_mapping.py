"""A message's payload becomes register bytes, or a reject that says why; nothing in a payload raises."""

import struct
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.config import BindingConfig, DeviceConfig, Direction, LimitsConfig, ScalingConfig, TagConfig
from scada.mapping import DevicePlan, Mapped, compile_device
from scada.registry import protocol
from scada.schema import parse
from scada.values import DataType, RejectCode

NOW = 1_700_000_000_000


def tag(
    name: str = "t",
    data_type: str = "float",
    mqtt: dict[str, Any] | None = None,
    modbus: dict[str, Any] | None = None,
    mqtt_options: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    scaling: tuple[float, float] | None = None,
    out_scaling: tuple[float, float] | None = None,
    limits: dict[str, Any] | None = None,
    out_limits: dict[str, Any] | None = None,
) -> TagConfig:
    source, sink = protocol("mqtt"), protocol("modbus")
    bindings = (
        BindingConfig(
            1,
            "mqtt",
            Direction.IN,
            parse(source.address, mqtt or {"path": name}),
            parse(source.options, mqtt_options or {}),
            ScalingConfig(*scaling) if scaling else None,
            parse(LimitsConfig, limits) if limits else None,
        ),
        BindingConfig(
            2,
            "modbus",
            Direction.OUT,
            parse(sink.address, {"register": 0, **(modbus or {})}),
            parse(sink.options, options or {}),
            ScalingConfig(*out_scaling) if out_scaling else None,
            parse(LimitsConfig, out_limits) if out_limits else None,
        ),
    )
    return TagConfig(1, name, DataType(data_type), None, None, 0.0, bindings)


def plan(*tags: TagConfig, **network: Any) -> DevicePlan:
    networks = {
        "mqtt": parse(protocol("mqtt").network, network),
        "modbus": parse(protocol("modbus").network, {"host": "127.0.0.1"}),
    }
    compiled = compile_device(DeviceConfig(7, "boiler", 1, networks, tags))
    assert compiled is not None
    return compiled


def run(device: DevicePlan, document: Any) -> Mapped:
    payload = document if isinstance(document, bytes) else orjson.dumps(document)
    return device.map(payload, NOW)


def test_a_device_without_topic_listens_on_its_id() -> None:
    assert plan(tag()).topic == "device/7"


def test_a_value_arrives_as_the_registers_of_its_type() -> None:
    writes, rejects, _ = run(plan(tag(modbus={"type": "float32"})), {"t": 71.5})
    assert [(w.data, w.value, w.time_ms) for w in writes] == [(struct.pack(">f", 71.5), 71.5, NOW)]
    assert rejects == []


FLOAT = {"type": "float32"}


@pytest.mark.parametrize(
    ("config", "document", "data"),
    [
        (tag(modbus={"type": "uint16"}), {"t": 65535}, "ffff"),
        (tag(modbus={"type": "uint16"}), {"t": 5.0}, "0005"),
        (tag(data_type="int", modbus={"type": "uint64"}), {"t": 2**53 + 1}, "0020000000000001"),
        (tag(modbus={"type": "uint64"}), {"t": 2**53 + 1}, "0020000000000001"),
        (tag(data_type="int", modbus={"type": "int16"}), {"t": -1.0}, "ffff"),
        (tag(data_type="bool", modbus={"table": "coil"}), {"t": True}, "01"),
        (tag(data_type="bool", modbus={"type": "bool"}), {"t": 0}, "0000"),
        (tag(data_type="bool", modbus={"type": "bool", "bit": 4}), {"t": True}, "0010"),
        (tag(data_type="bool"), {"t": True}, "0001"),
        (tag(data_type="bool", modbus=FLOAT), {"t": True}, "3f800000"),
        (tag(data_type="bool", modbus={"type": "bcd16"}), {"t": False}, "0000"),
        (tag(data_type="bool", out_scaling=(0.1, 5), out_limits={"low": 2}), {"t": True}, "0001"),
        (tag(data_type="string", modbus={"type": "string", "length": 4}), {"t": "ab"}, "61620000"),
        (tag(mqtt={"path": ""}), b"17", "0011"),
        (tag(mqtt={"path": "[1]"}), [1, 2], "0002"),
        (tag(mqtt={"path": 'a["x.y"][0].b'}), {"a": {"x.y": [{"b": 3}]}}, "0003"),
        (
            tag(mqtt={"bits": ["door", "pump.on", "alarm"]}, data_type="int"),
            {"door": True, "pump": {"on": 0}, "alarm": 1},
            "0005",
        ),
        (tag(mqtt_options={"enum": {"open": 1, "closed": 0}}, data_type="int"), {"t": "open"}, "0001"),
        (tag(mqtt_options={"enum": {"open": 1}, "numeric_text": True}, data_type="int"), {"t": "open"}, "0001"),
        (tag(mqtt_options={"enum": {"open": 1}, "numeric_text": True}, data_type="int"), {"t": "12"}, "000c"),
        (tag(mqtt_options={"enum": {"on": True}}, data_type="bool", modbus={"type": "bool"}), {"t": "on"}, "0001"),
        (tag(mqtt_options={"numeric_text": True}), {"t": "12"}, "000c"),
        (tag(scaling=(0.1, -40)), {"t": 600}, "0014"),
        (tag(out_scaling=(0.1, 0)), {"t": 21.57}, "00d8"),
        (tag(out_scaling=(0.1, -40)), {"t": 21.5}, "0267"),
        (tag(options={"round": True}), {"t": 2.5}, "0003"),
        (tag(limits={"high": 100, "action": "clamp"}), {"t": 250}, "0064"),
        (tag(out_limits={"low": 10, "action": "clamp"}), {"t": -3}, "000a"),
    ],
)
def test_values_that_are_taken(config: TagConfig, document: Any, data: str) -> None:
    writes, rejects, _ = run(plan(config), document)
    assert rejects == []
    assert [w.data.hex() for w in writes] == [data]


@pytest.mark.parametrize(
    ("config", "document", "code", "words"),
    [
        (tag(), {"u": 1}, RejectCode.MISSING, "t"),
        (tag(), 5, RejectCode.WRONG_TYPE, ""),
        (tag(), [1], RejectCode.WRONG_TYPE, ""),
        (tag(), None, RejectCode.WRONG_TYPE, ""),
        (tag(), {"t": "12"}, RejectCode.WRONG_TYPE, "text '12'"),
        (tag(), {"t": True}, RejectCode.WRONG_TYPE, "boolean"),
        (tag(), {"t": None}, RejectCode.WRONG_TYPE, "null"),
        (tag(), {"t": {"a": 1}}, RejectCode.WRONG_TYPE, "object"),
        (tag(), {"t": 70000}, RejectCode.OUT_OF_RANGE, "70000"),
        (tag(), {"t": -1}, RejectCode.OUT_OF_RANGE, "-1"),
        (tag(), {"t": 1.5}, RejectCode.NOT_INTEGER, "1.5"),
        (tag(data_type="int"), {"t": 3.7}, RejectCode.NOT_INTEGER, "3.7"),
        (tag(modbus={"type": "int32"}), {"t": 2**31}, RejectCode.OUT_OF_RANGE, "2147483648"),
        (tag(modbus={"type": "uint64"}), b'{"t": 18446744073709551616}', RejectCode.OUT_OF_RANGE, ""),
        (tag(modbus=FLOAT), {"t": 1e39}, RejectCode.OUT_OF_RANGE, ""),
        (tag(data_type="bool", modbus={"type": "bool"}), {"t": 2}, RejectCode.WRONG_TYPE, "2"),
        (tag(data_type="bool", modbus={"type": "bool"}), {"t": "true"}, RejectCode.WRONG_TYPE, "true"),
        (tag(data_type="string", modbus={"type": "string", "length": 2}), {"t": "abc"}, RejectCode.OUT_OF_RANGE, ""),
        (tag(mqtt_options={"enum": {"open": 1}}), {"t": "ajar"}, RejectCode.UNKNOWN_TEXT, "ajar"),
        (tag(mqtt_options={"enum": {"open": 1}, "numeric_text": True}), {"t": "x"}, RejectCode.UNKNOWN_TEXT, "'x'"),
        (tag(mqtt_options={"numeric_text": True}), {"t": "nan"}, RejectCode.WRONG_TYPE, "nan"),
        (tag(mqtt_options={"numeric_text": True}), {"t": "1_0"}, RejectCode.WRONG_TYPE, "1_0"),
        (tag(limits={"low": 0, "high": 100}), {"t": 101}, RejectCode.OUT_OF_RANGE, "101"),
        (tag(out_limits={"low": 0, "high": 100}), {"t": 101}, RejectCode.OUT_OF_RANGE, "101"),
        (tag(mqtt={"bits": ["a", "b"]}, data_type="int"), {"a": True}, RejectCode.MISSING, "b"),
    ],
)
def test_values_that_are_rejected_with_the_reason(
    config: TagConfig, document: Any, code: RejectCode, words: str
) -> None:
    writes, rejects, _ = run(plan(config), document)
    assert writes == []
    assert [(r.code, r.tag) for r in rejects] == [(code, "t")]
    assert words in rejects[0].reason


def test_the_other_values_of_a_message_are_written() -> None:
    device = plan(tag("a"), tag("b"), tag("c"))
    writes, rejects, _ = run(device, {"a": 1, "b": "x", "c": 3})
    assert [w.value for w in writes] == [1, 3]
    assert [r.tag for r in rejects] == ["b"]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", RejectCode.EMPTY),
        (b"{", RejectCode.NOT_JSON),
        (b'{"t": NaN}', RejectCode.NOT_JSON),
        (b'{"t": 1e400}', RejectCode.NOT_JSON),
        (b'{"t": 1} x', RejectCode.NOT_JSON),
        (b"\xff\xfe", RejectCode.NOT_UTF8),
        (b"[" * 100_000, RejectCode.NOT_JSON),
        (b'{"t": "' + b"x" * 1_000_000 + b'"}', RejectCode.TOO_LARGE),
    ],
)
def test_payloads_that_are_rejected_whole(payload: bytes, code: RejectCode) -> None:
    writes, rejects, _ = run(plan(tag()), payload)
    assert writes == []
    assert [(r.code, r.tag) for r in rejects] == [(code, None)]


def test_the_last_of_duplicate_keys_wins() -> None:
    assert [w.value for w in run(plan(tag()), b'{"t": 1, "t": 2}').writes] == [2]


def test_source_time_is_kept() -> None:
    device = plan(tag(), time="ts")
    assert [w.time_ms for w in run(device, {"t": 1, "ts": 1_600_000_000}).writes] == [1_600_000_000_000]
    assert [r.code for r in run(device, {"t": 1, "ts": "soon"}).rejects] == [RejectCode.BAD_TIME]


def test_an_array_of_samples_is_mapped_in_order() -> None:
    device = plan(tag(), samples="data", time="ts")
    document = {"data": [{"t": 1, "ts": 1_600_000_000}, {"t": "x", "ts": 1_600_000_001}, {"t": 3, "ts": 1_600_000_002}]}
    writes, rejects, _ = run(device, document)
    assert [(w.value, w.time_ms) for w in writes] == [(1, 1_600_000_000_000), (3, 1_600_000_002_000)]
    assert len(rejects) == 1
    assert [r.code for r in run(device, {"data": 5}).rejects] == [RejectCode.WRONG_TYPE]


def test_a_binding_that_cannot_be_written_is_left_out_and_named() -> None:
    device = plan(tag("good"), tag("bad", modbus={"table": "input_register"}))
    assert [t.name for t in device.tags] == ["good"]
    assert "boiler@bad" in str(device.faults[0])


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_no_payload_raises(payload: bytes) -> None:
    device = plan(tag(), tag("u", mqtt={"path": "a.b[0]"}), samples=None)
    device.map(payload, NOW)


def test_the_raw_value_of_a_scaled_integer_may_be_a_fraction() -> None:
    device = plan(tag(data_type="int", scaling=(10, 0)))
    assert [w.value for w in run(device, {"t": 21.54}).writes] == [215]


@pytest.mark.parametrize("data_type", ["int", "float"])
@pytest.mark.parametrize("number", [-(2**63) - 1, -(2**63) - 1000, 2**64, 2**64 + 1, 2**70])
def test_an_integer_beyond_64_bits_is_never_written_as_another_one(data_type: str, number: int) -> None:
    for register_type in ("int64", "uint64"):
        device = plan(tag(data_type=data_type, modbus={"type": register_type}))
        writes, rejects, _ = run(device, b'{"t": %d}' % number)
        assert writes == []
        assert [reject.code for reject in rejects] == [RejectCode.OUT_OF_RANGE]


def test_a_scaled_integer_that_the_outbox_cannot_hold_is_rejected() -> None:
    device = plan(tag(data_type="int", scaling=(1e10, 0), modbus={"type": "float64"}))
    writes, rejects, _ = run(device, {"t": 1e15})
    assert writes == []
    assert [reject.code for reject in rejects] == [RejectCode.OUT_OF_RANGE]


@pytest.mark.parametrize(
    ("raw", "data"),
    [(3, "0006"), (50, "0064"), (51, "")],
    ids=["the binding's scaling", "the tag's limit", "outside the tag's, inside the binding's"],
)
def test_a_bindings_scaling_replaces_the_tags_and_its_limits_come_on_top(raw: int, data: str) -> None:
    """2 x raw, not 10 x raw nor 20 x raw; what passes the binding's 0..150 must pass the tag's 0..100 as well."""
    bound = tag(scaling=(2, 0), limits={"low": 0, "high": 150})
    own = replace(bound, scaling=ScalingConfig(10, 0), limits=LimitsConfig(0, 100))
    writes, rejects, _ = run(plan(own), {"t": raw})
    assert [write.data.hex() for write in writes] == ([data] if data else [])
    assert [reject.code for reject in rejects] == ([] if data else [RejectCode.OUT_OF_RANGE])


def test_the_tags_scaling_counts_where_the_binding_has_none_and_for_reading_only() -> None:
    own = replace(tag(), scaling=ScalingConfig(10, 0))
    writes, _, _ = run(plan(own), {"t": 3})
    assert [write.data.hex() for write in writes] == ["001e"]

"""The payloads of the bus: golden bytes both ways, round trips, and garbage that raises only BadValue."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.bus_batches import MAX_SAMPLES, Batch, mark_late, split_payloads
from scada.bus_messages import (
    LinkReport,
    decode_data,
    decode_link,
    decode_state,
    encode_data,
    encode_link,
    encode_state,
)
from scada.payload import MAX_PAYLOAD_BYTES
from scada.values import BadValue, Quality, Reason, Sample

GOOD = Sample("level", 7.5, Quality.GOOD, 1763712000123)
BAD = Sample("pump", None, Quality.BAD, 5, Reason.COMM_FAILURE)
LATE = Sample("ünï", "a/b", Quality.UNCERTAIN, 0, Reason.STALE, late=True)

DATA = [
    ([], b"[]"),
    ([GOOD], b'[["level",7.5,"good",1763712000123]]'),
    ([GOOD._replace(value=True, late=True)], b'[["level",true,"good",1763712000123,{"late":true}]]'),
    (
        [BAD, LATE],
        '[["pump",null,"bad",5,{"reason":"comm_failure"}],["ünï","a/b","uncertain",0,{"reason":"stale","late":true}]]'.encode(),
    ),
]
STATES = [
    ([], b"{}"),
    ([GOOD, BAD], b'{"level":[7.5,"good",1763712000123],"pump":[null,"bad",5,{"reason":"comm_failure"}]}'),
]
LINKS = [
    (LinkReport(True, 12, None), b'{"online":true,"since":12,"error":null}'),
    (LinkReport(False, 1763712000123, "refused"), b'{"online":false,"since":1763712000123,"error":"refused"}'),
]

names = st.text(min_size=1, max_size=20)
values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
samples = st.builds(
    Sample, names, values, st.sampled_from(Quality), st.integers(0, 2**53 - 1), st.sampled_from(Reason), st.booleans()
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(("told", "payload"), DATA)
def test_data(told: list[Sample], payload: bytes) -> None:
    assert encode_data(told) == payload
    assert decode_data(payload) == (told, [])


@pytest.mark.parametrize(("told", "payload"), STATES)
def test_state(told: list[Sample], payload: bytes) -> None:
    assert encode_state(told) == payload
    assert decode_state(payload) == (told, [])


@pytest.mark.parametrize(("told", "payload"), LINKS)
def test_link(told: LinkReport, payload: bytes) -> None:
    assert encode_link(told) == payload
    assert decode_link(payload) == told


@given(st.lists(samples, max_size=20))
def test_data_comes_back_exactly(told: list[Sample]) -> None:
    back, faults = decode_data(encode_data(told))
    assert not faults
    assert back == told
    assert [(type(sample.value), sample.quality, sample.reason) for sample in back] == [
        (type(sample.value), sample.quality, sample.reason) for sample in told
    ]
    late, faults = decode_data(mark_late(encode_data(told)))
    assert not faults
    assert late == [sample._replace(late=True) for sample in told]


@given(st.lists(samples, max_size=20, unique_by=lambda sample: sample.tag))
def test_state_comes_back_exactly_but_for_late(told: list[Sample]) -> None:
    assert decode_state(encode_state(told)) == (told, [])


def test_one_wrong_row_costs_only_itself() -> None:
    payload = b'[["a",1,"good",5],["b",[1],"good",5],["c",1,"fine",5],7,["d",1,"good",-1],["e",1,"good",5,null],["f",2,"good",6]]'
    told, faults = decode_data(payload)
    assert [sample.tag for sample in told] == ["a", "f"]
    assert [fault.split(":")[0] for fault in faults] == ["sample 1", "sample 2", "sample 3", "sample 4", "sample 5"]


@pytest.mark.parametrize("decode", [decode_data, decode_state, decode_link])
@pytest.mark.parametrize("payload", [b"", b"x", b"7", b"null", b'"text"', b"\xff", b"[" * 2000, b'{"online": 1}'])
def test_what_is_no_such_message_raises_bad_value(decode: object, payload: bytes) -> None:
    if decode is decode_state and payload.startswith(b"{"):
        assert decode_state(payload)[0] == []
        return
    with pytest.raises(BadValue):
        decode(payload)  # type: ignore[operator]


@given(json_values)
def test_garbage_raises_only_bad_value(document: object) -> None:
    payload = orjson.dumps(document)
    for decode in (decode_data, decode_state, decode_link):
        try:
            decode(payload)
        except BadValue:
            continue


@given(st.binary(max_size=60))
def test_bytes_raise_only_bad_value(payload: bytes) -> None:
    for decode in (decode_data, decode_state, decode_link):
        try:
            decode(payload)
        except BadValue:
            continue


def test_a_state_of_ten_thousand_tags_can_be_read() -> None:
    """It is longer than a device's message may be, and was refused."""
    told = [GOOD._replace(tag=f"a tag of this name {number}") for number in range(10_000)]
    payload = encode_state(told)
    assert len(payload) > MAX_PAYLOAD_BYTES
    assert decode_state(payload) == (told, [])


@pytest.mark.parametrize("length", [10, *range(200, 270, 5), 900])
def test_long_data_is_split_so_that_every_receiver_takes_it_late_too(length: int) -> None:
    many = [Sample(f"t{number}", "x" * length, Quality.GOOD, number) for number in range(2500)]
    back: list[Sample] = []
    for count, payload in split_payloads(many):
        assert count <= MAX_SAMPLES
        assert len(mark_late(payload)) <= MAX_PAYLOAD_BYTES
        decoded, faults = decode_data(payload)
        assert len(decoded) == count
        assert not faults
        back += decoded
    assert back == many


def test_a_sample_that_no_message_can_hold_costs_only_itself() -> None:
    long, odd, huge = (GOOD._replace(value=value) for value in ("x" * MAX_PAYLOAD_BYTES, "\ud800", 2**70))
    parts = list(split_payloads([GOOD, long, BAD, odd, huge, GOOD]))
    assert sum(count for count, payload in parts if not payload) == 3
    assert [sample for _, payload in parts if payload for sample in decode_data(payload)[0]] == [GOOD, BAD, GOOD]


def test_batches_sort_by_their_numbers() -> None:
    assert sorted([Batch(3, "a", 1, b""), Batch(1, "b", 1, b"")])[0].number == 1

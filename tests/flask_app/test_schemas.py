"""The published schemas say the same as what checks the documents: made from one declaration, and compared here."""

import dataclasses
from typing import Any

import jsonschema_rs
import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_app.record_schemas import record_schema
from scada.errors import ConfigError
from scada.registry import PROTOCOLS
from scada.schema import fields, parse
from storage.records import BindingFields, DeviceFields, ItemFields, TagFields, TermFields

RECORDS = [
    record
    for protocol in PROTOCOLS.values()
    for record in (protocol.network, protocol.address, protocol.options, protocol.term)
    if record is not None
] + [DeviceFields, TermFields, ItemFields, TagFields, BindingFields]
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 70_000)
    | st.floats(-10, 10)
    | st.sampled_from(
        ["", "a", "a/b", "tcp", "float", "in", "ABCD", "coil", "N", "plant/#", "a[0", "float32", "x" * 600]
    )
    | st.lists(st.sampled_from(["a", "b[", 1]), max_size=20)
    | st.dictionaries(
        st.sampled_from(["gain", "low", "open", "value", "after_s"]),
        st.integers(1, 5) | st.text(max_size=2),
        max_size=3,
    )
)


# Values that a nested record refuses for what several of its fields say together (gain 0, low above high) are left out.
def structural(record: type, document: dict[str, Any]) -> set[str]:
    """The top-level fields that `parse` finds fault with; without those that concern several fields together."""
    try:
        parse(record, document)
    except ConfigError as error:
        found = {fault.field.split(".")[0] for fault in error.faults}
    else:
        found = set()
    return {name for name in found if not _whole_is_wrong(record, name, document.get(name))}


def _whole_is_wrong(record: type, name: str, value: object) -> bool:
    """Whether a nested record's fields are right one by one, as in a failsafe with neither value nor flag."""
    kinds = {field.name: field.kind for field in fields(record) if dataclasses.is_dataclass(field.kind)}
    return name in kinds and isinstance(value, dict) and not record_schema(kinds[name])().validate(value)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(RECORDS).flatmap(lambda record: st.tuples(st.just(record), documents(record))))
def test_marshmallow_finds_fault_with_the_same_fields(case: tuple[type, dict[str, Any]]) -> None:
    record, document = case
    found = {str(name).split(".")[0] for name in record_schema(record)().validate(document)}
    expected = structural(record, document)
    if not found:
        return  # parse may know more: what concerns several fields together
    assert found == expected


def documents(record: type) -> st.SearchStrategy[dict[str, Any]]:
    names = [field.name for field in fields(record)]
    return st.dictionaries(st.sampled_from([*names, "unknown"]), VALUES, max_size=6)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_has_its_meaning_and_bounds(record: type) -> None:
    schema = record_schema(record)()
    assert set(schema.fields) == {field.name for field in fields(record)}
    for field in fields(record):
        assert schema.fields[field.name].metadata["description"] == field.spec.doc
        assert schema.fields[field.name].required is field.required
        assert schema.fields[field.name].allow_none is field.optional


def test_the_published_json_schemas_accept_what_is_accepted(client: FlaskClient) -> None:
    examples = {
        ("mqtt", "network"): {"topic": "plant/+/x", "time": "ts", "time_format": "iso8601"},
        ("mqtt", "address"): {"path": "a.b[0]"},
        ("mqtt", "options"): {"enum": {"open": 1, "closed": False}, "numeric_text": True},
        ("modbus", "network"): {"host": "h", "port": 502, "timeout_s": 0.5},
        ("modbus", "address"): {"register": 3, "type": "float32", "order": "CDAB", "unit_id": None},
        ("modbus", "options"): {"failsafe": {"value": 0, "after_s": 5}, "verify": True},
        ("modbus", "term"): {"unit_id": 4},
    }
    for (name, part), example in examples.items():
        record = getattr(PROTOCOLS[name], part)
        validator = jsonschema_rs.Draft202012Validator(client.get(f"/api/v1/protocols/{name}").json["schemas"][part])
        if structural(record, example):
            example.pop("time_format", None)
        assert not structural(record, example)
        assert validator.is_valid(example)
        assert not validator.is_valid({**example, "nonsense": 1})

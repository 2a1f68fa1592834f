import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.errors import ConfigError, Fault
from scada.schema import fields, parse, plain, spec


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


def no_x(text: str) -> None:
    if "x" in text:
        raise ConfigError("holds an x")


@dataclass(frozen=True, slots=True)
class Inner:
    low: float = spec("low", 0.0)
    high: float = spec("high", 1.0)

    def faults(self) -> Iterator[Fault]:
        if self.low > self.high:
            yield Fault("low", "is above high")


@dataclass(frozen=True, slots=True)
class Outer:
    count: int = spec("a count", minimum=0, maximum=10)
    name: str = spec("a name", "n", max_length=4, check=no_x)
    flag: bool = spec("a flag", False)
    colour: Colour = spec("a colour", Colour.RED)
    inner: Inner | None = spec("nested", None)
    many: tuple[str, ...] | None = spec("several", None, max_length=2, check=no_x)
    table: Mapping[str, object] | None = spec("a table", None)
    anything: object = spec("a scalar", 0)
    ratio: float = spec("a ratio", 0.0, minimum=0)


def faults(data: object, path: str = "") -> list[str]:
    with pytest.raises(ConfigError) as error:
        parse(Outer, data, path)
    return [str(fault) for fault in error.value.faults]


def test_a_record_goes_to_plain_data_and_back() -> None:
    record = Outer(3, "ab", True, Colour.BLUE, Inner(1, 2), ("a", "b"), {"k": 1.5}, "s", 0.5)
    data = plain(record)
    assert data["inner"] == {"low": 1, "high": 2}
    assert (data["colour"], type(data["colour"])) == ("blue", str)
    assert parse(Outer, data) == record
    assert plain(parse(Outer, {"count": 1}), defaults=False) == {"count": 1}
    assert "inner" not in plain(Outer(1))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"count": -1}, "count: must be 0 to 10, not -1"),
        ({"count": 10**5000}, "count: must be 0 to 10, not an integer of more than 60 digits"),
        ({"count": True}, "count: must be an integer, not True"),
        ({"count": 1.0}, "count: must be an integer, not 1.0"),
        ({"count": None}, "count: must not be null"),
        ({"count": [10**5000]}, "count: must be an integer, not array"),
        ({"name": 5}, "name: must be text, not integer"),
        ({"name": "abcde"}, "name: is longer than 4 (has 5)"),
        ({"name": "x"}, "name: holds an x"),
        ({"name": "\0"}, "name: must not contain U+0000 or half of a surrogate pair"),
        ({"name": "\udc00"}, "name: must not contain U+0000 or half of a surrogate pair"),
        ({"flag": 1}, "flag: must be true or false, not integer"),
        ({"colour": "green"}, "colour: must be one of red, blue, not 'green'"),
        ({"colour": {}}, "colour: must be one of red, blue, not object"),
        ({"inner": 5}, "inner: must be an object, not integer"),
        ({"inner": {"low": 2}}, "inner.low: is above high"),
        ({"inner": {"low": "2"}}, "inner.low: must be a number, not '2'"),
        ({"inner": {"low": 10**400}}, "inner.low: must be a finite number"),
        ({"inner": {"low": math.nan}}, "inner.low: must be a finite number"),
        ({"many": "ab"}, "many: must be an array, not text"),
        ({"many": ["a", 1]}, "many.1: must be text, not integer"),
        ({"many": ["a", "b", "c"]}, "many: has more than 2 elements (3)"),
        ({"many": ["ax"]}, "many.0: holds an x"),
        ({"table": {"k": []}}, "table.k: must be a number, text, true or false, not array"),
        ({"table": {"k": 2**63}}, "table.k: must be an integer of at most 64 bit"),
        ({"table": {"k": "\ud800"}}, "table.k: must not contain U+0000 or half of a surrogate pair"),
        ({"anything": None}, "anything: must not be null"),
        ({"anything": math.inf}, "anything: must be a number, text, true or false, not number"),
        ({"ratio": -0.5}, "ratio: must be at least 0, not -0.5"),
        ({"extra": 1}, "extra: unknown field"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], fault: str) -> None:
    assert faults({"count": 1, **change}) == [fault]


def test_every_fault_is_listed_below_its_path() -> None:
    assert faults({"name": 1, "colour": 2}, "a.0") == [
        "a.0.count: is required",
        "a.0.name: must be text, not integer",
        "a.0.colour: must be one of red, blue, not 2",
    ]
    assert faults([]) == ["must be an object, not array"]


def test_elements_may_be_longer_than_their_number() -> None:
    assert parse(Outer, {"count": 1, "many": ["a long one", "b"]}).many == ("a long one", "b")


def test_fields_tell_what_the_rest_schemas_need() -> None:
    known = {field.name: field for field in fields(Outer)}
    assert (known["many"].kind, known["many"].many, known["many"].optional) == (str, True, True)
    assert (known["inner"].kind, known["inner"].required, known["count"].required) == (Inner, False, True)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


@given(st.dictionaries(st.sampled_from([field.name for field in fields(Outer)]) | st.text(max_size=5), json) | json)
def test_garbage_raises_only_the_documented_error(data: object) -> None:
    try:
        record = parse(Outer, data)
    except ConfigError as error:
        assert error.faults  # noqa: PT017 - either outcome is right
    else:
        assert parse(Outer, plain(record)) == record

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scada.plain_json import MAX_DEPTH, check_plain, read_in_part, read_plain

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)


@given(DATA)
def test_what_is_plain_comes_back_as_it_was(data: Any) -> None:
    assert read_plain(json.dumps(data).encode()) == data


@given(st.dictionaries(TEXT, DATA, max_size=3))
def test_of_what_is_plain_every_part_can_be_read(data: dict[str, Any]) -> None:
    assert read_in_part(json.dumps(data).encode()) == data


def test_what_is_refused_is_left_out_and_the_rest_is_read() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    text = (
        '{"a": 1, "b": 2, "a": 3, "c": {"d": 1, "d": 2, "e": 3}, "n": "\\u0000", "i": 18446744073709551616, "x": [%s]}'
    )
    data = (text % deep).encode()
    with pytest.raises(ValueError, match="'d' stands twice"):
        read_plain(data)
    assert read_in_part(data) == {"b": 2, "c": {"e": 3}}
    assert read_in_part(b'{"a": 1, "x": ' + b"[" * 1000 + b"]" * 1000 + b"}") == {}


def test_what_no_configuration_holds_is_named() -> None:
    for value, text in ((float("inf"), "finite"), (2**64, "64 bits"), (b"x", "bytes"), ({5: 1}, "must be text")):
        with pytest.raises(ValueError, match=text):
            check_plain([value])

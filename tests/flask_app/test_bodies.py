"""Bodies become plain data, or a clear refusal. Hostile ones are in tests/faults/test_j_rest.py."""

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import BadRequest

from flask_app.bodies import parse_json, parse_yaml, write_yaml
from scada.plain_json import MAX_DEPTH

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
DATA = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


@settings(deadline=None)
@given(DATA)
def test_json_comes_back_as_it_was(data: Any) -> None:
    assert parse_json(json.dumps(data).encode()) == data


@settings(deadline=None)
@given(DATA)
def test_yaml_comes_back_as_it_was(data: Any) -> None:
    assert parse_yaml(write_yaml(data).encode()) == data


@settings(deadline=None)
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_garbage_raises_bad_request_only(raw: bytes) -> None:
    for parse in (parse_json, parse_yaml):
        with contextlib.suppress(BadRequest):
            parse(raw)


def test_depth_is_counted_exactly() -> None:
    for parse in (parse_json, parse_yaml):
        inner = MAX_DEPTH - 1
        assert parse(b"[" * inner + b"]" * inner)
        with pytest.raises(BadRequest, match="deep"):
            parse(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


def test_a_name_given_twice_is_named() -> None:
    with pytest.raises(BadRequest, match="'topic'"):
        parse_json(b'{"a": {"topic": 1, "topic": 2}}')
    with pytest.raises(BadRequest, match=r"line 3: 'topic'"):
        parse_yaml(b"a:\n  topic: 1\n  topic: 2\n")


def test_a_name_given_twice_among_many_is_found_at_once() -> None:
    """Half a megabyte kept a worker busy for 50 s: each name was counted."""
    many = b"{" + b"".join(b'"%d":1,' % number for number in range(60_000)) + b'"a":1,"a":2}'
    begun = time.process_time()
    with pytest.raises(BadRequest, match="'a'"):
        parse_json(many)
    assert time.process_time() - begun < 5.0


def test_yaml_aliases_are_refused_with_their_line() -> None:
    with pytest.raises(BadRequest, match="line 2: aliases"):
        parse_yaml(b"a: &x [1]\nb: *x\n")

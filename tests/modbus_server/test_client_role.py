from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbus_server.client_role import role_in
from scada.errors import ProtocolError
from tests.support.certificates import Authority, der, utf8


@pytest.mark.parametrize("role", ["Operator", "Schichtführer", "", "x" * 127])
def test_finds_the_role_in_a_real_certificate(tmp_path: Path, role: str) -> None:
    certificate, _ = Authority(tmp_path).issue("client", utf8(role))
    assert role_in(der(certificate)) == role


def test_a_certificate_without_a_role(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert role_in(der(authority.issue("client")[0])) is None
    assert role_in(der(authority.path)) is None


@pytest.mark.parametrize("value", [b"\x13\x02ab", b"\x0c\x03ab", b"\x0c\x01ab", b"\x0c\x01\xff", b"", b"\x0c\x80"])
def test_a_malformed_role_is_no_role(tmp_path: Path, value: bytes) -> None:
    certificate, _ = Authority(tmp_path).issue("client", value)
    with pytest.raises(ProtocolError):
        role_in(der(certificate))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return der(Authority(tmp_path_factory.mktemp("ca")).issue("client", utf8("Operator"))[0])


def outcome(data: bytes) -> str | None:
    try:
        return role_in(data)
    except ProtocolError:
        return "refused"


def test_a_cut_certificate_is_refused(good: bytes) -> None:
    assert {outcome(good[:size]) for size in range(len(good))} == {"refused"}


@given(st.data())
def test_garbage_raises_only_protocol_errors(good: bytes, data: st.DataObject) -> None:
    outcome(data.draw(st.binary(max_size=200)))
    changed = bytearray(good)
    changed[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    outcome(bytes(changed))

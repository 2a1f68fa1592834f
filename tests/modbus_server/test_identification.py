"""Function 43 / 14, Read Device Identification (APS 6.21), asked of the real server over the wire."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.modbus_wire import Wire, modbus_server

TAGWIRE, SERVER, PRODUCT = (
    "00 07 54616777697265",
    "01 0D 6D6F646275735F736572766572",
    "04 19" + b"Tagwire Modbus TCP server".hex(),
)
IDENTIFICATION = [  # APS 6.21
    ("2B 0E 04 00", f"2B 0E 04 82 00 00 01 {TAGWIRE}"),
    ("2B 0E 04 01", f"2B 0E 04 82 00 00 01 {SERVER}"),
    ("2B 0E 04 04", f"2B 0E 04 82 00 00 01 {PRODUCT}"),
    ("2B 0E 04 06", "2B 0E 04 82 00 00 01 06" + TAGWIRE[2:]),
    ("2B 0E 04 03", "AB 02"),
    ("2B 0E 04 07", "AB 02"),
    ("2B 0E 04 80", "AB 02"),
    ("2B 0E 04 FF", "AB 02"),
    ("2B 0E 00 00", "AB 03"),
    ("2B 0E 05 00", "AB 03"),
    ("2B 0E 80 00", "AB 03"),
    ("2B 0E FF FF", "AB 03"),
    ("2B 0E 01", "AB 03"),
    ("2B 0E", "AB 03"),
    ("2B 0E 01 00 00", "AB 03"),
    ("2B 0D 00 00 00 00 00 00 00 00 00 00", "AB 01"),
    ("2B 00 01 00", "AB 01"),
    ("2B 0F 01 00", "AB 01"),
    ("2B FF 01 00", "AB 01"),
]  # fmt: skip


@pytest.fixture(scope="module")
def wire(port: int) -> Iterator[Wire]:
    with Wire(port) as wire:
        yield wire


@pytest.mark.parametrize(("request_", "response"), IDENTIFICATION)
def test_identification(wire: Wire, request_: str, response: str) -> None:
    assert wire.ask(request_) == bytes.fromhex(response)


@pytest.mark.parametrize(
    ("code", "first", "ids"),
    [
        (1, 0, [0, 1, 2]),
        (1, 1, [1, 2]),
        (1, 2, [2]),
        (1, 3, [0, 1, 2]),  # no known object: as if object 0 were asked for
        (1, 0xFF, [0, 1, 2]),
        (2, 0, [0, 1, 2, 4, 6]),
        (2, 4, [4, 6]),
        (2, 5, [0, 1, 2, 4, 6]),
        (3, 0, [0, 1, 2, 4, 6]),  # above the device's level: answered at its own, with the code of the request
        (3, 0x80, [0, 1, 2, 4, 6]),
    ],
)
def test_identification_as_a_stream(wire: Wire, code: int, first: int, ids: list[int]) -> None:
    answer = wire.ask(bytes((0x2B, 0x0E, code, first)))
    assert answer[:7] == bytes((0x2B, 0x0E, code, 0x82, 0, 0, len(ids)))
    seen = []
    at = 7
    while at < len(answer):
        seen.append(answer[at])
        at += 2 + answer[at + 1]
    assert (at, seen) == (len(answer), ids)


def test_identification_that_one_response_cannot_hold(tmp_path: Path) -> None:
    long = "Boiler house " * 18 + "south, AB."
    assert len(long) == 244
    with modbus_server(tmp_path, NAME=long) as (_, port), Wire(port) as wire:
        first = wire.ask("2B 0E 02 00")
        assert first[:7] == bytes.fromhex("2B 0E 02 82 FF 06 04")  # more follows, from object 6 on
        whole = bytes.fromhex("06 F4") + long.encode()
        assert wire.ask("2B 0E 02 06") == bytes.fromhex("2B 0E 02 82 00 00 01") + whole
        assert wire.ask("2B 0E 04 06") == bytes.fromhex("2B 0E 04 82 00 00 01") + whole

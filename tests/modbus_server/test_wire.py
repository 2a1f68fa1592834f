"""The real server on a real socket: frames however they come (Guide 4.4), and who is shed."""

import contextlib
import socket
import time
from pathlib import Path

import pytest

from scada.modbus.mbap import encode_frame
from tests.support.modbus_wire import Wire, modbus_server

READ = bytes.fromhex("0300000002")


def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    with Wire(port) as wire:
        wire.send(b"".join(encode_frame(number, 1, READ) for number in range(500)))
        assert [wire.answer()[0] for _ in range(500)] == list(range(500))


def test_a_request_in_single_bytes_is_answered_once(port: int) -> None:
    with Wire(port) as wire:
        wire.ask("06 00 00 12 34")
        for byte in encode_frame(77, 9, bytes.fromhex("0300000001")):
            wire.send(bytes([byte]))
            time.sleep(0.002)
        assert wire.answer() == (77, 9, bytes.fromhex("03021234"))
        assert wire.ask("03 00 00 00 01") == bytes.fromhex("03021234")


@pytest.mark.parametrize("protocol", [0x0001, 0x0100, 0x8000, 0xFFFF])
def test_a_foreign_protocol_is_discarded_and_never_executed(port: int, protocol: int) -> None:
    with Wire(port) as wire:
        wire.ask("06 00 05 00 01")
        for request in ("06 00 05 00 02", "10 00 05 00 01 02 00 03", "10 00 05 00 01 02 00 03", "03 00 05 00 01", "00"):
            frame = encode_frame(1, 1, bytes.fromhex(request))
            wire.send(frame[:2] + protocol.to_bytes(2, "big") + frame[4:])
        assert wire.ask("03 00 05 00 01") == bytes.fromhex("03020001")


@pytest.mark.parametrize("unit_id", [0, 1, 127, 128, 247, 248, 254, 255])
def test_transaction_and_unit_come_back_as_they_were(port: int, unit_id: int) -> None:
    with Wire(port) as wire:
        for transaction in (0, 1, 0x00FF, 0x0100, 0x7FFF, 0x8000, 0xFFFF):
            for request, response in (
                ("03 02 00 00 01", "03 02 00 00"),
                ("10 02 01 00 01 02 00 00", "10 02 01 00 01"),
                ("03 00 00 00 00", "83 03"),
                ("2B 0E 04 00", "2B 0E 04 82 00 00 01 00 07 54 61 67 77 69 72 65"),
                ("07", "87 01"),
            ):
                wire.send(encode_frame(transaction, unit_id, bytes.fromhex(request)))
                assert wire.answer() == (transaction, unit_id, bytes.fromhex(response))


def test_the_shortest_and_the_longest_frame_are_taken(port: int) -> None:
    with Wire(port) as wire:
        assert wire.ask(b"\x03") == bytes.fromhex("8303")
        assert wire.ask(b"\x03" + bytes(252)) == bytes.fromhex("8303")
        assert wire.ask(b"\x10\x01\x00\x00\x7b\xf6" + bytes(246)) == bytes.fromhex("100100007b")


def test_a_mixed_pipeline_is_answered_one_by_one(port: int) -> None:
    sent = [
        (1, 1, "06 03 00 00 07", "06 03 00 00 07"),
        (1, 9, "03 03 00 00 01", "03 02 00 07"),  # the same transaction identifier again is the client's business
        (0xFFFF, 0, "63", "E3 01"),
        (3, 255, "03 FF FF 00 02", "83 02"),
        (4, 1, "10 03 00 00 01 02 00 08", "10 03 00 00 01"),
        (5, 1, "03 03 00 00 01", "03 02 00 08"),
        (6, 1, "05 00 00 00 01", "85 03"),
        (7, 1, "16 03 00 00 00 00 09", "16 03 00 00 00 00 09"),
        (8, 1, "03 03 00 00 01", "03 02 00 09"),
    ]
    stream = b"".join(encode_frame(transaction, unit_id, bytes.fromhex(pdu)) for transaction, unit_id, pdu, _ in sent)
    with Wire(port) as wire:
        for cut in range(len(stream)):
            wire.send(stream[:cut])
            wire.send(stream[cut:])
            answers = [wire.answer() for _ in sent]
            assert answers == [(transaction, unit_id, bytes.fromhex(pdu)) for transaction, unit_id, _, pdu in sent]


@pytest.mark.parametrize("length", [0, 1, 255, 0xFFFF])
def test_an_impossible_length_closes_after_the_answers_before_it(port: int, length: int) -> None:
    with Wire(port) as wire:
        wire.send(encode_frame(1, 1, READ) + b"\x00\x02\x00\x00" + length.to_bytes(2, "big") + b"\x01\x06")
        assert wire.answer()[0] == 1
        assert wire.is_closed()


def test_every_unit_id_shares_one_image(port: int) -> None:
    with Wire(port) as wire:
        for unit_id in (0, 1, 247, 255):
            wire.ask(b"\x06\x01\x00\x00" + bytes([unit_id]), unit_id)
            assert wire.ask("03 01 00 00 01", 17) == b"\x03\x02\x00" + bytes([unit_id])


def test_a_half_closed_client_gets_its_answers(port: int) -> None:
    with Wire(port) as wire:
        wire.send(encode_frame(1, 1, READ) + encode_frame(2, 1, READ))
        wire.sock.shutdown(socket.SHUT_WR)
        assert [wire.answer()[0], wire.answer()[0]] == [1, 2]
        assert wire.receive(1) == b""


def test_separate_units_have_separate_registers_and_maps(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text('[[unit]]\nids = [1, 2]\nholding_register = ["0-9", "100"]\n')
    with modbus_server(tmp_path, MAP=tmp_path / "map.toml") as (_, port), Wire(port) as wire:
        wire.ask("06 00 00 00 01", 1)
        wire.ask("06 00 00 00 02", 2)
        assert wire.ask("03 00 00 00 01", 1) == bytes.fromhex("03020001")
        assert wire.ask("03 00 00 00 01", 2) == bytes.fromhex("03020002")
        assert wire.ask("03 00 09 00 02", 1) == bytes.fromhex("8302")
        assert wire.ask("01 00 00 00 01", 1) == bytes.fromhex("8102")
        assert wire.ask("03 00 00 00 01", 3) == bytes.fromhex("830B")


def test_an_unknown_unit_can_be_met_with_silence(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text('[[unit]]\nids = [1]\nholding_register = "all"\n')
    with modbus_server(tmp_path, MAP=tmp_path / "map.toml", UNKNOWN_UNIT="silence") as (_, port), Wire(port) as wire:
        wire.send(encode_frame(1, 2, READ))
        assert wire.ask("03 00 00 00 01", 1) == bytes.fromhex("03020000")


def test_read_only(tmp_path: Path) -> None:
    with modbus_server(tmp_path, READ_ONLY="true") as (_, port), Wire(port) as wire:
        assert wire.ask("06 00 00 00 01") == bytes.fromhex("8601")
        assert wire.ask("03 00 00 00 01") == bytes.fromhex("03020000")


@pytest.mark.parametrize(
    ("allow", "served"), [("127.0.0.0/8", True), ("10.0.0.0/8,127.0.0.1", True), ("10.1.2.3", False)]
)
def test_the_allow_list(tmp_path: Path, allow: str, served: bool) -> None:
    with modbus_server(tmp_path, ALLOW=allow) as (process, port), Wire(port) as wire:
        if served:
            assert wire.ask("03 00 00 00 01") == bytes.fromhex("03020000")
        else:
            assert wire.is_closed()
            process.wait_output("not in the allow list")


def test_the_idle_are_closed_and_half_a_frame_is_idleness(tmp_path: Path) -> None:
    with (
        modbus_server(tmp_path, IDLE_TIMEOUT_S=2) as (_, port),
        Wire(port) as busy,
        Wire(port) as silent,
        Wire(port) as half,
    ):
        started = time.monotonic()
        while time.monotonic() - started < 4.5:
            busy.ask("03 00 00 00 01")
            try:
                half.send(b"\x00")  # a frame that never becomes whole
            except OSError:
                break
            time.sleep(0.2)
        assert silent.is_closed()
        assert half.is_closed()
        assert busy.ask("03 00 00 00 01") == bytes.fromhex("03020000")


def test_the_longest_idle_makes_room_for_a_newcomer(tmp_path: Path) -> None:
    with (
        modbus_server(tmp_path, MAX_CONNECTIONS=3) as (_, port),
        Wire(port) as first,
        Wire(port) as second,
        Wire(port) as mute,
    ):
        second.ask("03 00 00 00 01")
        first.ask("03 00 00 00 01")
        with Wire(port) as third, contextlib.ExitStack() as later:
            third.ask("03 00 00 00 01")
            assert mute.is_closed(), "the one that never asked goes first"
            fourth = later.enter_context(Wire(port))
            fourth.ask("03 00 00 00 01")
            assert second.is_closed(), "then the one that asked longest ago"
            first.ask("03 00 00 00 01")
            third.ask("03 00 00 00 01")


def test_a_client_that_never_reads_delays_nobody_and_fills_no_memory(tmp_path: Path) -> None:
    with modbus_server(tmp_path) as (process, port), Wire(port) as deaf, Wire(port) as other:
        before = process.resident_bytes
        flood = encode_frame(1, 1, bytes.fromhex("030000007D")) * 1000
        deaf.sock.settimeout(0.2)
        sent = 0
        try:
            while sent < 50_000_000:
                sent += deaf.sock.send(flood)
        except TimeoutError:
            pass
        assert sent < 50_000_000, "it is not read from while it does not read"
        for _ in range(100):
            started = time.monotonic()
            other.ask("03 00 00 00 01")
            assert time.monotonic() - started < 0.5
        assert process.resident_bytes - before < 5_000_000

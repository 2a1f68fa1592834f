"""`tagwire registers` against Modbus servers that we did not write."""

import asyncio
import json
import signal
import ssl
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pymodbus.server import ModbusTlsServer
from pymodbus.simulator import DataType, SimData, SimDevice
from pyModbusTCP.server import ModbusServer

from scada.errors import ConfigError
from scada.modbus.endpoint import Transport
from tagwire.__main__ import cli
from tests.support.certificates import Authority
from tests.support.modbus_peer import Peer
from tests.support.processes import clean_environment, free_port, start
from tests.support.serial_line import SerialLine


@pytest.fixture(scope="module")
def device() -> Iterator[ModbusServer]:
    server = ModbusServer("127.0.0.1", free_port(), no_block=True)
    server.start()
    yield server
    server.stop()


def run(device: ModbusServer, *arguments: str) -> Result:
    command, *rest = arguments
    return CliRunner().invoke(cli, ["registers", command, "--endpoint", f"127.0.0.1:{device.port}", *rest])


def test_read_shows_an_address_and_a_value_a_line(device: ModbusServer) -> None:
    device.data_bank.set_holding_registers(10, list(struct.unpack(">4H", struct.pack(">ff", 71.3, -1.5))))
    result = run(device, "read", "10", "--type", "float32", "--count", "2")
    assert result.output == "10 71.3\n12 -1.5\n"


@pytest.mark.parametrize("table", ["coil", "discrete_input"])
def test_read_bits(device: ModbusServer, table: str) -> None:
    device.data_bank.set_coils(3, [True, False])
    device.data_bank.set_discrete_inputs(3, [True, False])
    assert run(device, "read", "3", "--table", table, "--count", "2").output == "3 true\n4 false\n"


def test_write_in_an_order_and_read_back(device: ModbusServer) -> None:
    result = run(device, "write", "20", "305419896", "-1", "--type", "int32", "--order", "CDAB", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == [{"address": 20, "value": 305419896}, {"address": 22, "value": -1}]
    assert device.data_bank.get_holding_registers(20, 4) == [0x5678, 0x1234, 0xFFFF, 0xFFFF]


def test_write_coils_and_text(device: ModbusServer) -> None:
    assert run(device, "write", "5", "true", "0", "--table", "coil").output == "5 true\n6 false\n"
    assert run(device, "write", "30", "héllo", "--type", "string", "--length", "8").output == "30 héllo\n"


def test_bytes_that_are_no_value_are_shown_as_such(device: ModbusServer) -> None:
    device.data_bank.set_holding_registers(1, [0xFFFF, 0x0042])
    result = run(device, "read", "1", "--type", "bcd16", "--count", "2", "--json")
    rows = json.loads(result.output)
    assert "nibble" in rows[0]["error"]
    assert rows[1] == {"address": 2, "value": 42}


def test_a_refusal_of_the_device_is_exit_code_1(device: ModbusServer) -> None:
    # pyModbusTCP does not know function 22.
    result = run(device, "write", "3", "true", "--bit", "2")
    assert result.exit_code == 1
    assert "unit 1" in result.output


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("write", "1", "70000"), "VALUE"),
        (("write", "1", "warm"), "VALUE"),
        (("read", "1", "--count", "126"), "--count"),
        (("read", "65535", "--type", "float32"), "ADDRESS"),
        (("write", "1", "1", "--table", "input_register"), "--table"),
        (("read", "1", "--type", "string"), "length"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(
    device: ModbusServer, arguments: tuple[str, ...], field: str
) -> None:
    result = run(device, *arguments)
    assert isinstance(result.exception, ConfigError)
    assert field in {fault.field for fault in result.exception.faults}


@pytest.mark.parametrize("endpoint", ["localhost:", ":502", "host:0", "host:99999", "[::1]:x"])
def test_an_endpoint_that_cannot_be(endpoint: str) -> None:
    result = CliRunner().invoke(cli, ["registers", "read", "1", "--endpoint", endpoint])
    assert isinstance(result.exception, ConfigError)


def test_nobody_there_is_exit_code_1() -> None:
    result = CliRunner().invoke(cli, ["registers", "read", "1", "--endpoint", f"127.0.0.1:{free_port()}"])
    assert result.exit_code == 1
    assert "no connection" in result.output


def test_watch_prints_each_change_and_survives_the_device() -> None:
    device = ModbusServer("127.0.0.1", free_port(), no_block=True)
    device.start()
    endpoint = f"127.0.0.1:{device.port}"
    command = [sys.executable, "-m", "tagwire", "registers", "watch", "7", "--endpoint", endpoint, "--interval", "0.05"]
    with start(command, clean_environment()) as process:
        process.wait_output(" 7 0\n")
        device.data_bank.set_holding_registers(7, [21])
        process.wait_output(" 7 21\n")
        device.stop()
        process.wait_output("127.0.0.1")
        device.start()
        device.data_bank.set_holding_registers(7, [22])
        process.wait_output(" 7 22\n")
        process.signal(signal.SIGINT)
        assert process.wait() == 0
        assert process.output.count(" 7 21\n") <= 2
    device.stop()


def test_watch_stops_after_a_while(device: ModbusServer) -> None:
    command = ["--endpoint", f"127.0.0.1:{device.port}", "--for", "0.3", "--json"]
    with start([sys.executable, "-m", "tagwire", "registers", "watch", "7", *command]) as process:
        assert process.wait(20) == 0
        found = json.loads(process.output)
        assert (found["address"], found["value"]) == (7, 0)


async def run_beside(*arguments: str) -> Result:
    """The command in a thread of its own: the device lives in this test's loop."""
    return await asyncio.to_thread(CliRunner().invoke, cli, ["registers", *arguments])


async def check_a_value(where: Sequence[str], unit: str = "1") -> None:
    value = ("--type", "int32", "--order", "CDAB", "--unit", unit, *where)
    written = await run_beside("write", "20", "305419896", *value)
    assert (written.exit_code, written.output) == (0, "20 305419896\n"), written.output
    read = await run_beside("read", "20", *value)
    assert (read.exit_code, read.output) == (0, "20 305419896\n"), read.output


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.UDP, Transport.RTU_OVER_TCP])
async def test_a_device_on_every_transport_of_ip(transport: Transport) -> None:
    async with Peer(transport, units=(1, 7)) as peer:
        await check_a_value(("--transport", transport.value, "--endpoint", f"127.0.0.1:{peer.port}"), unit="7")
        assert [peer.register(address, 7) for address in (20, 21)] == [0x5678, 0x1234]


async def test_a_device_on_a_serial_line(tmp_path: Path) -> None:
    with SerialLine(tmp_path) as line:
        async with Peer(Transport.SERIAL, units=(1, 7), serial_port=line.far) as peer:
            # A pseudo terminal knows no parity.
            where = ("--transport", "serial", "--endpoint", line.near, "--baudrate", "115200", "--stopbits", "2")
            await check_a_value(where, unit="7")
            assert [peer.register(address, 7) for address in (20, 21)] == [0x5678, 0x1234]


async def test_a_device_behind_tls_that_wants_to_know_who_we_are(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("device"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.path)
    words = [SimData(0, values=[0] * 100, datatype=DataType.REGISTERS)]
    bits = [SimData(0, count=100, values=False, datatype=DataType.BITS)]
    port = free_port()
    server = ModbusTlsServer(
        [SimDevice(1, simdata=(bits, bits, words, words))], address=("127.0.0.1", port), sslctx=context
    )
    await server.serve_forever(background=True)
    try:
        certificate, key = authority.issue("operator")
        where = ("--transport", "tls", "--endpoint", f"localhost:{port}", "--tls-ca", str(authority.path))
        await check_a_value((*where, "--tls-cert", str(certificate), "--tls-key", str(key)))
        stranger = await run_beside("read", "20", *where)
        assert stranger.exit_code == 1
    finally:
        await server.shutdown()


@pytest.mark.parametrize(
    ("where", "options"),
    [
        (("--transport", "udp"), {"--endpoint"}),
        (("--transport", "serial"), {"--endpoint"}),
        (("--baudrate", "9600", "--parity", "E", "--endpoint", "h"), {"--baudrate", "--parity"}),
        (("--tls-ca", "x", "--stopbits", "1"), {"--tls-ca", "--stopbits"}),
        (("--transport", "tls", "--endpoint", "h", "--tls-cert", "x"), {"--tls-cert"}),
        (("--transport", "serial", "--endpoint", "/dev/x", "--baudrate", "1", "--bytesize", "9"), {"--baudrate", "--bytesize"}),
        (("--transport", "rtu_over_tcp", "--endpoint", "h", "--unit", "0"), {"--unit"}),
        (("--endpoint", "h:x"), {"--endpoint"}),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_named(where: tuple[str, ...], options: set[str]) -> None:
    result = CliRunner().invoke(cli, ["registers", "read", "1", *where])
    assert isinstance(result.exception, ConfigError), result.output
    assert {fault.field for fault in result.exception.faults} == options


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        (("--transport", "tls", "--endpoint", "h.example"), "tls h.example:802"),
        (("--endpoint", "[::1]"), "tcp [::1]:502"),
        (("--transport", "udp", "--endpoint", "[::1]:1502"), "udp [::1]:1502"),
        (
            ("--transport", "serial", "--endpoint", "/dev/none", "--parity", "E", "--bytesize", "7"),
            "serial /dev/none 9600 7E1",
        ),
    ],
)
def test_the_place_that_is_left_out_is_the_usual_one(where: tuple[str, ...], shown: str) -> None:
    result = CliRunner().invoke(cli, ["registers", "read", "1", "--timeout", "0.2", *where])
    assert result.exit_code == 1
    assert shown in result.output

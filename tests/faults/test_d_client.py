"""Rows D1-D6 of the fault table for the Modbus client: what a misbehaving device can do to a read and to a write.

Whatever the device does, nothing counts as read or written that it did not properly confirm, only the documented errors
come out, and the first request after the fault works.
"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scada.errors import DeviceRefused, LinkError, ProtocolError
from scada.modbus.limits import Table
from tests.support.fault_device import EXCEPTION_CODES, FaultDevice
from tests.support.modbus_operations import (
    OPERATIONS,
    TIMEOUT_S,
    UNIT,
    WRITES,
    Operation,
    carry_out,
    count_fds,
    make_client,
)

pytestmark = pytest.mark.usefixtures("nothing_escapes")
ROOT = Path(__file__).parents[2]

Errors = tuple[type[Exception], ...]
LATE: Errors = (LinkError,)
BROKEN: Errors = (ProtocolError,)
EITHER: Errors = (LinkError, ProtocolError)

CASES: list[tuple[str, str, float, Errors, list[Operation]]] = [
    ("tcp", "never", 0, LATE, OPERATIONS),
    ("tcp", "wrong_tid", 0, LATE, OPERATIONS),
    ("tcp", "zero_tid", 0, LATE, OPERATIONS),
    ("tcp", "wrong_unit", 0, BROKEN, OPERATIONS),
    ("tcp", "wrong_proto", 0, LATE, OPERATIONS),
    ("tcp", "wrong_fc", 0, BROKEN, OPERATIONS),
    ("tcp", "fewer_regs", 0, BROKEN, OPERATIONS),
    ("tcp", "bytecount_lies", 0, BROKEN, OPERATIONS),
    ("tcp", "wrong_echo_address", 0, BROKEN, WRITES),
    ("tcp", "wrong_echo_quantity", 0, BROKEN, WRITES),
    ("tcp", "wrong_echo_value", 0, BROKEN, WRITES),
    ("tcp", "trunc", 0, LATE, OPERATIONS),
    ("tcp", "trunc", 3, LATE, OPERATIONS),
    ("tcp", "trunc_stall", 0, LATE, OPERATIONS),
    ("tcp", "trunc_stall", 3, LATE, OPERATIONS),
    ("tcp", "trunc_stall", 7, LATE, OPERATIONS),
    ("tcp", "len_huge", 0, BROKEN, OPERATIONS),
    ("tcp", "garbage", 0, EITHER, OPERATIONS),
    ("tcp", "flood", 0, BROKEN, OPERATIONS),
    ("tcp", "slow", 200, LATE, OPERATIONS),
    ("tcp", "delay", 2 * TIMEOUT_S, LATE, OPERATIONS),
    ("tcp", "rst", 0, LATE, OPERATIONS),
    ("tcp", "fin", 0, LATE, OPERATIONS),
    ("udp", "never", 0, LATE, OPERATIONS),
    ("udp", "wrong_tid", 0, LATE, OPERATIONS),
    ("udp", "zero_tid", 0, LATE, OPERATIONS),
    ("udp", "wrong_unit", 0, BROKEN, OPERATIONS),
    ("udp", "wrong_proto", 0, LATE, OPERATIONS),
    ("udp", "wrong_fc", 0, BROKEN, OPERATIONS),
    ("udp", "fewer_regs", 0, BROKEN, OPERATIONS),
    ("udp", "bytecount_lies", 0, BROKEN, OPERATIONS),
    ("udp", "wrong_echo_address", 0, BROKEN, WRITES),
    ("udp", "trunc_stall", 0, BROKEN, OPERATIONS),
    ("udp", "len_huge", 0, BROKEN, OPERATIONS),
    ("udp", "garbage", 0, EITHER, OPERATIONS),
    ("udp", "slow", 30, EITHER, OPERATIONS),
    ("udp", "delay", 2 * TIMEOUT_S, LATE, OPERATIONS),
    ("rtu", "never", 0, LATE, OPERATIONS),
    ("rtu", "wrong_unit", 0, LATE, OPERATIONS),
    ("rtu", "wrong_fc", 0, BROKEN, OPERATIONS),
    ("rtu", "fewer_regs", 0, BROKEN, OPERATIONS),
    ("rtu", "bytecount_lies", 0, BROKEN, OPERATIONS),
    ("rtu", "wrong_echo_address", 0, BROKEN, WRITES),
    ("rtu", "wrong_echo_quantity", 0, BROKEN, WRITES),
    ("rtu", "wrong_echo_value", 0, BROKEN, WRITES),
    ("rtu", "trunc", 0, LATE, OPERATIONS),
    ("rtu", "trunc_stall", 0, LATE, OPERATIONS),
    ("rtu", "garbage", 0, EITHER, OPERATIONS),
    ("rtu", "slow", 200, LATE, OPERATIONS),
    ("rtu", "delay", 2 * TIMEOUT_S, LATE, OPERATIONS),
    ("rtu", "rst", 0, LATE, OPERATIONS),
    ("rtu", "fin", 0, LATE, OPERATIONS),
]


@pytest.mark.parametrize(
    ("framing", "mode", "argument", "errors", "operations"), CASES, ids=lambda v: v if isinstance(v, str) else None
)
async def test_never_a_success_and_the_next_request_works(
    framing: str, mode: str, argument: float, errors: Errors, operations: list[Operation]
) -> None:
    fds = count_fds()
    async with FaultDevice(framing=framing) as device:
        device.registers[10:13], device.bits[0] = [10, 11, 12], True
        clients = [make_client(device) for _ in operations]
        await asyncio.gather(*(client.connect() for client in clients))
        await device.set_mode(mode, argument)
        outcomes = await asyncio.gather(
            *(operation.ask(client) for operation, client in zip(operations, clients, strict=True)),
            return_exceptions=True,
        )
        for operation, client, outcome in zip(operations, clients, outcomes, strict=True):
            assert isinstance(outcome, errors), f"{operation.name}: {outcome!r}"
            assert f"{client.endpoint} unit {UNIT} " in str(outcome)
            assert not client.connected, operation.name
        await device.set_mode("good")
        for operation, client in zip(operations, clients, strict=True):
            await client.connect()
            await carry_out(operation, client, device)
            await client.close()
    assert abs(count_fds() - fds) <= 2


@pytest.mark.parametrize("framing", ["tcp", "udp"])
async def test_d2_a_stale_reply_is_discarded_and_the_right_one_taken(framing: str) -> None:
    async with FaultDevice("stale_then_good", framing=framing) as device:
        device.registers[10:13], device.bits[0] = [10, 11, 12], True
        async with make_client(device, timeout_s=5) as client:
            for operation in OPERATIONS:
                await carry_out(operation, client, device)


@pytest.mark.parametrize("framing", ["tcp", "udp", "rtu"])
async def test_d2_a_reply_sent_twice_never_answers_the_next_request(framing: str) -> None:
    async with FaultDevice("twice", framing=framing) as device, make_client(device, timeout_s=5) as client:
        for value in range(30):
            device.registers[7] = value
            assert await client.read_registers(UNIT, Table.HOLDING_REGISTER, 7, 1) == bytes((0, value))


async def test_d2_noise_between_two_requests_on_a_serial_line_is_passed_over() -> None:
    async with FaultDevice("chatter", framing="rtu") as device, make_client(device, timeout_s=5) as client:
        for operation in WRITES:
            await carry_out(operation, client, device)
            await asyncio.sleep(0.05)
        assert len(device.accepted_s) == 1


@pytest.mark.parametrize("framing", ["tcp", "udp"])
async def test_d2_a_new_connection_does_not_use_the_transaction_ids_of_the_last(framing: str) -> None:
    async with FaultDevice(framing=framing) as device:
        client = make_client(device, timeout_s=5)
        for _ in range(3):
            await client.connect()
            await carry_out(WRITES[0], client, device)
            await carry_out(WRITES[1], client, device)
            await client.close()
        assert [seen.transaction for seen in device.seen] == [1, 2, 3, 4, 5, 6]


async def test_d4_a_truncated_reply_costs_one_connection(device: FaultDevice) -> None:
    device.mode = "trunc_stall"
    async with make_client(device) as client:
        with pytest.raises(LinkError, match="bytes but no reply within"):
            await OPERATIONS[0].ask(client)
        with pytest.raises(LinkError, match="not connected"):
            await OPERATIONS[0].ask(client)
    assert len(device.accepted_s) == len(device.seen) == 1


@pytest.mark.parametrize("framing", ["tcp", "udp", "rtu"])
async def test_d5_exceptions_carry_their_code_and_keep_the_link(framing: str) -> None:
    async with FaultDevice("exc_cycle", framing=framing) as device, make_client(device, timeout_s=5) as client:
        for operation in OPERATIONS:
            device.seen.clear()
            for code in EXCEPTION_CODES:
                with pytest.raises(DeviceRefused) as refused:
                    await operation.ask(client)
                assert refused.value.code == code
                assert f"exception {code} (" in str(refused.value)
        assert client.connected
        await device.set_mode("good")
        await carry_out(WRITES[0], client, device)
        assert framing == "udp" or len(device.accepted_s) == 1


async def test_d6_a_slow_reply_has_one_deadline_for_the_whole(device: FaultDevice) -> None:
    await device.set_mode("slow", 200)  # each byte is well within the timeout, the whole takes 2.4 s
    async with make_client(device, timeout_s=0.6) as client:
        started = time.monotonic()
        with pytest.raises(LinkError, match=r"within 0\.6 s"):
            await client.write_registers(UNIT, 0, b"\0\1")
        assert 0.5 < time.monotonic() - started < 1.8


async def test_d6_a_slow_reply_within_the_deadline_is_taken(device: FaultDevice) -> None:
    await device.set_mode("slow", 10)
    async with make_client(device, timeout_s=5) as client:
        await carry_out(WRITES[0], client, device)


MEASURE = """
import asyncio, resource, sys, time
from links.modbus_client import ModbusClient
from scada.errors import TagwireError
from scada.modbus.endpoint import Endpoint
from scada.modbus.limits import Table

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

async def main(port, rounds):
    client = ModbusClient(Endpoint(host="127.0.0.1", port=port, timeout_s=0.5))
    failed = 0
    for n in range(rounds + 1):
        if n == 1:  # the first brings in what is loaded lazily
            before, cpu, clock = peak(), time.process_time(), time.monotonic()
        try:
            await client.connect()
            await client.read_registers(1, Table.HOLDING_REGISTER, 0, 100)
        except TagwireError:
            failed += n > 0
            if n == 0:
                await asyncio.sleep(0.1)
    share = (time.process_time() - cpu) / (time.monotonic() - clock)
    print(failed, peak() - before, round(share, 3))

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""


async def measure(device: FaultDevice, rounds: int) -> tuple[int, int, float]:
    """Failed requests of `rounds`, growth of the client process's peak memory in kB, its share of one CPU."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEASURE, str(device.port), str(rounds), cwd=ROOT, stdout=subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    failed, grown_kb, share = output.split()
    return int(failed), int(grown_kb), float(share)


async def test_d6_a_flood_does_not_fill_the_memory(device: FaultDevice) -> None:
    await device.set_mode("flood")
    failed, grown_kb, _ = await measure(device, 10)
    assert failed == 10
    assert grown_kb < 5_000


@pytest.mark.parametrize(("mode", "argument"), [("slow", 1), ("slow", 30), ("trunc_stall", 4), ("never", 0)])
async def test_d6_a_tedious_device_costs_no_cpu(device: FaultDevice, mode: str, argument: float) -> None:
    await device.set_mode(mode, argument)
    _, grown_kb, share = await measure(device, 3)
    assert grown_kb < 5_000
    assert share < 0.2

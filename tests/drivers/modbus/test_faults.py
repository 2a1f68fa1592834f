"""Rows D2 to D6 of the fault table, at the driver: never a value that the device did not send, and good again at once."""

import time

import pytest

from drivers.contract import Link, Point, Refusal
from drivers.modbus.driver import DRIVER
from scada.errors import DeviceRefused, LinkError, ProtocolError
from scada.modbus.endpoint import Transport
from scada.modbus.limits import Table
from scada.modbus.registers import RegisterType
from scada.protocols.modbus import ModbusAddress, ModbusNetwork, ModbusOptions
from tests.support.fault_device import EXCEPTION_CODES, FaultDevice

TIMEOUT_S = 0.25
TRANSPORT = {"tcp": Transport.TCP, "udp": Transport.UDP, "rtu": Transport.RTU_OVER_TCP}
HARMLESS = ("stale_then_good", "twice")
"""The right answer is among what comes."""
SOMETIMES = ("slow", "chatter")
"""Short answers are in time; noise spoils only what follows it."""

IN_FRAMES = ("wrong_fc", "fewer_regs", "bytecount_lies", "trunc_stall", "garbage", "exc_cycle")
CASES = [
    *(
        ("tcp", mode, 0)
        for mode in ("wrong_tid", "zero_tid", "wrong_unit", "wrong_proto", *HARMLESS, *SOMETIMES, *IN_FRAMES)
    ),
    *(("tcp", mode, 0) for mode in ("trunc", "len_huge", "flood", "rst", "fin", "never")),
    *(("tcp", "slow", milliseconds) for milliseconds in (30, 200)),
    *(
        ("udp", mode, 0)
        for mode in ("wrong_tid", "zero_tid", "wrong_unit", "wrong_proto", "stale_then_good", *IN_FRAMES)
    ),
    *(("rtu", mode, 0) for mode in ("wrong_unit", "trunc", *SOMETIMES, *IN_FRAMES)),
]


def points_of(network: ModbusNetwork) -> list[Point]:
    addresses = [
        *(ModbusAddress(at, 1, type=RegisterType.FLOAT32) for at in range(0, 20, 2)),
        ModbusAddress(30, 1, Table.INPUT_REGISTER),
        *(ModbusAddress(at, 1, Table.COIL, RegisterType.BOOL) for at in range(10)),
        ModbusAddress(3, 1, Table.DISCRETE_INPUT, RegisterType.BOOL),
    ]
    return [Point(i, f"t{i}", 1, network, address, ModbusOptions()) for i, address in enumerate(addresses)]


async def read_all(link: Link, wanted: list[Point]) -> list[list[object]]:
    """What each request gave; nothing for those that failed."""
    found: list[list[object]] = []
    for request in link.plan(wanted):
        try:
            if not link.connected:
                await link.connect()
            found.append(list(await link.read(request)))
        except (LinkError, ProtocolError, DeviceRefused):
            found.append([])
    return found


@pytest.mark.parametrize(("framing", "mode", "argument"), CASES)
async def test_a_wrong_answer_is_no_value_and_the_next_right_one_is(framing: str, mode: str, argument: int) -> None:
    async with FaultDevice(framing=framing) as device:
        device.registers[:31] = range(0x4100, 0x411F)
        network = ModbusNetwork(
            transport=TRANSPORT[framing], host="127.0.0.1", port=device.port, timeout_s=TIMEOUT_S, connect_timeout_s=1
        )
        link, wanted = DRIVER.open(network), points_of(network)
        try:
            good = await read_all(link, wanted)
            assert all(good)
            await device.set_mode(mode, argument)
            began = time.monotonic()
            wrong = await read_all(link, wanted)
            assert time.monotonic() - began < 4 * (2 * TIMEOUT_S + 1), "one deadline for a request, not for a byte"
            if mode in HARMLESS:
                assert wrong == good
            elif mode in SOMETIMES:
                assert all(each in ([], right) for each, right in zip(wrong, good, strict=True))
            else:
                assert wrong == [[]] * len(good)
            await device.set_mode("good")
            assert await read_all(link, wanted) == good, "good within one poll after the fault"
        finally:
            await link.close()


MEANINGS = {
    **dict.fromkeys((1, 2, 3), Refusal.CONFIG),
    **dict.fromkeys((4, 8, 0, 255), Refusal.DEVICE),
    **dict.fromkeys((5, 6), Refusal.BUSY),
    **dict.fromkeys((10, 11), Refusal.UNREACHABLE),
}


@pytest.mark.parametrize("code", EXCEPTION_CODES)
async def test_an_exception_is_told_by_its_code_and_divides_only_for_addresses(code: int) -> None:
    async with FaultDevice("exc", code) as device:
        network = ModbusNetwork(host="127.0.0.1", port=device.port, timeout_s=TIMEOUT_S)
        link = DRIVER.open(network)
        await link.connect()
        request = link.plan(points_of(network))[-1]
        with pytest.raises(DeviceRefused) as refused:
            await link.read(request)
        assert refused.value.code == code
        assert link.connected
        assert DRIVER.meaning(code) is MEANINGS[code]
        block = next(each for each in link.plan(points_of(network)) if len(each.points) == 10)
        instead = link.refused(block, code)
        assert (instead is not None) is (code in (2, 3))
        assert link.refused(request, code) is None, "one value alone is not divided"
        await link.close()

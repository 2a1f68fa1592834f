"""The Modbus driver against servers that we did not write: every table, every type, few requests, all of a write or nothing."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from pyModbusTCP.server import DataBank, ModbusServer

from drivers.contract import Link, Point
from drivers.modbus.driver import DRIVER
from scada.errors import ConfigError, DeviceRefused
from scada.modbus.limits import Table
from scada.modbus.registers import Order, RegisterType, codec
from scada.protocols.modbus import ModbusAddress, ModbusNetwork, ModbusOptions
from scada.values import BadValue, Value
from tests.support.fault_device import FaultDevice
from tests.support.processes import free_port

SIZE = 300
HOLDING = [index * 257 % 65536 for index in range(SIZE)]
INPUT = [65535 - index for index in range(SIZE)]
COILS = [index % 3 == 0 for index in range(SIZE)]
DISCRETE = [index % 7 < 3 for index in range(SIZE)]


def network(port: int, **more: Any) -> ModbusNetwork:
    return ModbusNetwork(host="127.0.0.1", port=port, timeout_s=2, **more)


def points(net: ModbusNetwork, *addresses: ModbusAddress) -> list[Point]:
    return [
        Point(index, f"t{index}", DRIVER.unit(address), net, address, ModbusOptions())
        for index, address in enumerate(addresses)
    ]


@contextlib.asynccontextmanager
async def link_to(net: ModbusNetwork) -> AsyncIterator[Link]:
    link = DRIVER.open(net)
    await link.connect()
    try:
        yield link
    finally:
        await link.close()


async def poll(link: Link, wanted: Sequence[Point]) -> dict[int, Value | BadValue | DeviceRefused]:
    """One cycle of reads as field_server does it, by binding."""
    found: dict[int, Value | BadValue | DeviceRefused] = {}
    queue = list(link.plan(wanted))
    while queue:
        request = queue.pop(0)
        try:
            values = await link.read(request)
        except DeviceRefused as error:
            instead = link.refused(request, error.code)
            queue += instead or ()
            values = [] if instead else [error] * len(request.points)  # type: ignore[list-item]
        found.update((point.binding_id, value) for point, value in zip(request.points, values, strict=False))
    return found


@contextlib.asynccontextmanager
async def pymodbus_server() -> AsyncIterator[int]:
    bits = [[SimData(0, values=values, datatype=DataType.BITS)] for values in (COILS, DISCRETE)]
    words = [[SimData(0, values=values, datatype=DataType.REGISTERS)] for values in (HOLDING, INPUT)]
    port = free_port()
    server = ModbusTcpServer([SimDevice(1, simdata=(*bits, *words))], address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    try:
        yield port
    finally:
        await server.shutdown()


@contextlib.asynccontextmanager
async def pymodbustcp_server() -> AsyncIterator[int]:
    bank = DataBank(coils_size=SIZE, d_inputs_size=SIZE, h_regs_size=SIZE, i_regs_size=SIZE)
    bank.set_coils(0, COILS)
    bank.set_discrete_inputs(0, DISCRETE)
    bank.set_holding_registers(0, HOLDING)
    bank.set_input_registers(0, INPUT)
    server = ModbusServer("127.0.0.1", free_port(), no_block=True, data_bank=bank)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


SERVERS = {"pymodbus": pymodbus_server, "pyModbusTCP": pymodbustcp_server}


@pytest.fixture(params=list(SERVERS))
async def port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    async with SERVERS[request.param]() as port:
        yield port


def expected(address: ModbusAddress) -> Value | None:
    """What the servers hold there, by the codec of each value; None for bytes that are no value."""
    if address.table.is_bits:
        return (COILS if address.table is Table.COIL else DISCRETE)[address.register]
    form = codec(address.type, address.order, length=address.length, bit=address.bit)
    held = HOLDING if address.table is Table.HOLDING_REGISTER else INPUT
    with contextlib.suppress(BadValue):
        return form.decode(struct.pack(f">{form.registers}H", *held[address.register :][: form.registers]))
    return None


def every_kind() -> list[ModbusAddress]:
    found = [
        ModbusAddress(at, None, table, RegisterType.BOOL) for table in Table if table.is_bits for at in range(SIZE)
    ]
    for table in (Table.HOLDING_REGISTER, Table.INPUT_REGISTER):
        found += [ModbusAddress(5, 1, table, RegisterType.BOOL, bit=bit) for bit in range(16)]
        for kind in RegisterType:
            length = 7 if kind is RegisterType.STRING else None
            for order in Order:
                width = codec(kind, order, length=length).registers
                found += [ModbusAddress(at, 1, table, kind, order, length=length) for at in range(0, SIZE - width, 7)]
    return found


async def test_every_table_and_type_in_few_requests(port: int) -> None:
    net, addresses = network(port), every_kind()
    async with link_to(net) as link:
        wanted = points(net, *addresses)
        assert len(link.plan(wanted)) <= 2 + 2 * 4
        found = await poll(link, wanted)
    for index, address in enumerate(addresses):
        value, held = found[index], expected(address)
        assert isinstance(value, BadValue) if held is None else (type(value), value) == (type(held), held), address


async def test_what_the_device_does_not_have_is_bad_and_the_rest_is_read(port: int) -> None:
    # Registers 0..299 are there; the value in 299-300 is not, and a block that reaches beyond is refused as a whole.
    net = network(port)
    wanted = points(net, *(ModbusAddress(at, 1, type=RegisterType.UINT32) for at in range(201, 320, 2)))
    async with link_to(net) as link:
        for _ in range(2):
            found = await poll(link, wanted)
            for point in wanted:
                value = found[point.binding_id]
                if point.address.register + 2 > SIZE:
                    assert isinstance(value, DeviceRefused)
                    assert value.code == 2
                else:
                    assert value == expected(point.address)
        assert "unit 1 holding_register 299-300: refused as a whole, so not read in one request" in link.learned
        first = link.plan(wanted)[0]
        assert (first.text, len(first.points)) == ("unit 1 holding_register 201-298", 49)


async def test_an_illegal_address_that_nobody_reads_is_left_out_from_then_on() -> None:
    async with FaultDevice() as device:
        device.illegal = {50}
        net = network(device.port)
        wanted = points(net, *(ModbusAddress(at, 1) for at in range(0, 100, 3) if at != 50))
        async with link_to(net) as link:
            for _ in range(2):
                assert list((await poll(link, wanted)).values()) == [0] * len(wanted)
            first = len(device.seen)
            assert list((await poll(link, wanted)).values()) == [0] * len(wanted)
            assert len(device.seen) - first == 2
            assert [text for text in link.learned if "not read" in text] == [
                "unit 1 holding_register 48-51: refused as a whole, so not read in one request"
            ]


async def test_limits_of_a_device_are_kept() -> None:
    async with FaultDevice() as device:
        net = network(device.port, max_read_registers=10, max_read_bits=16, max_gap=0)
        registers = [ModbusAddress(at, 1, type=RegisterType.FLOAT32) for at in range(0, 50, 2)]
        coils = [ModbusAddress(at, 1, Table.COIL, RegisterType.BOOL) for at in (*range(20), 25)]
        async with link_to(net) as link:
            await poll(link, points(net, *registers, *coils))
        sizes = [(seen.pdu[0], int.from_bytes(seen.pdu[3:5], "big")) for seen in device.seen]
        assert [size for function, size in sizes if function == 3] == [10] * 5
        bits = [size for function, size in sizes if function == 1]
        assert len(bits) == 3
        assert max(bits) <= 16
        assert sum(bits) == 21


async def test_devices_on_one_link_keep_their_own_limits() -> None:
    small, large = network(1, max_read_registers=10), network(1)
    link = DRIVER.open(large)
    addresses = [ModbusAddress(at, 1) for at in range(40)]
    requests = link.plan([*points(small, *addresses), *points(large, *addresses)])
    assert sorted(len(request.points) for request in requests) == [10, 10, 10, 10, 40]


async def test_contiguous_values_are_written_in_one_request(port: int) -> None:
    net = network(port)
    kinds = (RegisterType.FLOAT32, RegisterType.INT16, RegisterType.INT64)
    registers = points(net, *(ModbusAddress(at, 1, type=k) for at, k in zip((10, 12, 13), kinds, strict=True)))
    coils = points(net, *(ModbusAddress(at, 1, Table.COIL, RegisterType.BOOL) for at in (21, 20, 22)))
    async with link_to(net) as link:
        for wanted, values in ((registers, (-2.5, -7, 2**40)), (coils, (True, False, True))):
            link.can_write(wanted)
            await link.write(list(zip(wanted, values, strict=True)))
            assert list((await poll(link, wanted)).values()) == [
                value for _, value in sorted(zip([p.address.register for p in wanted], values, strict=True))
            ]


@pytest.mark.parametrize("without", [set(), {22}])
async def test_bits_of_a_register_change_no_other_bit(without: set[int]) -> None:
    async with FaultDevice() as device:
        device.missing = without
        device.registers[7] = 0b1010_1010
        net = network(device.port)
        bits = points(net, *(ModbusAddress(7, 1, type=RegisterType.BOOL, bit=bit) for bit in range(4)))
        async with link_to(net) as link:
            await link.write(list(zip(bits, (True, False, True, False), strict=True)))
            assert device.registers[7] == 0b1010_0101
            functions = [seen.pdu[0] for seen in device.seen]
            assert functions == ([22, 3, 6] if without else [22])
            assert any("function 22" in text for text in link.learned) is bool(without)
            # Two who change bits at once: neither undoes the other.
            await asyncio.gather(link.write([(bits[1], True)]), link.write([(bits[3], True)]))
            assert device.registers[7] == 0b1010_1111


WRONG_WRITES = {
    "a gap": (ModbusAddress(1, 1), ModbusAddress(3, 1)),
    "one twice": (ModbusAddress(1, 1), ModbusAddress(1, 1)),
    "two units": (ModbusAddress(1, 1), ModbusAddress(2, 2)),
    "two tables": (ModbusAddress(1, 1), ModbusAddress(2, 1, Table.COIL)),
    "a bit and a register": (ModbusAddress(1, 1, type=RegisterType.BOOL, bit=0), ModbusAddress(2, 1)),
    "bits of two registers": tuple(ModbusAddress(at, 1, type=RegisterType.BOOL, bit=0) for at in (1, 2)),
    "more than the device takes": tuple(ModbusAddress(at, 1) for at in range(5)),
    "one that is wider than the device takes": (ModbusAddress(1, 1, type=RegisterType.STRING, length=10),),
    "an input": (ModbusAddress(1, 1, Table.INPUT_REGISTER),),
}


@pytest.mark.parametrize("what", WRONG_WRITES)
async def test_what_is_not_one_request_is_no_write_at_all(what: str) -> None:
    async with FaultDevice() as device:
        net = network(device.port, max_write_registers=4)
        wanted = points(net, *WRONG_WRITES[what])
        async with link_to(net) as link:
            with pytest.raises(ConfigError, match="t0"):
                link.can_write(wanted)
            with pytest.raises(ConfigError, match="t0"):
                await link.write([(p, "x" if p.address.type is RegisterType.STRING else 1) for p in wanted])
        assert device.seen == []


async def test_one_value_that_does_not_fit_stops_all() -> None:
    async with FaultDevice() as device:
        net = network(device.port)
        wanted = points(net, ModbusAddress(1, 1), ModbusAddress(2, 1))
        async with link_to(net) as link:
            with pytest.raises(BadValue):
                await link.write([(wanted[0], 1), (wanted[1], 70_000)])
        assert device.seen == []


async def test_a_plan_follows_what_reads_were_seen_to_cost() -> None:
    async with FaultDevice() as device:
        net = network(device.port)
        near = points(net, *(ModbusAddress(at, 1) for at in (0, 90)))
        async with link_to(net) as link:
            assert len(link.plan(near)) == 1
            requests = [link.plan(points(net, ModbusAddress(0, 1), ModbusAddress(n, 1)))[0] for n in range(2, 90, 7)]
            answer = device.execute

            def by_the_register(pdu: bytes) -> bytes:
                end = asyncio.get_running_loop().time() + 1e-4 * int.from_bytes(pdu[3:5], "big")
                while asyncio.get_running_loop().time() < end:  # a slow device, busy with each register
                    pass
                return answer(pdu)

            device.execute = by_the_register  # type: ignore[method-assign]  # of this one alone
            for _ in range(6):
                for request in requests:
                    await link.read(request)
            assert any(text.startswith("a request costs as much as reading") for text in link.learned)
            assert len(link.plan(near)) == 2


def test_devices_share_a_link_by_where_they_are_and_who_we_are() -> None:
    def key(**more: Any) -> object:
        return DRIVER.key(ModbusNetwork(**more))

    assert key(host="PLC1") == key(host="plc1", timeout_s=5.0, port=502)
    assert key(host="plc1", transport="tls") != key(host="plc1", transport="tls", tls_cert="a", tls_key="b")
    assert key(host="plc1") != key(host="plc1", port=503)

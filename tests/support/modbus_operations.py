"""Everything that our Modbus client can be asked for, to be tried on a device that misbehaves."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from links.modbus_client import ModbusClient
from scada.modbus.endpoint import Endpoint, Transport
from scada.modbus.limits import Table
from tests.support.fault_device import FaultDevice

UNIT = 9
TIMEOUT_S = 0.5
TRANSPORT = {"tcp": Transport.TCP, "udp": Transport.UDP, "rtu": Transport.RTU_OVER_TCP}


@dataclass(frozen=True, slots=True)
class Operation:
    """A request, what it returns, and what the device's store tells when it was carried out."""

    name: str
    ask: Callable[[ModbusClient], Awaitable[Any]]
    result: Any = None
    done: Callable[[FaultDevice], bool] = lambda device: True

    @property
    def is_write(self) -> bool:
        """Whether it changes something."""
        return self.result is None


# Each has addresses of its own, so that all can go against one device at the same time.
OPERATIONS = [
    Operation("holding", lambda c: c.read_registers(UNIT, Table.HOLDING_REGISTER, 10, 3), b"\0\x0a\0\x0b\0\x0c"),
    Operation("input", lambda c: c.read_registers(UNIT, Table.INPUT_REGISTER, 11, 1), b"\0\x0b"),
    Operation("coils", lambda c: c.read_bits(UNIT, Table.COIL, 0, 11), [True] + [False] * 10),
    Operation("inputs", lambda c: c.read_bits(UNIT, Table.DISCRETE_INPUT, 1, 20), [False] * 20),
    Operation(
        "write many",
        lambda c: c.write_registers(UNIT, 100, b"\0\1\0\2\0\3"),
        done=lambda d: d.registers[100:103] == [1, 2, 3],
    ),
    Operation(
        "write one", lambda c: c.write_registers(UNIT, 200, b"\x12\x34"), done=lambda d: d.registers[200] == 0x1234
    ),
    Operation("write coils", lambda c: c.write_coils(UNIT, 300, [True] * 9), done=lambda d: all(d.bits[300:309])),
    Operation("write coil", lambda c: c.write_coils(UNIT, 400, [True]), done=lambda d: d.bits[400]),
    Operation("mask", lambda c: c.mask_write(UNIT, 500, 0xFF00, 0x00AB), done=lambda d: d.registers[500] == 0xAB),
]
READS = [operation for operation in OPERATIONS if not operation.is_write]
WRITES = [operation for operation in OPERATIONS if operation.is_write]


def make_client(device: FaultDevice, timeout_s: float = TIMEOUT_S) -> ModbusClient:
    """A client of the device, in its framing, not connected."""
    return ModbusClient(Endpoint(TRANSPORT[device.framing], "127.0.0.1", device.port, timeout_s=timeout_s))


def count_fds() -> int:
    """How many files and sockets this process has open."""
    return len(os.listdir("/proc/self/fd"))


async def carry_out(operation: Operation, client: ModbusClient, device: FaultDevice) -> None:
    """Ask for it; it must do what it says."""
    assert await operation.ask(client) == operation.result
    assert operation.done(device)

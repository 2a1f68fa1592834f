"""Reading and writing registers of a device once, over a connection of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from scada.errors import ConfigError, Fault, LinkError
from scada.modbus.endpoint import Endpoint
from scada.modbus.limits import (
    MAX_READ_BITS,
    MAX_READ_REGISTERS,
    MAX_WRITE_BITS,
    MAX_WRITE_REGISTERS,
    TABLE_SIZE,
)
from scada.modbus.registers import Codec, RegisterType, bit_masks, codec
from scada.protocols.modbus import ModbusAddress
from scada.schema import parse, plain
from scada.values import BadValue, Value

if TYPE_CHECKING:
    from links.modbus_client import ModbusClient

# A device may be allowed a minute for an answer; somebody waits for this one.
TIMEOUT_S = 10.0
# Each holds one of the server's threads; one fewer than there are for those who ask devices: so others are told at once.
MAX_AT_ONCE = 3
EXTENSION = "tagwire_prober"
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Range:
    """`count` values from an address on."""

    address: ModbusAddress
    count: int

    @property
    def unit_id(self) -> int:
        """The unit; 1 unless given."""
        return 1 if self.address.unit_id is None else self.address.unit_id

    @property
    def codec(self) -> Codec:
        """How one value is coded."""
        return codec(self.address.type, self.address.order, length=self.address.length, bit=self.address.bit)

    @property
    def size(self) -> int:
        """Registers, or bits, in all."""
        return self.count * (1 if self.address.table.is_bits else self.codec.registers)

    def document(self) -> dict[str, Any]:
        """The range as the API shows it."""
        result = {**plain(self.address), "unit_id": self.unit_id, "count": self.count}
        # A coil holds one bit, whatever an address that names no type is given as a default.
        return {**result, "type": RegisterType.BOOL} if self.address.table.is_bits else result


def read_range(address: Mapping[str, Any], count: int) -> Range:
    """What shall be read; ConfigError when no single request can."""
    result = _range(address, count)
    limit = MAX_READ_BITS if result.address.table.is_bits else MAX_READ_REGISTERS
    _check(result, limit, "count")
    return result


def write_range(address: Mapping[str, Any], values: Sequence[Any]) -> Range:
    """Where values shall be written; ConfigError when the table is read-only, one request cannot, or a value does not fit."""
    result = _range(address, len(values))
    if not result.address.table.is_writable:
        raise ConfigError([Fault("table", f"no {result.address.table} can be written")])
    if result.address.bit is not None and len(values) > 1:
        raise ConfigError([Fault("values", "one bit of a register takes one value")])
    _check(result, MAX_WRITE_BITS if result.address.table.is_bits else MAX_WRITE_REGISTERS, "values")
    _encoded(result, values)
    return result


async def read(endpoint: Endpoint, wanted: Range) -> dict[str, Any]:
    """The raw registers (or bits) and the values they mean; null for a pattern that is no value of the type."""
    address = wanted.address
    async with _client(endpoint) as client:
        if address.table.is_bits:
            bits = await client.read_bits(wanted.unit_id, address.table, address.register, wanted.size)
            return {"registers": [int(bit) for bit in bits], "values": bits}
        data = await client.read_registers(wanted.unit_id, address.table, address.register, wanted.size)
    return {"registers": _words(data), "values": _decoded(wanted.codec, data)}


async def write(endpoint: Endpoint, wanted: Range, values: Sequence[Any]) -> dict[str, Any]:
    """Write values in one request; what was sent."""
    address = wanted.address
    data = _encoded(wanted, values)
    async with _client(endpoint) as client:
        if address.table.is_bits:
            await client.write_coils(wanted.unit_id, address.register, [bool(each) for each in values])
            return {"registers": [int(bool(each)) for each in values], "values": list(values)}
        if address.bit is not None:
            await client.mask_write(wanted.unit_id, address.register, *bit_masks(address.bit, bool(values[0])))
        else:
            await client.write_registers(wanted.unit_id, address.register, data)
    return {"registers": _words(data), "values": list(values)}


class Prober:
    """Asks devices, a few at a time."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(MAX_AT_ONCE)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do it now, in this thread; LinkError when it takes too long or too many others do the same."""
        if not self._slots.acquire(blocking=False):
            work.close()
            raise LinkError(f"{MAX_AT_ONCE} devices are being asked already; try again")
        try:
            return asyncio.run(_in_time(work))
        finally:
            self._slots.release()


def _client(endpoint: Endpoint) -> "ModbusClient":
    # Imported when a device is first asked: the Modbus library costs a tenth of a second at every start.
    from links.modbus_client import ModbusClient

    return ModbusClient(endpoint)


async def _in_time(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await work
    except TimeoutError as exc:
        raise LinkError(f"the device took longer than {TIMEOUT_S:g} s") from exc


def _range(address: Mapping[str, Any], count: int) -> Range:
    return Range(parse(ModbusAddress, address), count)


def _check(wanted: Range, limit: int, field: str) -> None:
    if wanted.size > limit:
        raise ConfigError([Fault(field, f"{wanted.size} do not fit into one request, {limit} do")])
    if wanted.address.register + wanted.size > TABLE_SIZE:
        raise ConfigError([Fault("register", f"{wanted.size} from {wanted.address.register} go past {TABLE_SIZE - 1}")])


def _encoded(wanted: Range, values: Sequence[Value]) -> bytes:
    faults, parts = [], []
    coder = codec(RegisterType.BOOL) if wanted.address.table.is_bits else wanted.codec
    for index, value in enumerate(values):
        try:
            parts.append(coder.encode(value))
        except BadValue as error:
            faults.append(Fault(f"values.{index}", str(error)))
    if faults:
        raise ConfigError(faults)
    return b"".join(parts)


def _decoded(coder: Codec, data: bytes) -> list[Value | None]:
    size = coder.registers * 2
    result: list[Value | None] = []
    for start in range(0, len(data), size):
        try:
            result.append(coder.decode(data[start : start + size]))
        except BadValue:
            result.append(None)
    return result


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[start : start + 2], "big") for start in range(0, len(data), 2)]

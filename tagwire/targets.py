"""Values at a Modbus endpoint, as an operator names them: where, how many, of which type; read, written, shown."""

import json
import struct
from dataclasses import dataclass

from links.modbus_client import ModbusClient
from scada.errors import ConfigError, Fault
from scada.modbus.endpoint import Endpoint
from scada.modbus.limits import (
    MAX_ADDRESS,
    MAX_READ_BITS,
    MAX_READ_REGISTERS,
    MAX_WRITE_BITS,
    MAX_WRITE_REGISTERS,
    TABLE_SIZE,
    Table,
)
from scada.modbus.registers import Codec, Order, RegisterType, bit_masks, codec
from scada.values import BadValue, Value


@dataclass(frozen=True, slots=True)
class Target:
    """Where values stand: `count` of them from `address` on. `form` is None in a table of bits."""

    endpoint: Endpoint
    unit_id: int
    table: Table
    address: int
    count: int
    form: Codec | None
    bit: int | None = None

    @property
    def width(self) -> int:
        """Addresses that one value takes."""
        return self.form.registers if self.form else 1

    def address_of(self, index: int) -> int:
        """The address of the value `index`."""
        return self.address + index * self.width


def make_target(
    endpoint: Endpoint,
    unit_id: int,
    table: Table,
    address: int,
    count: int,
    kind: RegisterType,
    order: Order,
    length: int | None,
    bit: int | None,
    *,
    writing: bool = False,
) -> Target:
    """Check what the options say together. Raises ConfigError."""
    form = None if table.is_bits else codec(kind, order, length=length, bit=bit)
    target = Target(endpoint, unit_id, table, address, count, form, bit)
    size = count * target.width
    if table.is_bits:
        limit = MAX_WRITE_BITS if writing else MAX_READ_BITS
    else:
        limit = MAX_WRITE_REGISTERS if writing else MAX_READ_REGISTERS
    faults = []
    if size > limit:
        faults.append(Fault("--count", f"{size} addresses in one request, the most is {limit}"))
    if address + size > TABLE_SIZE:
        faults.append(Fault("ADDRESS", f"{address} with {size} addresses goes past {MAX_ADDRESS}"))
    if writing and not table.is_writable:
        faults.append(Fault("--table", f"{table} cannot be written, only coil and holding_register"))
    if faults:
        raise ConfigError(faults)
    return target


async def read_values(client: ModbusClient, target: Target) -> list[Value | BadValue]:
    """Read the values; bytes that are no value of the type come as BadValue in their place."""
    if target.form is None:
        bits = await client.read_bits(target.unit_id, target.table, target.address, target.count)
        return list(bits)
    size = 2 * target.width
    data = await client.read_registers(target.unit_id, target.table, target.address, target.count * target.width)
    return [_decoded(target.form, data[start : start + size]) for start in range(0, len(data), size)]


async def write_values(client: ModbusClient, target: Target, values: list[Value]) -> None:
    """Write the values in one request. Raises BadValue for one that does not fit, before anything is written."""
    if target.form is None:
        encode = codec(RegisterType.BOOL).encode
        bits = [encode(value) != b"\0\0" for value in values]
        await client.write_coils(target.unit_id, target.address, bits)
    elif target.bit is not None:
        for index, value in enumerate(values):
            wanted = target.form.encode(value) != b"\0\0"
            await client.mask_write(target.unit_id, target.address_of(index), *bit_masks(target.bit, wanted))
    else:
        data = b"".join(map(target.form.encode, values))
        await client.write_registers(target.unit_id, target.address, data)


def parse_value(text: str, target: Target) -> Value:
    """The value that an operator typed: JSON, or text as it is for the type string."""
    if target.form is not None and target.form.type is RegisterType.STRING:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, bool | int | float):
        raise ConfigError([Fault("VALUE", f"{text!r} is not a number, true or false")])
    return value


def _decoded(form: Codec, data: bytes) -> Value | BadValue:
    try:
        value = form.decode(data)
    except BadValue as exc:
        return exc
    return _shortest(value) if form.type is RegisterType.FLOAT32 and isinstance(value, float) else value


def _shortest(value: float) -> float:
    """The number with the fewest digits that is the same float32: 71.3 where Python's float64 says 71.30000305175781."""
    wanted = struct.pack(">f", value)
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        try:
            if struct.pack(">f", short) == wanted:
                return short
        except OverflowError:
            continue  # rounded up, past the largest float32
    return float(f"{value:.9g}")


def shown(value: Value | BadValue) -> str:
    """A value as an operator reads it."""
    if isinstance(value, BadValue):
        return f"({value})"
    return value if isinstance(value, str) else json.dumps(value)


def as_json(target: Target, values: list[Value | BadValue]) -> str:
    """The values as one line of JSON: `[{"address", "value"}]`, with "error" where there is no value."""
    rows = [
        {"address": target.address_of(index), "error": str(value)}
        if isinstance(value, BadValue)
        else {"address": target.address_of(index), "value": value}
        for index, value in enumerate(values)
    ]
    return json.dumps(rows, ensure_ascii=False)

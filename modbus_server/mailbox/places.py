"""Where in the server's tables a value stands, and how its bytes are read and written there."""

from dataclasses import dataclass

from scada.modbus.image import Image
from scada.modbus.limits import Table
from scada.modbus.registers import Codec, bit_masks, codec
from scada.protocols.modbus import ModbusAddress
from scada.values import BadValue, Value

DEFAULT_UNIT_ID = 1
"""The unit that is meant where none is named."""


@dataclass(frozen=True, slots=True)
class Place:
    """`count` addresses of a table from `first`; `bit` where it is one bit of a register, `codec` None in a table of bits."""

    unit_id: int
    table: Table
    first: int
    count: int
    bit: int | None
    codec: Codec | None

    def __str__(self) -> str:
        last = f"-{self.end - 1}" if self.count > 1 else ""
        bit = "" if self.bit is None else f" bit {self.bit}"
        return f"unit {self.unit_id} {self.table} {self.first}{last}{bit}"

    @property
    def end(self) -> int:
        """The address behind the last one."""
        return self.first + self.count

    def read(self, image: Image) -> Value | BadValue:
        """The raw value; BadValue for bytes that are none."""
        if self.codec is None:
            return image.read_bits(self.table, self.first, 1) != b"\x00"
        try:
            return self.codec.decode(image.read_registers(self.table, self.first, self.count))
        except BadValue as error:
            return error

    def write(self, image: Image, data: bytes) -> None:
        """Put encoded bytes there: registers, or one byte, 0 or 1, in a table of bits. Other bits of the register stay."""
        if self.codec is None:
            image.write_bits(self.table, self.first, 1, data)
            return
        if self.bit is not None:
            others, _ = bit_masks(self.bit, False)
            old = int.from_bytes(image.read_registers(self.table, self.first, 1), "big")
            new = old & others | int.from_bytes(data, "big") & ~others
            data = new.to_bytes(2, "big")
        image.write_registers(self.table, self.first, data)


def place_of_address(address: ModbusAddress) -> Place:
    """The place that an address names; raises ConfigError for a type that is not in order."""
    unit_id = DEFAULT_UNIT_ID if address.unit_id is None else address.unit_id
    if address.table.is_bits:
        return Place(unit_id, address.table, address.register, 1, None, None)
    coding = codec(address.type, address.order, length=address.length, bit=address.bit)
    return Place(unit_id, address.table, address.register, coding.registers, address.bit, coding)

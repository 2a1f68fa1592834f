"""An image as clients see it where some of its registers are tags: writes are told, some reads and writes are refused."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from modbus_server.mailbox.layout import Index, UnitLayout
from modbus_server.mailbox.plans import BoundTag
from scada.modbus.image import Image
from scada.modbus.limits import TABLE_SIZE, Table
from scada.modbus.pdu import ExceptionCode, refuse

Written = Callable[[Sequence[BoundTag], int, int], None]


class BoundImage(Image):
    """The memory of `image`. The server itself reads and writes `image`, past these checks.

    `hidden` are the guarded items whose reads are refused just now. `written` is told which tags a client's request wrote, and
    its address and count, when the bytes are there; it must not raise.
    """

    __slots__ = ("_hidden", "_layout", "_on_read", "_on_write", "_written")

    def __init__(
        self,
        image: Image,
        layout: UnitLayout,
        hidden: AbstractSet[object],
        written: Written,
    ) -> None:
        super().__init__(image.memory, image.unit_map, image.offset)
        self._layout = layout
        self._hidden = hidden
        self._written = written
        # A byte for each address, 1 where there is something to do: most requests go past everything else in one step.
        self._on_read = _flags(layout.guarded)
        self._on_write = _flags(layout.read_only, layout.written)

    def has_effects(self, table: Table, address: int, count: int, *, writing: bool) -> bool:
        """Whether there is a tag among these addresses for which a request is more than a slice."""
        flags = self._on_write if writing else self._on_read
        return flags[table].find(1, address, address + count) >= 0

    def read_registers(self, table: Table, address: int, count: int) -> bytes:
        """As of Image; DeviceRefused (code 0B) where a guarded tag is not good."""
        data = super().read_registers(table, address, count)
        if self._on_read[table].find(1, address, address + count) >= 0:
            self._check_read(table, address, count)
        return data

    def read_bits(self, table: Table, address: int, count: int) -> bytes:
        """As of Image; DeviceRefused (code 0B) where a guarded tag is not good."""
        data = super().read_bits(table, address, count)
        if self._on_read[table].find(1, address, address + count) >= 0:
            self._check_read(table, address, count)
        return data

    def write_registers(self, table: Table, address: int, data: bytes) -> None:
        """As of Image; DeviceRefused (code 2) where the registers are not for clients to write."""
        count = len(data) // 2
        if self._on_write[table].find(1, address, address + count) < 0:
            super().write_registers(table, address, data)
            return
        self._check_write(table, address, count)
        super().write_registers(table, address, data)
        self._tell(table, address, count)

    def write_bits(self, table: Table, address: int, count: int, data: bytes) -> None:
        """As of Image; DeviceRefused (code 2) where the bits are not for clients to write."""
        if self._on_write[table].find(1, address, address + count) < 0:
            super().write_bits(table, address, count, data)
            return
        self._check_write(table, address, count)
        super().write_bits(table, address, count, data)
        self._tell(table, address, count)

    def _check_read(self, table: Table, address: int, count: int) -> None:
        if not self._hidden.isdisjoint(self._layout.guarded[table].find(address, count)):
            # APS 7: the target of a gateway did not respond, which is what became of the tag's source.
            raise refuse(ExceptionCode.GATEWAY_TARGET_FAILED_TO_RESPOND, f"{table} {address}: a tag is not good")

    def _check_write(self, table: Table, address: int, count: int) -> None:
        index = self._layout.read_only.get(table)
        if index is not None and index.find(address, count):
            # APS 7: no allowable address for the server, together with this function.
            raise refuse(
                ExceptionCode.ILLEGAL_DATA_ADDRESS, f"{table} {address}: shows a tag, not for clients to write"
            )

    def _tell(self, table: Table, address: int, count: int) -> None:
        index = self._layout.written.get(table)
        if index is not None and (tags := index.find(address, count)):
            self._written(tags, address, count)


def _flags(*kinds: Mapping[Table, Index[Any]]) -> dict[Table, bytes]:
    result = {}
    for table in Table:
        flags = bytearray()
        for indexes in kinds:
            if table in indexes:
                flags = flags or bytearray(TABLE_SIZE)
                indexes[table].mark(flags)
        result[table] = bytes(flags)
    return result

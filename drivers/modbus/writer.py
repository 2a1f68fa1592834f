"""Carries write requests to one Modbus endpoint, and learns which functions its units have."""

from links.modbus_client import ModbusClient
from scada.errors import DeviceRefused
from scada.modbus.endpoint import Endpoint
from scada.modbus.limits import Table
from scada.modbus.writes import Cell, WriteRequest

ILLEGAL_FUNCTION = 1  # MODBUS Application Protocol V1.1b3, section 7


class ModbusWriter:
    """One link to one endpoint; the caller sends one request at a time and owns reconnecting."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.client = ModbusClient(endpoint)
        # Units that answered exception 1 to a function; the other way of writing the same thing is used from then on.
        self._without_mask: set[int] = set()
        self._without_single: set[tuple[int, Table]] = set()

    @property
    def connected(self) -> bool:
        """The link is up as far as is known."""
        return self.client.connected

    @property
    def learned(self) -> list[str]:
        """Which functions which units do not have, in words."""
        masks = [
            f"unit {unit_id} has no function 22: bits are read, changed and written back"
            for unit_id in self._without_mask
        ]
        singles = [
            f"unit {unit_id} has no function {5 if table is Table.COIL else 6}"
            for unit_id, table in self._without_single
        ]
        return sorted(masks + singles)

    async def connect(self) -> None:
        """Open the link; raises LinkError."""
        await self.client.connect()

    async def close(self) -> None:
        """Close the link."""
        await self.client.close()

    async def write(self, request: WriteRequest) -> None:
        """Send one request and wait until the device confirmed it; raises LinkError, ProtocolError, DeviceRefused."""
        if request.masks is not None:
            await self._write_bits(request, *request.masks)
        else:
            await self._write_block(request)

    async def holds(self, cell: Cell) -> bool:
        """Read back whether the device holds a cell's value; raises as `write` does."""
        if cell.table is Table.COIL:
            bits = await self.client.read_bits(cell.unit_id, cell.table, cell.address, cell.count)
            return bytes(bits) == cell.data
        data = await self.client.read_registers(cell.unit_id, cell.table, cell.address, cell.count)
        if cell.bit is None:
            return data == cell.data
        return (int.from_bytes(data, "big") ^ int.from_bytes(cell.data, "big")) >> cell.bit & 1 == 0

    async def _write_block(self, request: WriteRequest) -> None:
        key = (request.unit_id, request.table)
        single = False if key in self._without_single else None
        try:
            await self._send_block(request, single)
        except DeviceRefused as error:
            one = len(request.data) == (1 if request.table is Table.COIL else 2)
            if error.code != ILLEGAL_FUNCTION or not one or single is False:
                raise
            await self._send_block(request, False)
            self._without_single.add(key)

    async def _send_block(self, request: WriteRequest, single: bool | None) -> None:
        if request.table is Table.COIL:
            bits = [bool(byte) for byte in request.data]
            await self.client.write_coils(request.unit_id, request.address, bits, single=single)
        else:
            await self.client.write_registers(request.unit_id, request.address, request.data, single=single)

    async def _write_bits(self, request: WriteRequest, and_mask: int, or_mask: int) -> None:
        unit_id, address = request.unit_id, request.address
        if unit_id not in self._without_mask:
            try:
                await self.client.mask_write(unit_id, address, and_mask, or_mask)
                return
            except DeviceRefused as error:
                if error.code != ILLEGAL_FUNCTION:
                    raise
                self._without_mask.add(unit_id)
        # Without function 22, another client's change between this read and this write is lost: nothing better exists.
        current = int.from_bytes(await self.client.read_registers(unit_id, request.table, address, 1), "big")
        data = ((current & and_mask) | (or_mask & ~and_mask & 0xFFFF)).to_bytes(2, "big")
        await self._send_block(WriteRequest(unit_id, request.table, address, data, request.cells), None)

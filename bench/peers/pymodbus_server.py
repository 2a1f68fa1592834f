"""The pymodbus TCP server with 1,000 registers of each kind: `python pymodbus_server.py PORT`. Prints the port when it serves."""

import asyncio
import sys

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


async def main(port: int) -> None:
    bits = [SimData(0, count=1000, values=False, datatype=DataType.BITS)]
    registers = [SimData(0, count=1000, values=0, datatype=DataType.REGISTERS)]
    device = SimDevice(1, simdata=(bits, bits, registers, registers))
    server = ModbusTcpServer([device], address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

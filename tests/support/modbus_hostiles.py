"""Hostile Modbus clients, all at once, until they are told to stop: `python modbus_hostiles.py PORT IDLE FLOODS`.

IDLE connections that say nothing, as many that stop within a frame, FLOODS that send functions nobody has in bursts, sixteen
that pipeline reads, and one that opens and closes as fast as it can. Prints "ready" once they are all there, and at the end
(a line on standard input) how often it opened and closed.
"""

import asyncio
import sys

BAD_FUNCTION = bytes.fromhex("000100000006017F00000001") * 64
READS = bytes.fromhex("0001000000060103000000 7D") * 16


async def silent(port: int, first: bytes) -> None:
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first)
        await reader.read()
        writer.close()


async def flood(port: int, data: bytes, answer_size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        writer.write(data)
        await reader.readexactly(answer_size)


async def open_and_close(port: int, count: list[int]) -> None:
    while True:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        count[0] += 1
        await asyncio.sleep(0)


async def main(port: int, idle: int, floods: int) -> None:
    count = [0]
    tasks = [asyncio.create_task(silent(port, b"")) for _ in range(idle)]
    tasks += [asyncio.create_task(silent(port, b"\x00\x01\x00\x00\x00\x06\x01\x03")) for _ in range(idle)]
    await asyncio.sleep(1)
    tasks += [asyncio.create_task(flood(port, BAD_FUNCTION, 64 * 9)) for _ in range(floods)]
    tasks += [asyncio.create_task(flood(port, READS, 16 * 259)) for _ in range(16)]
    tasks.append(asyncio.create_task(open_and_close(port, count)))
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print(count[0], flush=True)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [result for result in results if isinstance(result, Exception)]
    print(failed[:3] if failed else "none failed", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*(int(argument) for argument in sys.argv[1:4])))

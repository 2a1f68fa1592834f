"""Watches running numbers in a Modbus server: `python -m bench.peers.watcher PORT DEVICES LAST`.

Reads the uint32 at register 8 * device of every device about 800 times a second, over a raw socket, and prints
`device seq monotonic_time` for each change, until all have reached LAST.
"""

import socket
import struct
import sys
import time

PER_READ = 15  # devices in one read of 120 registers
PAUSE_S = 0.001
"""Between two looks. Shorter, and the watcher takes the processor from what it watches; so much may a latency be overstated."""


def main() -> None:
    port, devices, last = (int(text) for text in sys.argv[1:4])
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    known = [0] * devices
    changes: list[tuple[int, int, float]] = []
    deadline = time.monotonic() + 25
    starts = range(0, devices, PER_READ)
    requests = b"".join(struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, start * 8, 8 * PER_READ) for start in starts)
    size = 9 + 2 * 8 * PER_READ
    while min(known) < last and time.monotonic() < deadline:
        connection.sendall(requests)
        data = b""
        while len(data) < size * len(starts):
            data += connection.recv(65536)
        now = time.monotonic()
        for device in range(devices):
            block, place = divmod(device, PER_READ)
            offset = block * size + 9 + place * 16
            seq = int.from_bytes(data[offset : offset + 4], "big")
            if seq != known[device]:
                known[device] = seq
                changes.append((device, seq, now))
        time.sleep(PAUSE_S)
    for device, seq, when in changes:
        print(device, seq, when)


if __name__ == "__main__":
    main()

"""Watches running numbers in a Modbus server: `python -m bench.peers.watcher PORT DEVICES LAST`.

Reads the uint32 at register 8 * device of every device as fast as it can, a raw socket and nothing else, and prints
`device seq monotonic_time` for each change, until all have reached LAST.
"""

import socket
import struct
import sys
import time

PER_READ = 15  # devices in one read of 120 registers


def main() -> None:
    port, devices, last = (int(text) for text in sys.argv[1:4])
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    known = [0] * devices
    changes: list[tuple[int, int, float]] = []
    deadline = time.monotonic() + 25
    while min(known) < last and time.monotonic() < deadline:
        for start in range(0, devices, PER_READ):
            wanted = 9 + 2 * 120
            connection.sendall(struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, start * 8, 120))
            data = b""
            while len(data) < wanted:
                data += connection.recv(4096)
            now = time.monotonic()
            for device in range(start, min(start + PER_READ, devices)):
                offset = 9 + (device - start) * 16
                seq = int.from_bytes(data[offset : offset + 4], "big")
                if seq != known[device]:
                    known[device] = seq
                    changes.append((device, seq, now))
        time.sleep(0.0003)
    for device, seq, when in changes:
        print(device, seq, when)


if __name__ == "__main__":
    main()

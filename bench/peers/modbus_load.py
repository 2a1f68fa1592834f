"""The load generator of modbus_load.c for a machine without a C compiler: same arguments, same output, slower."""

import select
import socket
import statistics
import struct
import sys
import time


def main(port: int, connections: int, seconds: float, kind: str, count: int) -> None:
    if kind == "write":
        pdu, reply_size = struct.pack(">BHHB", 16, 100, count, 2 * count) + bytes(2 * count), 12
    else:
        pdu, reply_size = struct.pack(">BHH", 3, 100, count), 9 + 2 * count
    request = struct.pack(">HHHB", 1, 0, len(pdu) + 1, 1) + pdu
    poller = select.epoll()
    socks: dict[int, socket.socket] = {}
    sent: dict[int, float] = {}
    answered: set[int] = set()
    times: list[float] = []
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        socks[sock.fileno()] = sock
        poller.register(sock, select.EPOLLIN)
    start = time.perf_counter()
    for fd, sock in socks.items():
        sent[fd] = time.perf_counter()
        sock.sendall(request)
    while time.perf_counter() - start < seconds:
        for fd, _ in poller.poll(5):
            reply = socks[fd].recv(4096)
            if len(reply) != reply_size or reply[7] != pdu[0]:
                sys.exit(f"wrong answer: {reply.hex()}")
            now = time.perf_counter()
            times.append(now - sent[fd])
            answered.add(fd)
            sent[fd] = now
            socks[fd].sendall(request)
    elapsed = time.perf_counter() - start
    cuts = [1e6 * cut for cut in statistics.quantiles(times, n=100)]
    print(len(times), f"{elapsed:.6f}", int(cuts[49]), int(cuts[98]), len(answered))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4], int(sys.argv[5]))

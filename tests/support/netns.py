"""A network with faults, on one machine: a host of its own behind a router that drops what it is told to, or is narrow.

The test's own side is joined to the router by a veth pair, the router to the far host by another; router and far host are
network namespaces. The rules stand in the router, so nobody who sends learns of a dropped packet, and the machine's own
rules are never touched. Needs root, `ip`, `nft` and `tc`.
"""

import ctypes
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import TypeVar

from tests.support.programs import lacking, need

Made = TypeVar("Made")

_CLONE_NEWNET = 0x40000000  # setns(2)
_FOLDER = Path("/run/netns")
_NAMES = itertools.count()
_NETWORKS = list(IPv4Network("198.18.0.0/15").subnets(new_prefix=29))
"""For tests of networks (RFC 2544, appendix C.2.2), so never in use where the machine is connected to."""


class FarNetwork:
    """`near` is the address of the test's own side, `far` that of the host behind the router. Made by `far_network`."""

    def __init__(self, name: str, network: IPv4Network) -> None:
        self._router, self._far = f"{name}-router", f"{name}-far"
        self.near, self._gate, self._far_gate, self.far = (str(network[index]) for index in (1, 2, 5, 6))
        self._route = f"{network[4]}/30"
        self._link = f"{name}n"
        self._ip, self._nft = need("ip"), need("nft")

    def listen(self) -> socket.socket:
        """A TCP socket that listens on a free port of the far host."""
        return _inside(self._far, lambda: socket.create_server((self.far, 0), backlog=64))

    def connect(self, port: int) -> socket.socket:
        """A TCP connection from the far host to a port of the near address."""
        return _inside(self._far, lambda: socket.create_connection((self.near, port), 5))

    def drop(self, *matches: str) -> None:
        """From now on drop, both ways, what any of the nft `matches` says; without one, everything."""
        self._rules(f"add rule inet faults forward {match} drop" for match in matches or ("",))

    def cut(self, port: int) -> None:
        """Drop, both ways, what belongs to the connections that there are now to a port of the far host; new ones work."""
        there = f"{int.from_bytes(socket.inet_aton(self.far), sys.byteorder):08X}:{port:04X}"
        table = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
        ours = [int(fields[1].split(":")[1], 16) for fields in table if fields[2] == there]
        assert ours, f"no connection to {self.far}:{port}"
        self.drop(*(f"tcp {side} {each}" for each in ours for side in ("sport", "dport")))

    def lose(self, percent: int) -> None:
        """From now on drop so many packets out of a hundred, both ways, at random."""
        self.drop(f"numgen random mod 100 < {percent}")

    def narrow(self, kbit: int) -> None:
        """From now on so many thousand bits a second pass each way; what would wait for more than 0.4 s is dropped."""
        for side in ("near", "far"):
            shape = f"qdisc replace dev {side} root tbf rate {kbit}kbit burst 3000 latency 400ms"
            self._run(self._ip, "netns", "exec", self._router, need("tc"), *shape.split())

    def heal(self) -> None:
        """Drop nothing any more."""
        self._rules(["flush chain inet faults forward"])

    def open(self) -> None:
        """Make all of it."""
        for name in (self._router, self._far):
            self._run(self._ip, "netns", "add", name)
        self._batch(
            "",
            f"link add {self._link} type veth peer name near netns {self._router}",
            f"addr add {self.near}/30 dev {self._link}",
            f"link set {self._link} up",
        )
        self._batch(
            self._router,
            f"link add far type veth peer name far netns {self._far}",
            f"addr add {self._gate}/30 dev near",
            f"addr add {self._far_gate}/30 dev far",
            "link set near up",
            "link set far up",
        )
        self._batch(
            self._far,
            f"addr add {self.far}/30 dev far",
            "link set far up",
            f"route add default via {self._far_gate}",
        )
        self._batch("", f"route add {self._route} via {self._gate}")
        _inside(self._router, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
        self._rules(
            [
                "add table inet faults",
                "add chain inet faults forward { type filter hook forward priority 0; policy accept; }",
            ]
        )

    def close(self) -> None:
        """Remove what there is of it; the pairs go with their namespaces."""
        for name in (self._router, self._far):
            if (_FOLDER / name).exists():
                self._run(self._ip, "netns", "del", name)
        # A namespace lives on while a socket of it is open, and its end of the pair with it.
        subprocess.run([self._ip, "link", "del", self._link], capture_output=True, check=False)

    def _rules(self, lines: Iterable[str]) -> None:
        self._run(self._ip, "netns", "exec", self._router, self._nft, "-f", "-", text="\n".join(lines))

    def _batch(self, namespace: str, *lines: str) -> None:
        where = ["-n", namespace] if namespace else []
        self._run(self._ip, *where, "-batch", "-", text="\n".join(lines))

    def _run(self, *command: str, text: str = "") -> None:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


@contextmanager
def far_network() -> Iterator[FarNetwork]:
    """A network until the block ends. Skips the test where none can be made (fails with TAGWIRE_REQUIRE_ALL)."""
    number = next(_NAMES)
    network = FarNetwork(
        f"tw{os.getpid()}{chr(97 + number % 26)}", _NETWORKS[(os.getpid() * 26 + number) % len(_NETWORKS)]
    )
    if os.geteuid() != 0:
        lacking("network namespaces need root")
    _remove_orphans()
    try:
        try:
            network.open()
        except OSError as error:
            lacking(f"no network namespace can be made here: {error}")
        yield network
    finally:
        network.close()


def _remove_orphans() -> None:
    """What a test run left that was killed."""
    for path in _FOLDER.glob("tw*"):
        match = re.fullmatch(r"tw(\d+)[a-z]-(router|far)", path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            subprocess.run([need("ip"), "netns", "del", path.name], capture_output=True, check=False)


def _inside(namespace: str, make: Callable[[], Made]) -> Made:
    """What `make` returns when a thread that is in the namespace calls it; a socket stays where it was made."""
    made: list[Made] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            with (_FOLDER / namespace).open() as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns {namespace}")
            made.append(make())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=enter, name=f"in {namespace}")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]

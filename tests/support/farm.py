"""Many Modbus devices in a process of their own (bench/peers/plc_farm.py)."""

import json
import subprocess
import sys
from typing import Any

from tests.support.processes import clean_environment


class Farm:
    """`count` devices on the `ports`, the first `dead` of which accept connections and never answer."""

    def __init__(self, count: int, dead: int) -> None:
        command = [sys.executable, "-m", "bench.peers.plc_farm", str(count), str(dead)]
        self._popen = subprocess.Popen(
            command, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._popen.stdout is not None
        self.ports = [int(port) for port in self._popen.stdout.readline().split()]
        self.dead = dead

    def tell(self, line: str) -> None:
        """`mark` (count from here) or `restart` (close everything, and listen again a second later); waits until it is done."""
        assert self._ask(line) == "done\n"

    def report(self) -> dict[str, Any]:
        """What it has counted since it was asked last."""
        counted: dict[str, Any] = json.loads(self._ask("report"))
        return counted

    def close(self) -> dict[str, Any]:
        """End it; what it counted."""
        out, _ = self._popen.communicate(timeout=60)
        counted: dict[str, Any] = json.loads(out)
        return counted

    def end(self) -> None:
        """End it in any case."""
        self._popen.kill()
        self._popen.wait()

    def _ask(self, line: str) -> str:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(f"{line}\n")
        self._popen.stdin.flush()
        return self._popen.stdout.readline()

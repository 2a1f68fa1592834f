"""A resolver that takes every question and never answers, and programs that have no other."""

import os
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.programs import lacking, need

_RESOLV_CONF = Path("/etc/resolv.conf")


@contextmanager
def silent_resolver(folder: Path) -> Iterator[list[str]]:
    """What to put before a command, whose names then have no other resolver than this (nor has the rest of the machine this one).

    The command runs in a mount namespace of its own, as the same process. Skips the test where there is none (fails with
    TAGWIRE_REQUIRE_ALL).
    """
    if os.geteuid() != 0 or not _RESOLV_CONF.exists():
        lacking("a resolver of one's own needs root and /etc/resolv.conf")
    address = "127." + ".".join(str(random.SystemRandom().randrange(1, 255)) for _ in range(3))
    file = folder / "resolv.conf"
    file.write_text(f"nameserver {address}\n")
    before = [need("unshare"), "--mount", "sh", "-c", f'mount --bind "{file}" {_RESOLV_CONF} && exec "$@"', "sh"]
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        lacking("no mount namespace can be made here")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind((address, 53))
        yield before

"""A wall clock of a child process that a test can set, by a shim in front of libc (clock_shift.c)."""

import mmap
import struct
import subprocess
from pathlib import Path

from tests.support.programs import need

_SOURCE = Path(__file__).with_name("clock_shift.c")


class ShiftedClock:
    """`settings` go into the environment of the child; `shift_s` then moves its wall clock, and no other."""

    def __init__(self, folder: Path) -> None:
        library, file = folder / "clock_shift.so", folder / "clock_shift"
        subprocess.run([need("gcc"), "-O1", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True)
        file.write_bytes(bytes(8))
        self.settings = {"LD_PRELOAD": library, "CLOCK_SHIFT_FILE": file}
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 8)

    def set(self, shift_s: int) -> None:
        """Have the child's clock ahead of the real one by so many seconds, or behind."""
        self._memory[:] = struct.pack("q", shift_s)

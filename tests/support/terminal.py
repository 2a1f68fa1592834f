"""A program at a pseudo-terminal: keys in, screen out, as a user has it."""

import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fcntl import ioctl
from pathlib import Path

_SEQUENCE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x1b\][^\x07]*\x07")


class Terminal:
    """`output` is all that was written to the screen, `text` the same without the sequences that move and colour."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self._ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        self.popen = subprocess.Popen(
            command,
            env={**env, "TERM": "xterm"},
            cwd=cwd,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # Ctrl-C is a signal only at a controlling terminal.
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0) and None,
        )
        os.close(theirs)
        self.output = b""
        self._reader = threading.Thread(target=self._read, name="terminal", daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """What was written, without control sequences."""
        return _SEQUENCE.sub(b"", self.output).decode(errors="replace").replace("\r", "")

    def _read(self) -> None:
        with suppress(OSError):  # EIO: nobody has the other side open any more
            while chunk := os.read(self._ours, 65536):
                self.output += chunk

    def type(self, keys: str) -> int:
        """Press keys ("\\t", "\\x03" ...); the length of `text` before that."""
        before = len(self.text)
        os.write(self._ours, keys.encode())
        return before

    def wait_text(self, wanted: str, since: int = 0, timeout_s: float = 15.0) -> None:
        """Until `wanted` has been written behind `since`."""
        deadline = time.monotonic() + timeout_s
        while wanted not in self.text[since:]:
            assert time.monotonic() < deadline, f"{wanted!r} not within {timeout_s} s in\n{self.text[since:]}"
            time.sleep(0.01)

    def close(self) -> None:
        """End it."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()
        self._reader.join(2)
        os.close(self._ours)


@contextmanager
def at_terminal(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> Iterator[Terminal]:
    """Run a command at a terminal of 30 lines and 120 columns until the block ends."""
    terminal = Terminal(command, env, cwd)
    try:
        yield terminal
    finally:
        terminal.close()

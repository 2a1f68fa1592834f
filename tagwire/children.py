"""One program as a child process: started, its log read line by line, its readiness heard, ended with all that it started."""

import asyncio
import ctypes
import os
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

# prctl(2): the signal that the kernel sends to a child when its parent is gone, even by kill -9.
_PR_SET_PDEATHSIG = 1
_MAX_LINE = 65_536
_LAST_LINES = 40
_PIPE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. It is ready when it says so (sd_notify), or when `ready_text` stands in its log.

    `env` is added to our own environment. Lines with `hidden_text` in them are not shown. A program that `ends_last` is
    stopped when all others are gone.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    ready_text: str | None = None
    hidden_text: str | None = None
    ends_last: bool = False


class Child:
    """A running program. `ready` is set once it serves; `last_lines` is the end of its log."""

    def __init__(self, program: Program, process: asyncio.subprocess.Process, on_line: Callable[[str], None]) -> None:
        self.program = program
        self.ready = asyncio.Event()
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._process = process
        self._on_line = on_line
        self._resources = ExitStack()

    @classmethod
    async def spawn(cls, program: Program, on_line: Callable[[str], None]) -> "Child":
        """Start a program. Raises OSError when it cannot be run."""
        with ExitStack() as resources:
            listener, address = resources.enter_context(_notify_socket())
            process = await asyncio.create_subprocess_exec(
                *program.command,
                env={**os.environ, **program.env, "NOTIFY_SOCKET": address, "PYTHONUNBUFFERED": "1"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                # A group of its own: Ctrl-C in the terminal reaches us alone, and we end the others in order.
                process_group=0,
                preexec_fn=_dying_with_us(),
            )
            child = cls(program, process, on_line)
            loop = asyncio.get_running_loop()
            loop.add_reader(listener, child._heard, listener)
            resources.callback(loop.remove_reader, listener)
            child._resources = resources.pop_all()
        return child

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Read its log until it ends; the exit code, negative for a signal."""
        reading = asyncio.create_task(self._read(), name=f"log of {self.program.name}")
        try:
            code = await self._process.wait()
            # Something that the child left behind may hold the pipe open: its log is not waited for.
            await asyncio.wait({reading}, timeout=_PIPE_TIMEOUT_S)
            return code
        finally:
            reading.cancel()
            self._resources.close()

    def terminate(self) -> None:
        """Ask it to end, with everything that it started."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, with everything that it started."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _heard(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError):
            if b"READY=1" in listener.recv(4096).split(b"\n"):
                self.ready.set()

    async def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        rest = b""
        while chunk := await stream.read(_MAX_LINE):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _MAX_LINE:
                lines.append(rest)
                rest = b""
            for line in lines:
                self._take(line)
        if rest:
            self._take(rest)

    def _take(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if self.program.ready_text is not None and self.program.ready_text in text:
            self.ready.set()
        self.last_lines.append(text)
        if self.program.hidden_text is None or self.program.hidden_text not in text:
            self._on_line(text)


@contextmanager
def _notify_socket() -> Iterator[tuple[socket.socket, str]]:
    """A datagram socket for sd_notify messages and its name: an abstract one on Linux, which leaves no file behind."""
    with ExitStack() as resources:
        listener = resources.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        listener.setblocking(False)
        if sys.platform == "linux":
            listener.bind("")
            yield listener, "@" + listener.getsockname()[1:].decode()
        else:
            path = resources.enter_context(tempfile.TemporaryDirectory(prefix="tagwire-")) + "/notify"
            listener.bind(path)
            yield listener, path


def _dying_with_us() -> Callable[[], None] | None:
    """What the child runs between fork and exec, so that no way of ours to die leaves it behind (Linux only)."""
    if sys.platform != "linux":
        return None
    libc, parent = _libc(), os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            # We died before the line above: nobody would tell it.
            os._exit(1)

    return prepare


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)

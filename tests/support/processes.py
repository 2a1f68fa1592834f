"""Real programs as children of a test: started, waited for, read, ended, always reaped."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 30.0
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
_given: set[tuple[socket.SocketKind, int]] = set()
_SETTINGS = ("MQTT_", "MODBUS_", "FLASK_", "TAGWIRE_", "SQLALCHEMY_", "DEMO", "NOTIFY_SOCKET")


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A TCP port of loopback that nobody used a moment ago; a UDP port for SOCK_DGRAM.

    Below those that the system gives to clients (ip_local_port_range): a port that stays free for a while, as that of a broker
    which is started late, would else be taken by some connection of a test that runs beside. Each worker of pytest has a range of
    its own, and no port is given twice.
    """
    while True:
        port = random.SystemRandom().randrange(12_000 + 5_000 * _WORKER, 17_000 + 5_000 * _WORKER)
        if (kind, port) in _given:
            continue
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if len(_given) > 4_000:
                _given.clear()
            _given.add((kind, port))
            return port


def clean_environment(**settings: str | int | Path) -> dict[str, str]:
    """This process's environment without any setting of ours, plus `settings`. The checkout's modules can be imported."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_SETTINGS) or name == "TAGWIRE_REQUIRE_ALL"
    }
    kept["PYTHONPATH"] = str(CHECKOUT)
    kept["PYTHONUNBUFFERED"] = "1"
    return kept | {name: str(value) for name, value in settings.items()}


def wait_until(condition: Callable[[], object], timeout_s: float = 10.0, what: str = "") -> None:
    """Look again every 10 ms until `condition()` is true. Raises AssertionError when it takes longer than `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}")
        time.sleep(0.01)


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens on a TCP port."""
    try:
        with socket.create_connection((host, port), 0.5):
            return True
    except OSError:
        return False


class Process:
    """One child with its output collected (stdout and stderr together). Made by `start`."""

    def __init__(self, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path | None = None) -> None:
        self.notified: list[str] = []
        self.folder = tempfile.TemporaryDirectory(prefix="tagwire-notify-")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind(f"{self.folder.name}/notify")
        self.popen = subprocess.Popen(
            [str(part) for part in command],
            env={**env, "NOTIFY_SOCKET": f"{self.folder.name}/notify"},
            cwd=cwd or self.folder.name,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A group of its own, so that a signal can reach the child with all that it started.
            process_group=0,
        )
        self._chunks: list[bytes] = []
        self._reader = threading.Thread(target=self._read, name=f"output of {self.pid}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self.popen.pid

    @property
    def resident_bytes(self) -> int:
        """The memory that it holds."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def open_files(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def output(self) -> str:
        """What the child has printed so far."""
        return b"".join(self._chunks).decode(errors="replace")

    def _read(self) -> None:
        assert self.popen.stdout is not None
        while chunk := os.read(self.popen.stdout.fileno(), 65536):
            self._chunks.append(chunk)

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> "Process":
        """Wait for READY=1. Raises AssertionError, with the output, when the child ends or is late."""
        deadline = time.monotonic() + timeout_s
        self._listener.settimeout(0.05)
        while "READY=1" not in "\n".join(self.notified).split("\n"):
            assert self.popen.poll() is None, f"ended with {self.popen.returncode} before it was ready:\n{self.output}"
            assert time.monotonic() < deadline, f"not ready within {timeout_s} s:\n{self.output}"
            try:
                self.notified.append(self._listener.recv(4096).decode())
            except TimeoutError:
                continue
        return self

    def wait_output(self, text: str, timeout_s: float = READY_TIMEOUT_S) -> "Process":
        """Wait until the child has printed `text`."""
        wait_until(
            lambda: text in self.output or self.popen.poll() is not None, timeout_s, f"{text!r} in {self.output}"
        )
        # What was printed just before the end may still be in the pipe.
        wait_until(lambda: text in self.output or not self._reader.is_alive(), timeout_s, f"{text!r} in {self.output}")
        assert text in self.output, f"ended with {self.popen.returncode} without printing {text!r}:\n{self.output}"
        return self

    def wait(self, timeout_s: float = 10.0) -> int:
        """Wait for the child's own end; its exit code, negative for a signal, as Popen has it."""
        code = self.popen.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def wait_handler(self, number: int = signal.SIGTERM) -> "Process":
        """Wait until the child handles a signal: before that it has not begun, and would simply be killed by it."""

        def is_handled() -> bool:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
            return bool(int(caught, 16) >> (number - 1) & 1)

        wait_until(is_handled, READY_TIMEOUT_S, f"signal {number} is handled")
        return self

    def signal(self, number: int) -> None:
        """Send a signal to the child alone."""
        self.popen.send_signal(number)

    def terminate(self, timeout_s: float = 10.0) -> int:
        """SIGTERM, then wait; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self) -> int:
        """SIGKILL to the child alone, then wait; the exit code."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def close(self) -> None:
        """End the child, whatever it does, with its process group, and give everything back."""
        if self.popen.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.popen.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self.popen.wait()
        self._reader.join(2)
        if self.popen.stdout is not None and not self._reader.is_alive():
            self.popen.stdout.close()
        self._listener.close()
        self.folder.cleanup()


@contextmanager
def start(
    command: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Process]:
    """Run a command as a child until the block ends. Without `cwd` it runs in an empty folder, so it finds no `.env`."""
    process = Process(command, clean_environment() if env is None else env, cwd)
    try:
        yield process
    finally:
        process.close()


@contextmanager
def start_program(name: str, cwd: Path | None = None, **settings: str | int | Path) -> Iterator[Process]:
    """Run one of our programs (`python -m NAME`) with these settings and no others. It is not waited for: `wait_ready()`."""
    with start([sys.executable, *f"-m {name}".split()], clean_environment(**settings), cwd) as process:
        yield process

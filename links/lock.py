"""One instance at a time: an advisory lock that the kernel gives back when its holder is gone, however it went."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scada.errors import ConfigError


@contextmanager
def hold_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock at `path` for `what` (a program's name). Raises ConfigError naming the holder's pid when it is taken.

    The file stays behind with an old pid; that never blocks anybody.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"{what}: cannot open the lock file {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "r+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read(20).strip() or "unknown"
            raise ConfigError(f"{what} is running already (process {holder} holds {path})") from None
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield

"""A serial line between two device files, made by socat, that can be unplugged and plugged in again."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from tests.support.programs import need


@contextmanager
def socat(*addresses: str, makes: tuple[Path, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """socat between two addresses, running once the files that it makes are there."""
    process = subprocess.Popen([need("socat"), *addresses])
    try:
        deadline = time.monotonic() + 5
        while not all(path.exists() for path in makes):
            assert time.monotonic() < deadline, f"socat made no {makes}"
            time.sleep(0.01)
        yield process
    finally:
        process.terminate()
        process.wait()


class SerialLine:
    """`near` is our side's device file, `far` the device's; plugged in while the `with` block lasts."""

    def __init__(self, folder: Path, name: str = "line") -> None:
        self.near, self.far = str(folder / f"{name}-near"), str(folder / f"{name}-far")
        self.process: subprocess.Popen[bytes]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.plug_in()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()

    def plug_in(self) -> None:
        """The files appear, and what is written into one comes out of the other."""
        files = (Path(self.near), Path(self.far))
        ends = (f"pty,raw,echo=0,link={path}" for path in files)
        self.process = self._stack.enter_context(socat(*ends, makes=files))

    def unplug(self) -> None:
        """The files go, and whoever has one open is told."""
        self._stack.close()

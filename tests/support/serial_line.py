"""Serial lines of two device files: one by socat that can be unplugged and plugged in again, and one as slow as a real one."""

import os
import select
import subprocess
import threading
import time
import tty
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


class PacedLine:
    """A line that is as slow as a real one of `baudrate`: pseudo terminals have none. Device files `near` and `far`."""

    def __init__(self, folder: Path, baudrate: int, name: str = "paced") -> None:
        self.near, self.far = str(folder / f"{name}-near"), str(folder / f"{name}-far")
        self._byte_s = 10 / baudrate
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        near, far = self._end(self.near), self._end(self.far)
        ended, end = os.pipe()
        self._stack.callback(os.close, ended)
        for source, sink in ((near, far), (far, near)):
            thread = threading.Thread(target=self._carry, args=(source, sink, ended), name="paced line")
            thread.start()
            self._stack.callback(thread.join, 5)
        self._stack.callback(os.close, end)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _end(self, path: str) -> int:
        """One end as a device file; what the other side of it is read and written by."""
        inner, outer = os.openpty()
        tty.setraw(outer)
        os.symlink(os.ttyname(outer), path)
        for descriptor in (inner, outer):  # were nobody to hold the outer side open, the inner one could not be read
            self._stack.callback(os.close, descriptor)
        return inner

    def _carry(self, source: int, sink: int, ended: int) -> None:
        while ended not in (ready := select.select([source, ended], [], [])[0]):
            if source in ready:
                data = os.read(source, 8)
                time.sleep(len(data) * self._byte_s)
                os.write(sink, data)

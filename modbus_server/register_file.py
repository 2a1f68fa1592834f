"""Images in a file that is mapped into memory: what a client was told is written survives the death of the process.

The kernel holds the pages, so a killed server loses nothing. A loss of power may cost what the kernel had not yet written to the
disk (usually the last 30 s); a clean stop writes everything. The file is a header, then one image for each place: place 0 is the
shared image, place N + 1 the image of unit N. A place that is not used is a hole and takes no space on the disk.
"""

import logging
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import gmtime, strftime

from links.lock import hold_lock
from scada.errors import ConfigError, Fault
from scada.modbus.image import IMAGE_SIZE

logger = logging.getLogger(__name__)

FILE_NAME = "registers.bin"
_LOCK_NAME = "registers.lock"
_MAGIC = b"TAGWIRE\x00REGISTER"
_VERSION = 1
_HEADER = struct.Struct(">16sIII")  # magic, version, size of the header, size of one image
_HEADER_SIZE = 4096  # images begin on a page
SHARED_PLACE = 0


def place_of(unit_id: int) -> int:
    """Where a unit's own image stands."""
    return unit_id + 1


def offset_of(place: int) -> int:
    """Where an image begins in the file, and in its mapping."""
    return _HEADER_SIZE + place * IMAGE_SIZE


@contextmanager
def open_register_file(folder: Path, places: Iterable[int]) -> Iterator[mmap.mmap]:
    """The mapped file `registers.bin` in `folder`, made where it is missing, with space on the disk for these places.

    A file that is not ours, of another version, or damaged is moved aside and replaced. Raises ConfigError when another server
    has the file, when it cannot be opened, or when the disk has no room for it.
    """
    with hold_lock(folder / _LOCK_NAME, "the Modbus server of this data directory"):
        try:
            file = _open(folder / FILE_NAME)
            try:
                _take_space(file, places)
                memory = mmap.mmap(file, os.fstat(file).st_size)
            finally:
                os.close(file)
        except OSError as exc:
            raise ConfigError([Fault("MODBUS_SERVER_DATA_DIR", f"{folder / FILE_NAME}: {exc.strerror}")]) from exc
        try:
            yield memory
        finally:
            memory.flush()
            memory.close()


def anonymous_memory(places: Iterable[int]) -> mmap.mmap:
    """The same memory without a file: gone with the process."""
    return mmap.mmap(-1, offset_of(max(places) + 1))


def _open(path: Path) -> int:
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        _create(path)
        return os.open(path, os.O_RDWR)
    fault = _fault_of(file)
    if fault is None:
        return file
    os.close(file)
    aside = _free_name(path)
    os.rename(path, aside)
    logger.error("%s %s: moved to %s, starting with empty registers", path, fault, aside.name)
    _create(path)
    return os.open(path, os.O_RDWR)


def _take_space(file: int, places: Iterable[int]) -> None:
    # Taken now: a hole that finds the disk full when it is written to kills the process (SIGBUS).
    before = os.fstat(file).st_size
    try:
        os.posix_fallocate(file, 0, _HEADER_SIZE)
        for place in places:
            os.posix_fallocate(file, offset_of(place), IMAGE_SIZE)
    except OSError:
        os.ftruncate(file, before)
        raise


def _create(path: Path) -> None:
    # Under its own name only when it is whole, so that a crash here leaves no damaged file behind.
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(_HEADER.pack(_MAGIC, _VERSION, _HEADER_SIZE, IMAGE_SIZE))
        file.truncate(_HEADER_SIZE)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, path)


def _fault_of(file: int) -> str | None:
    """What is wrong with a file, None when it can be used."""
    head = os.pread(file, _HEADER.size, 0)
    size = os.fstat(file).st_size
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        return "is not a register file"
    _, version, header_size, image_size = _HEADER.unpack(head)
    if version != _VERSION:
        return f"has version {version} instead of {_VERSION}"
    if (header_size, image_size) != (_HEADER_SIZE, IMAGE_SIZE) or size < _HEADER_SIZE:
        return f"is damaged (sizes {header_size}, {image_size}, {size})"
    if (size - _HEADER_SIZE) % IMAGE_SIZE:
        return f"is damaged ({size} bytes are no whole number of images)"
    return None


def _free_name(path: Path) -> Path:
    stem = f"{path.name}.damaged-{strftime('%Y%m%dT%H%M%SZ', gmtime())}"
    candidates = [path.with_name(stem), *(path.with_name(f"{stem}-{number}") for number in range(2, 1000))]
    return next(candidate for candidate in candidates if not candidate.exists())

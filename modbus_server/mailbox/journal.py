"""What clients have written and nobody else knows yet: samples in a mapped file, from before the answer until they are safe.

A ring of numbered records. The kernel holds the pages, as those of the registers: a killed server loses nothing that it has
answered.
"""

import logging
import mmap
import os
import struct
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scada.bus_messages import decode_data, encode_data
from scada.values import BadValue, Sample

logger = logging.getLogger(__name__)

SIZE = 8 * 1024 * 1024
"""Bytes: tens of thousands of samples. They stay for a second or two; while the broker is away the bus's own buffer has them."""
_MAGIC = b"TAGWIRE\x00JOURNAL1"
_FIRST = 4096  # where the records begin
_TAIL = struct.Struct(
    "<Q"
)  # number and place of the oldest record, or of the next one: eight bytes are never half written
_TAIL_PART = slice(len(_MAGIC), len(_MAGIC) + _TAIL.size)
_PLACE_BITS = 24
_HEAD = struct.Struct("<IIQ")  # length of the content, CRC-32 of number and content, number


@dataclass(slots=True, eq=False)
class Record:
    """`left`: samples of it that are not safe yet. `samples` are there only after a start."""

    number: int
    at: int
    left: int
    device: str = ""
    samples: Sequence[Sample] = ()


class Journal:
    """Samples go in by `add` when they are published, and out by `safe`, of each device in the same order.

    A disk that fails, and a full ring, are told; the server runs on, and a kill may then cost what was not safe.
    """

    def __init__(self, path: Path, size: int = SIZE) -> None:
        assert _FIRST < size <= 1 << _PLACE_BITS
        self._path = path
        self._size = size
        self._memory: mmap.mmap | None = None
        self._number = 1  # the next one
        self._head = _FIRST
        self._records: deque[Record] = deque()
        self._waiting: dict[str, deque[tuple[int, Record | None]]] = {}
        self._complaint = ""

    def open(self) -> Sequence[Record]:
        """Map the file, which is made where it is missing or no journal. What an earlier run left there is for `again`."""
        try:
            memory = self._memory = self._map()
        except OSError as error:
            self._complain(f"{self._path} cannot be used: {error.strerror}")
            return ()
        (tail,) = _TAIL.unpack(memory[_TAIL_PART])
        number, at = tail >> _PLACE_BITS, tail & ((1 << _PLACE_BITS) - 1)
        if memory[: len(_MAGIC)] == _MAGIC and _FIRST <= at <= self._size:
            self._number, self._head = number, at
            self._recover(memory)
        else:
            memory[:] = bytes(len(memory))  # nothing in it may pass for a record
        self._put_tail()
        memory[: len(_MAGIC)] = _MAGIC
        return tuple(self._records)

    def add(self, device: str, samples: Sequence[Sample]) -> None:
        """Samples that are about to be published."""
        self._wait(device, len(samples), self._append(device, samples))

    def skip(self, device: str, count: int) -> None:
        """So many samples are about to be published that nobody was answered for."""
        self._wait(device, count, None)

    def again(self, record: Record, count: int) -> None:
        """Of a record of an earlier run `count` samples are published again, the others given up."""
        record.left, record.samples = count, ()
        if count:
            self._wait(record.device, count, record)
        self._trim()

    def safe(self, device: str, count: int) -> None:
        """The oldest `count` samples of a device need not be kept any more."""
        waiting = self._waiting.get(device)
        while waiting and count:
            size, record = waiting[0]
            taken = min(size, count)
            count -= taken
            if record is not None:
                record.left -= taken
            if taken == size:
                waiting.popleft()
            else:
                waiting[0] = (size - taken, record)
        if not waiting:
            self._waiting.pop(device, None)
        self._trim()

    def close(self) -> None:
        """Let go of the file."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _map(self) -> mmap.mmap:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # Taken now: a hole that finds the disk full when it is written to kills the process (SIGBUS).
            os.posix_fallocate(file, 0, self._size)
            return mmap.mmap(file, self._size)
        finally:
            os.close(file)

    def _wait(self, device: str, count: int, record: Record | None) -> None:
        self._waiting.setdefault(device, deque()).append((count, record))

    def _append(self, device: str, samples: Sequence[Sample]) -> Record | None:
        if self._memory is None:
            return None
        try:
            content = device.encode() + b"\n" + encode_data(samples)
        except (TypeError, UnicodeEncodeError):
            return None  # no message can hold it either
        data = _HEAD.pack(len(content), _checksum(self._number, content), self._number) + content
        at = self._room(len(data))
        if at is None:
            self._complain(f"{self._path} is full: a kill would lose what is not sent by then")
            return None
        self._memory[at : at + len(data)] = data
        record = Record(self._number, at, len(samples))
        self._records.append(record)
        self._head = at + len(data)
        self._number += 1
        return record

    def _room(self, size: int) -> int | None:
        """Where a record goes: at the head, or at the beginning where the rest is too short. None without room."""
        tail = self._records[0].at if self._records else self._head
        if self._records and self._head <= tail:
            return self._head if self._head + size <= tail else None
        if self._head + size <= self._size:
            return self._head
        return _FIRST if _FIRST + size <= tail else None

    def _trim(self) -> None:
        """Let go of the oldest records of which nothing is left."""
        if not self._records or self._records[0].left:
            return
        while self._records and not self._records[0].left:
            self._records.popleft()
        if not self._records:
            self._complaint = ""
        self._put_tail()

    def _put_tail(self) -> None:
        if self._memory is not None:
            number, at = (self._records[0].number, self._records[0].at) if self._records else (self._number, self._head)
            self._memory[_TAIL_PART] = _TAIL.pack(number << _PLACE_BITS | at)

    def _recover(self, memory: mmap.mmap) -> None:
        while True:
            # The next record stands behind the last one, or at the beginning where there was no room for it.
            at = self._head
            content = _content(memory, at, self._number)
            if content is None:
                at = _FIRST
                content = _content(memory, at, self._number)
            if content is None:
                return
            device, samples = _samples(content)
            self._records.append(Record(self._number, at, len(samples), device, samples))
            self._head = at + _HEAD.size + len(content)
            self._number += 1

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            logger.error("journal: %s", text)
        self._complaint = text


def _checksum(number: int, content: bytes) -> int:
    return zlib.crc32(content, number & 0xFFFFFFFF)


def _content(memory: mmap.mmap, at: int, number: int) -> bytes | None:
    """What the record with this number holds, if it stands here, whole."""
    if at + _HEAD.size > len(memory):
        return None
    length, checksum, found = _HEAD.unpack(memory[at : at + _HEAD.size])
    start = at + _HEAD.size
    if found != number or start + length > len(memory):
        return None
    content = memory[start : start + length]
    return content if _checksum(number, content) == checksum else None


def _samples(content: bytes) -> tuple[str, Sequence[Sample]]:
    device, _, payload = content.partition(b"\n")
    try:
        samples, _ = decode_data(payload)
    except BadValue:  # longer than a message may be: nothing that a client wrote
        samples = []
    return device.decode(), samples

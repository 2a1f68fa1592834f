"""Turns on a serial line between the programs that use it: one asks at a time, and what a reply answers is known.

Linux only. All of it stands in the kernel, on the device file itself: whoever opens the same line meets there, whatever path
and user it came by, and what a killed program held is given back (docs/decisions/0202-turns-on-a-serial-line.md).

- `flock` on the device file is the line: who holds it may send, receive and set the line.
- A lock of byte 0 is the place at the head of the queue: only who holds it may take the line. So a program that asks without
  pause takes turns with another one that waits.
- The window size of the terminal, which a serial line does not use, is a note from each user to the next: which unit was asked,
  until when its reply may come, and when the line fell silent.
"""

import asyncio
import fcntl
import math
import os
import random
import struct
import termios
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from scada.errors import LinkError

_FAST_BAUDRATE: Final = 19_200
_FAST_SILENCE_S: Final = 0.00175
_SILENT_CHARACTERS: Final = 3.5

# struct flock of fcntl(2): type, whence, start, length, process id, which is 0 for locks of open file descriptions.
_FLOCK: Final = struct.Struct("hhqqi")
_NOTE: Final = struct.Struct("=Q")  # in place of the four shorts of struct winsize, ioctl_tty(2)
_TICK_S: Final = 0.00025
_TIME_BITS: Final = 24
_TIME_MASK: Final = (1 << _TIME_BITS) - 1
_FURTHEST: Final = int(130 / _TICK_S)
"""No reply is waited for longer than twice 60 s: a time that is further ahead is one of the past, or not ours."""

EVERY_UNIT: Final = 0
"""In a note. Nobody asks unit 0, the broadcast, on a serial line."""


def silence_s(baudrate: int, character_bits: int) -> float:
    """The silence that separates two frames: 3.5 characters, fixed above 19,200 Bd (MODBUS over Serial Line V1.02, 2.5.1.1)."""
    return _FAST_SILENCE_S if baudrate > _FAST_BAUDRATE else _SILENT_CHARACTERS * character_bits / baudrate


@dataclass(frozen=True, slots=True)
class Note:
    """What the last user of a line left to the next one. Times are ticks of `ticks()`; 0 is none.

    `asked`: the unit that was being asked, or EVERY_UNIT after the reply came; `asked_until`: until when a reply to it may
    come, or when the silence after the reply ends. `late`: a unit whose reply failed to come; until `late_until` it still may.
    """

    asked: int = EVERY_UNIT
    asked_until: int = 0
    late: int = EVERY_UNIT
    late_until: int = 0

    def pack(self) -> bytes:
        """As it stands in the window size."""
        high = self.asked << _TIME_BITS | self.asked_until
        low = self.late << _TIME_BITS | self.late_until
        return _NOTE.pack(high << 32 | low)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """From the window size."""
        (word,) = _NOTE.unpack(data)
        high, low = word >> 32, word & 0xFFFFFFFF
        return cls(high >> _TIME_BITS, high & _TIME_MASK, low >> _TIME_BITS, low & _TIME_MASK)

    def settled(self, now: int) -> Self:
        """The same without what is over; after a user that was killed while it asked, that unit's reply is late."""
        if self.asked != EVERY_UNIT and ahead(self.asked_until, now):
            return self.failed(0, now)
        if self.late_until and not ahead(self.late_until, now):
            return type(self)(self.asked, self.asked_until)
        return self

    def failed(self, silent_at: int, now: int) -> Self:
        """The same after the unit that was asked did not answer: its reply is late."""
        left = ahead(self.late_until, now)
        if not left:
            return type(self)(EVERY_UNIT, silent_at, self.asked, self.asked_until)
        last = self.asked_until if ahead(self.asked_until, now) > left else self.late_until
        # There is room for one: of two late units, every one is.
        return type(self)(EVERY_UNIT, silent_at, self.asked if self.asked == self.late else EVERY_UNIT, last)

    def wait(self, unit_id: int, now: int) -> int:
        """Ticks until `unit_id` may be asked, because a late reply could pass for the answer."""
        return ahead(self.late_until, now) if self.late in (unit_id, EVERY_UNIT) else 0


def ticks(ahead_s: float = 0.0) -> int:
    """The time of the clock that all programs of a machine share, `ahead_s` from now; it starts again after 70 minutes."""
    at = math.ceil((time.monotonic() + ahead_s) / _TICK_S) & _TIME_MASK
    return at or 1  # 0 is none


def ahead(until: int, now: int) -> int:
    """Ticks from `now` to `until`; 0 when it is over, or none."""
    left = (until - now) & _TIME_MASK
    return left if until and left <= _FURTHEST else 0


class LineTurns:
    """One user's turns on a line. It owns a descriptor of the device file that nobody else uses.

    Methods raise OSError when the line is gone, and LinkError where they say so.
    """

    def __init__(self, path: str, silence: float) -> None:
        """Open the device file, without touching the line; `silence`: seconds between two frames. Raises OSError."""
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._closing = weakref.finalize(self, os.close, self._descriptor)
        self._silence_s = silence
        self._note = Note()
        self._reply_until_s = self._late_until_s = 0.0
        self.asking = False
        """The line is ours, and a request may be on it."""

    async def take(self, unit_id: int, limit_s: float, *, again: bool = False) -> None:
        """Wait for the line, for its silence, and until no late reply of `unit_id` to another program can come any more.

        `again`: the reply that may be late is ours, to what is asked once more: it is welcome. Raises LinkError when all that
        takes longer than `limit_s`. Cancelled: nothing is held.
        """
        deadline = time.monotonic() + limit_s
        while (delay_s := await self._take(unit_id, deadline, limit_s, again)) != 0.0:
            if time.monotonic() + delay_s > deadline:
                raise LinkError(f"its answer to another program is late, and may come for {delay_s:.1f} s yet")
            await asyncio.sleep(delay_s)

    async def _take(self, unit_id: int, deadline: float, limit_s: float, again: bool) -> float:
        """Take the line; or let it go again, and return the seconds for which the unit must not be asked yet."""
        await self._until(self._take_head, deadline, limit_s)
        try:
            await self._until(self._take_line, deadline, limit_s)
        finally:
            if self._descriptor is not None:
                self._lock_head(fcntl.F_UNLCK)
        try:
            now = ticks()
            self._note = self._read().settled(now)
            is_welcome = again and self._note.late == unit_id
            if (delay := self._note.wait(unit_id, now)) and not is_welcome:
                self._leave(self._note)
                return delay * _TICK_S
            if left := ahead(self._note.asked_until, now):
                await asyncio.sleep(min(left * _TICK_S, self._silence_s))
        except BaseException:
            self.let_go()
            raise
        return 0.0

    async def _until(self, attempt: Callable[[], bool], deadline: float, limit_s: float) -> None:
        # The kernel's own waiting could be given up only by leaving a thread in it; a look in each silence costs less than that.
        while not attempt():
            if time.monotonic() >= deadline:
                raise LinkError(f"another program has held the line for {limit_s:g} s")
            await asyncio.sleep(self._silence_s * random.uniform(0.5, 1.0))

    def asks(self, unit_id: int, reply_s: float) -> None:
        """A request goes out, whose reply may come for `reply_s`, whatever becomes of us."""
        self._reply_until_s = time.monotonic() + reply_s
        self._note = Note(unit_id, ticks(reply_s), self._note.late, self._note.late_until)
        self._write(self._note)
        self.asking = True

    def answered(self) -> None:
        """The turn is over, and nothing can come any more."""
        self._leave(Note(EVERY_UNIT, ticks(self._silence_s), self._note.late, self._note.late_until))

    def failed(self) -> None:
        """The turn is over, and the reply may still come."""
        self._late_until_s = self._reply_until_s
        self._leave(self._note.failed(ticks(self._silence_s), ticks()))

    def let_go(self) -> None:
        """The turn is over, and nothing was sent in it."""
        self.asking = False
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """End all this. The descriptor stays open while a reply is late: the last one of a line takes the note along."""
        if self._descriptor is None:
            return
        with suppress(OSError):  # the line is gone
            self._lock_head(fcntl.F_UNLCK)
            self.let_go()
        self._descriptor = None
        left_s = self._late_until_s - time.monotonic()
        if left_s > 0:
            asyncio.get_running_loop().call_later(left_s, self._close)  # or with the loop: the handle keeps this object
        else:
            self._close()

    def _close(self) -> None:
        self._closing()

    def _leave(self, note: Note) -> None:
        try:
            self._write(note)
        finally:
            self.let_go()

    def _take_line(self) -> bool:
        try:
            fcntl.flock(self._open_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _take_head(self) -> bool:
        try:
            self._lock_head(fcntl.F_WRLCK)
        except BlockingIOError:
            return False
        return True

    def _lock_head(self, kind: int) -> None:
        fcntl.fcntl(self._open_descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 1, 0))

    def _read(self) -> Note:
        return Note.unpack(fcntl.ioctl(self._open_descriptor, termios.TIOCGWINSZ, bytes(_NOTE.size)))

    def _write(self, note: Note) -> None:
        fcntl.ioctl(self._open_descriptor, termios.TIOCSWINSZ, note.pack())

    @property
    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise ConnectionError("closed")
        return self._descriptor

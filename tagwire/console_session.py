"""What the console's commands share: the bus, the output, and the patterns whose changes are printed."""

import asyncio
import getpass
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress

from scada.bus_messages import decode_data
from scada.commands import MAX_WHO_CHARACTERS
from scada.errors import LinkError
from scada.values import BadValue, Sample
from tagwire.bus_visit import BusVisit
from tagwire.console_output import Output
from tagwire.console_values import Pattern, cells, line, picture, printable

FLUSH_S = 0.05
HEARD_S = 0.3
"""The value that was set comes on another topic than the verdict, within a few milliseconds."""
SETTLE_S = 1.5
"""Programs renew what they keep at the broker once a second."""
ORIGIN = "console"

OnSample = Callable[[str, Sample], None]


class Usage(Exception):
    """A command that was written wrong. Exit code 2."""


class Failed(Exception):
    """A command that could not be done now. Exit code 1."""


class Session:
    """One per console; in the loop."""

    def __init__(self, visit: BusVisit, output: Output) -> None:
        self.visit = visit
        self.topics = visit.topics
        self.output = output
        self.names: list[str] = []
        """Full names of the tags seen last, for completion."""
        self.patterns: list[str] = []
        self._set: dict[str, Sample] = {}
        self._unread = asyncio.Event()
        self._listeners: dict[str, list[tuple[Pattern, OnSample]]] = {}
        self._matches: dict[Pattern, dict[str, bool]] = {}

    @property
    def user(self) -> str:
        """Who gives commands."""
        try:
            return getpass.getuser()[:MAX_WHO_CHARACTERS]
        except (KeyError, OSError):  # a user id without a name
            return f"uid {os.getuid()}"

    def check_online(self) -> None:
        """Raise LinkError while the broker is away."""
        if not self.visit.online:
            raise LinkError(f"{self.visit.where}: {self.visit.error or 'not connected yet'}")

    async def samples(self, patterns: Iterable[Pattern]) -> dict[str, Sample]:
        """The last samples of all tags that `patterns` can match, by full name; perhaps others too. Raises LinkError.

        What this session has set is among them, although what programs keep at the broker may be a second older.
        """
        self.check_online()
        devices = {pattern.device for pattern in patterns}
        filters = [self.topics.state("+", each) for each in ({"+"} if "+" in devices else devices)]
        found, faults = picture(self.topics, await self.visit.retained(filters))
        for fault in faults[:3]:
            self.output.complain(f"not understood: {printable(fault)}")
        for name, sample in list(self._set.items()):
            if name in found and found[name].time_ms >= sample.time_ms:
                del self._set[name]
            elif name in found or not devices.isdisjoint((name.partition("@")[0], "+")):
                found[name] = sample
        if "+" in devices:
            self.names = list(found)
        return found

    @asynccontextmanager
    async def hearing(self, name: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
        """While a tag is set: the samples of it that come. Gives what waits for one of `time_ms` or later, for HEARD_S."""
        news = asyncio.Event()
        newest: list[Sample] = []

        def take(_: str, sample: Sample) -> None:
            newest[:] = [sample]
            news.set()

        async def heard(time_ms: int) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARD_S):
                    while not newest or newest[0].time_ms < time_ms:
                        news.clear()
                        await news.wait()
                    self._set[name] = newest[0]

        pattern = Pattern(name, exact=True)
        self.listen(pattern, take)
        try:
            yield heard
        finally:
            self.unlisten(pattern, take)

    async def settle(self) -> None:
        """Wait until what was set is also what the broker keeps, for SETTLE_S: who comes next shall see it."""
        devices = {name.partition("@")[0] for name in self._set}
        filters = [self.topics.state("+", each) for each in devices]
        news = asyncio.Event()

        def take(topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
            found, _ = picture(self.topics, {topic: payload})
            for name, sample in list(self._set.items()):
                if name in found and found[name].time_ms >= sample.time_ms:
                    del self._set[name]
            news.set()

        if not filters or not self.visit.online:
            return
        self.visit.follow(filters, take)
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while self._set:
                    news.clear()
                    await news.wait()
        self.visit.unfollow(filters)

    def listen(self, pattern: Pattern, handler: OnSample) -> None:
        """Give every change of tags that match to `handler`."""
        topic = self.topics.data("+", pattern.device)
        known = self._listeners.setdefault(topic, [])
        known.append((pattern, handler))
        if len(known) == 1:
            self.visit.follow([topic], self._take)

    def unlisten(self, pattern: Pattern, handler: OnSample) -> None:
        """And no longer."""
        topic = self.topics.data("+", pattern.device)
        known = self._listeners[topic]
        known.remove((pattern, handler))
        self._matches.pop(pattern, None)
        if not known:
            del self._listeners[topic]
            self.visit.unfollow([topic])

    def print_change(self, name: str, sample: Sample) -> None:
        """A change as a line, soon."""
        self.output.hold(
            line(cells(name, sample, self.output.terminal), (32, 14, 14, 12) if self.output.terminal else None)
        )

    async def flush_for_ever(self) -> None:
        """Writes what is held, a few times a second."""
        while True:
            await asyncio.sleep(FLUSH_S)
            self.output.flush()
            if self.output.closed:
                self._unread.set()

    async def wait(self, seconds: float | None) -> None:
        """Let changes come for a while, or (None) until the command is ended or nobody reads the output."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._unread.wait()
        self.output.flush()

    def _take(self, topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        parts = self.topics.split(topic)
        if parts is None:
            return
        try:
            samples, _ = decode_data(payload)
        except BadValue as error:
            self.output.hold(f"{topic}: {error}")
            return
        # One message has one device; both filters that can have brought it are looked at, each sample is told once a pattern.
        for device in dict.fromkeys((parts.device, "+")):
            for pattern, handler in self._listeners.get(self.topics.data("+", device), ()):
                matches = self._matches.setdefault(pattern, {})
                for sample in samples:
                    name = f"{parts.device}@{sample.tag}"
                    if name not in matches:
                        matches[name] = bool(pattern.find((name,)))
                    if matches[name]:
                        handler(name, sample)

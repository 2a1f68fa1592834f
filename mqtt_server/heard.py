"""Which devices have spoken live: of those a retained message may be older than what stands in the registers already.

Kept in the database, because after a restart the broker delivers what it has retained once more. The first live message of a
device is acknowledged when that is on disk: killed before, it is sent again. All later ones cost a look into a set.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from links.backoff import Backoff
from mqtt_server.slots import Ticket
from scada.errors import LinkError
from storage.heard_store import HeardStore

log = logging.getLogger(__name__)


class Heard:
    """The gateway's memory of its devices' voices; `owns` says which of the stored ones are its own."""

    def __init__(self, store: HeardStore, executor: Executor, owns: Callable[[int], bool]) -> None:
        self._store = store
        self._executor = executor
        self._owns = owns
        self._settle: Callable[[Iterable[Ticket]], None]
        self.live: set[int] = set()
        """Devices that have spoken since the start of the program."""
        self._stored: dict[int, str] = {}
        """What is on disk, or on its way there."""
        self._is_judged = False
        self._changed: dict[int, str | None] = {}
        self._tickets: list[Ticket] = []
        self._ready = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._error: str | None = None

    def attach(self, settle: Callable[[Iterable[Ticket]], None]) -> None:
        """`settle` is told which messages are done with here."""
        self._settle = settle

    async def load(self) -> None:
        """What an earlier run knew; raises LinkError."""
        stored = await asyncio.get_running_loop().run_in_executor(self._executor, self._store.load)
        self._stored = {device_id: topic for device_id, topic in stored.items() if self._owns(device_id)}

    def keep(self, topics: dict[int, str | None]) -> None:
        """The first configuration of this run: a device that is not in it, or has another topic, was not listened to."""
        for device_id, topic in list(self._stored.items()):
            if topics.get(device_id) != topic:
                self.forget(device_id)

    def add(self, device_id: int, topic: str, ticket: Ticket) -> None:
        """The first live message of a device in this run; it is acknowledged when that is on disk."""
        self.live.add(device_id)
        if self._stored.get(device_id) == topic:
            return
        self._stored[device_id] = topic
        ticket.waiting += 1
        self._tickets.append(ticket)
        self._change(device_id, topic)

    def judge(self, resumed: bool) -> None:
        """Whether the broker has kept our session; what counts is how it was when the program began.

        Where it has not, nobody knows what was sent meanwhile: what is retained may be all that is left of it.
        """
        if not self._is_judged:
            self._is_judged = True
            if not resumed:
                for device_id in self._stored.keys() - self.live:
                    self.forget(device_id)

    def precedes(self, device_id: int) -> bool:
        """Whether what is retained for a device is no news."""
        return device_id in self.live or device_id in self._stored

    def forget(self, device_id: int) -> None:
        """The device is gone, or listens to something else."""
        self.live.discard(device_id)
        if self._stored.pop(device_id, None) is not None:
            self._change(device_id, None)

    async def written(self) -> None:
        """Wait until everything is on disk."""
        await self._quiet.wait()

    async def run(self) -> None:
        """Write until cancelled. What the database does not take is tried again; its messages do not wait for that."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(first_s=0.1, cap_s=5.0)
        while True:
            await self._ready.wait()
            self._ready.clear()
            changed, self._changed = self._changed, {}
            tickets, self._tickets = self._tickets, []
            heard = {device_id: topic for device_id, topic in changed.items() if topic is not None}
            forgotten = changed.keys() - heard.keys()
            try:
                await loop.run_in_executor(self._executor, self._store.apply, heard, forgotten)
            except LinkError as error:
                if self._error is None:
                    log.error("which devices were heard cannot be stored for now: %s", error)
                self._error = str(error)
                self._changed = changed | self._changed
                self._settle(tickets)
                await asyncio.sleep(backoff.next_delay_s())
                self._ready.set()
                continue
            if self._error is not None:
                log.warning("which devices were heard is stored again")
                self._error = None
                backoff.reset()
            self._settle(tickets)
            if not self._ready.is_set():
                self._quiet.set()

    def _change(self, device_id: int, topic: str | None) -> None:
        self._changed[device_id] = topic
        self._ready.set()
        self._quiet.clear()

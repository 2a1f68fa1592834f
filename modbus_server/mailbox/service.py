"""Runs the mailbox beside the Modbus server: opens the database, follows the configuration, joins the bus, ends in order."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import Engine

from links.bus import Bus
from links.bus_leftovers import Leftovers
from links.command_desk import CommandDesk
from links.lock import hold_lock
from links.loop import until
from modbus_server.mailbox.commands import MailboxCommands
from modbus_server.mailbox.journal import Journal
from modbus_server.mailbox.mailbox import Mailbox, Use
from modbus_server.mailbox.plans import PROTOCOL, MailboxPlan, compile_device
from modbus_server.settings import MailboxSettings
from scada.errors import LinkError
from scada.modbus.image import Image
from scada.topics import BusTopics
from storage.bus_buffer import BusBuffer
from storage.command_store import CommandLog
from storage.config_reader import ConfigReader
from storage.config_watch import Change, ConfigWatch
from storage.engine import BUSY_TIMEOUT_S
from storage.opening import open_database
from storage.step_writer import StepWriter

logger = logging.getLogger(__name__)

LAST_WORDS_S = 1.0
"""At the end, time for the steps of commands to reach the disk."""
_REMEMBERED_MS = 3_600_000


async def run_mailbox(settings: MailboxSettings, images: Mapping[int, Image], use: Use, stop: asyncio.Event) -> None:
    """Run until `stop`; raises ConfigError for a database that can never be read, or when another server holds the lock.

    Where no device ever had registers here, the bus is not joined.
    """
    # A thread that waits for a locked database cannot be cancelled, and Python waits for it at the end: it is called off.
    ended = threading.Event()

    def wait_on(waited_s: float) -> bool:
        return waited_s < BUSY_TIMEOUT_S and not ended.is_set()

    with hold_lock(settings.data_dir / f"{PROTOCOL}.lock", "the mailbox of the Modbus server"):
        engine = await until(stop, open_database(settings.database_uri, wait_on))
        if engine is None:
            ended.set()
            return
        try:
            with ThreadPoolExecutor(1, "writing") as writing, ThreadPoolExecutor(1, "reading") as reading:
                watch = ConfigWatch(ConfigReader(engine), lambda _: True, compile_device, reading)
                changes = watch.changes()
                first = await until(stop, _first(changes, _buffer_path(settings)))
                if first is not None:
                    await _Running(settings, images, use, engine, writing).run(first, changes, stop)
                ended.set()
        finally:
            ended.set()
            engine.dispose()


def _buffer_path(settings: MailboxSettings) -> Path:
    return settings.data_dir / f"bus-{PROTOCOL}.sqlite"


async def _first(changes: AsyncIterator[Change[MailboxPlan]], buffer: Path) -> Change[MailboxPlan] | None:
    """The first change with a device of ours; where an earlier run was on the bus, any: what it told has to be withdrawn."""
    was_here = await asyncio.to_thread(buffer.exists)
    async for change in changes:
        if change.plans or was_here:
            return change
    return None


class _Running:
    """The mailbox with everything around it. `writing` carries out what waits for the disk."""

    def __init__(
        self, settings: MailboxSettings, images: Mapping[int, Image], use: Use, engine: Engine, writing: Executor
    ) -> None:
        topics = BusTopics(settings.bus.root)
        buffer = BusBuffer(_buffer_path(settings), settings.bus.buffer_rows)
        journal = Journal(settings.data_dir / f"bus-{PROTOCOL}.journal")
        self._bus = Bus(settings.mqtt, topics, PROTOCOL, buffer=buffer, on_safe=journal.safe)
        self._mailbox = Mailbox(self._bus, topics, images, use, settings.folder, journal)
        self._leftovers = Leftovers(self._bus, topics, PROTOCOL, self._mailbox.told)
        self._log = CommandLog(engine)
        self._steps = StepWriter(self._log, writing)
        performer = MailboxCommands(self._mailbox)
        self._desk = CommandDesk(self._bus, topics, performer, self._steps.store, answers_unknown=False)
        self._writing = writing

    async def run(
        self, first: Change[MailboxPlan], changes: AsyncIterator[Change[MailboxPlan]], stop: asyncio.Event
    ) -> None:
        """Until `stop`."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writing, self._mailbox.open)
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._steps.run(), name="steps of commands"),
                    tasks.create_task(self._desk.run(), name="commands"),
                    tasks.create_task(self._leftovers.run(), name="leftovers"),
                ]
                await self._apply(first)
                with contextlib.suppress(LinkError):  # the book of ids then starts empty: commands live for seconds
                    since_ms = time.time_ns() // 1_000_000 - _REMEMBERED_MS
                    self._desk.remember(await loop.run_in_executor(self._writing, self._log.recent_ids, since_ms))
                self._bus.start()
                running.append(tasks.create_task(self._follow(changes), name="configuration"))
                await stop.wait()
                await self._desk.close()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LAST_WORDS_S):
                        await self._steps.written()
                await self._bus.close()
                for task in running:
                    task.cancel()
        finally:
            self._mailbox.close()

    async def _follow(self, changes: AsyncIterator[Change[MailboxPlan]]) -> None:
        async for change in changes:
            await self._apply(change)

    async def _apply(self, change: Change[MailboxPlan]) -> None:
        loop = asyncio.get_running_loop()
        layout = await loop.run_in_executor(self._writing, self._mailbox.lay_out, change)
        # First: a kill in between must not leave a tag in force that the next start would not be careful with.
        await loop.run_in_executor(self._writing, self._mailbox.save_guard, layout)
        self._mailbox.apply(change, layout)
        inbox, display = self._mailbox.inbox, self._mailbox.display
        logger.info("configuration %d: %d tags from registers, %d shown", change.revision, len(inbox), len(display))

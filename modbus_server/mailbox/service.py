"""Runs the mailbox beside the Modbus server: opens the database, follows the configuration, joins the bus, ends in order."""

import asyncio
import contextlib
import logging
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
from modbus_server.mailbox.plans import MailboxPlan, compile_device
from modbus_server.settings import MailboxSettings
from scada.modbus.image import Image
from scada.topics import BusTopics
from storage.bus_buffer import BusBuffer
from storage.command_store import CommandLog
from storage.config_reader import ConfigReader
from storage.config_watch import Change, ConfigWatch
from storage.opening import Patience, open_database
from storage.step_writer import StepWriter, recent_ids

logger = logging.getLogger(__name__)

LAST_WORDS_S = 1.0
"""At the end, time for the steps of commands to reach the disk."""


async def run_mailbox(settings: MailboxSettings, images: Mapping[int, Image], use: Use, stop: asyncio.Event) -> None:
    """Run until `stop`; raises ConfigError for a database that can never be read, or when another server holds the lock.

    Where no device ever had registers here, the bus is not joined.
    """
    owner, patience = settings.owner, Patience()
    with hold_lock(owner.data_dir / f"{owner.name}.lock", "the mailbox of the Modbus server"):
        engine = await until(stop, open_database(owner.database_uri, patience))
        if engine is None:
            patience.end()
            return
        try:
            with ThreadPoolExecutor(1, "writing") as writing, ThreadPoolExecutor(1, "reading") as reading:
                watch = ConfigWatch(ConfigReader(engine), lambda _: True, compile_device, reading)
                changes = watch.changes()
                first = await until(stop, _first(changes, owner.buffer_path))
                if first is not None:
                    await _Running(settings, images, use, engine, writing).run(first, changes, stop)
                patience.end()
        finally:
            patience.end()
            engine.dispose()


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
        owner = settings.owner
        topics = BusTopics(owner.bus.root)
        buffer = BusBuffer(owner.buffer_path, owner.bus.buffer_rows)
        journal = Journal(owner.data_dir / f"bus-{owner.name}.journal")
        self._bus = Bus(owner.mqtt, topics, owner.name, buffer=buffer, on_safe=journal.safe)
        self._mailbox = Mailbox(self._bus, topics, images, use, settings.folder, journal)
        self._leftovers = Leftovers(self._bus, topics, owner.name, self._mailbox.told)
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
                self._desk.remember(await recent_ids(self._log, self._writing))
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

"""Runs the field server: reads the settings, builds the objects, ends them in order."""

import asyncio
import contextlib
import gc
import logging
import signal
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial

from drivers.registry import load_drivers
from field_server.commands import FieldCommands
from field_server.feeds import Feeds
from field_server.field import Field
from field_server.leftovers import Leftovers
from field_server.plans import DevicePlan, compile_device
from field_server.settings import Settings
from links.bus import Bus
from links.command_desk import CommandDesk
from links.environment import exit_on_config_error
from links.lock import hold_lock
from links.logs import start_logging
from links.loop import new_event_loop, until
from links.notify import notify_ready, notify_stopping
from scada.errors import LinkError
from scada.topics import BusTopics
from storage.bus_buffer import BusBuffer
from storage.command_store import CommandLog
from storage.config_reader import ConfigReader
from storage.config_watch import ConfigWatch
from storage.engine import BUSY_TIMEOUT_S
from storage.opening import open_database
from storage.step_writer import StepWriter

log = logging.getLogger("field_server")

GC_THRESHOLD = 50_000
"""Polling makes no cycles: looking for them every 700 objects, Python's default, only costs time."""
ID_KEPT_MS = 3_600_000
LAST_WORDS_S = 1.0
"""At the end, time for the steps of commands to reach the disk."""


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    # A thread that waits for a locked database cannot be cancelled, and Python waits for it at the end: it is called off.
    ended = threading.Event()

    def wait_on(waited_s: float) -> bool:
        return waited_s < BUSY_TIMEOUT_S and not ended.is_set()

    engine = await until(stop, open_database(settings.database_uri, wait_on))
    if engine is None:
        ended.set()
        return
    drivers = load_drivers()
    topics = BusTopics(settings.bus.root)
    with ThreadPoolExecutor(1, "writing") as writing, ThreadPoolExecutor(1, "reading") as reading:
        buffer = BusBuffer(settings.data_dir / f"bus-{settings.owner}.sqlite", settings.bus.buffer_rows)
        bus = Bus(settings.mqtt, topics, settings.owner, buffer=buffer)
        field = Field(bus, settings.connects_per_s)
        steps = StepWriter(CommandLog(engine), writing)
        performer = FieldCommands(field, drivers)
        desk = CommandDesk(bus, topics, performer, steps.store, answers_unknown=settings.shard.count == 1)
        feeds = Feeds(bus, topics, field, drivers)
        leftovers = Leftovers(bus, topics, settings.owner, field)
        compiler = partial(compile_device, drivers=drivers, periods_ms=settings.periods_ms)
        watch = ConfigWatch(ConfigReader(engine), settings.shard.owns, compiler, reading)
        try:
            await until(stop, remember(desk, CommandLog(engine), writing))
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(steps.run(), name="steps of commands"),
                    tasks.create_task(desk.run(), name="commands"),
                    tasks.create_task(follow(field, feeds, bus, watch), name="configuration"),
                    tasks.create_task(leftovers.run(), name="leftovers"),
                ]
                await stop.wait()
                log.info("stopping")
                notify_stopping()
                await desk.close()
                await field.close()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LAST_WORDS_S):
                        await steps.written()
                ended.set()
                await bus.close()
                for task in running:
                    task.cancel()
        finally:
            ended.set()
            engine.dispose()


async def remember(desk: CommandDesk, commands: CommandLog, executor: Executor) -> None:
    """Before the first command arrives: the ids of those that an earlier run has seen."""
    since_ms = time.time_ns() // 1_000_000 - ID_KEPT_MS
    try:
        desk.remember(await asyncio.get_running_loop().run_in_executor(executor, commands.recent_ids, since_ms))
    except LinkError as error:
        log.error("commands of an earlier run are not known, so one that comes again is not recognised: %s", error)


async def follow(field: Field, feeds: Feeds, bus: Bus, watch: ConfigWatch[DevicePlan]) -> None:
    """Put the configuration into force, then each change of it."""
    first = True
    async for change in watch.changes():
        field.apply(change)
        feeds.apply(change)
        devices, tags, links = field.sizes
        log.info("configuration %d: %d devices, %d tags, %d links", change.revision, devices, tags, links)
        if first:
            first = False
            bus.start()
            notify_ready(f"{devices} devices, {tags} tags")


@exit_on_config_error
def main() -> None:
    """The program."""
    gc.set_threshold(GC_THRESHOLD)
    start_logging()
    settings = Settings.from_env()
    with (
        hold_lock(settings.data_dir / f"{settings.owner}.lock", "field_server"),
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        runner.run(serve(settings))


if __name__ == "__main__":
    main()

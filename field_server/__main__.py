"""Runs the field server: reads the settings, builds the objects, ends them in order."""

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from drivers.registry import load_drivers
from field_server.commands import FieldCommands
from field_server.feeds import Feeds
from field_server.field import Field
from field_server.plans import DevicePlan, compile_device
from field_server.settings import Settings
from links.bus import Bus
from links.bus_leftovers import Leftovers
from links.command_desk import CommandDesk
from links.environment import exit_on_config_error
from links.lock import hold_lock
from links.logs import start_logging
from links.loop import collect_rarely, new_event_loop, stop_on_signals, until
from links.notify import notify_ready, notify_stopping
from scada.topics import BusTopics
from storage.bus_buffer import BusBuffer
from storage.command_store import CommandLog
from storage.config_reader import ConfigReader
from storage.config_watch import ConfigWatch
from storage.opening import Patience, open_database
from storage.step_writer import StepWriter, recent_ids

log = logging.getLogger("field_server")

LAST_WORDS_S = 1.0
"""At the end, time for the steps of commands to reach the disk."""


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    owner, stop, patience = settings.owner, stop_on_signals(), Patience()
    engine = await until(stop, open_database(owner.database_uri, patience))
    if engine is None:
        patience.end()
        return
    drivers = load_drivers()
    topics = BusTopics(owner.bus.root)
    with ThreadPoolExecutor(1, "writing") as writing, ThreadPoolExecutor(1, "reading") as reading:
        buffer = BusBuffer(owner.buffer_path, owner.bus.buffer_rows)
        bus = Bus(owner.mqtt, topics, owner.name, buffer=buffer)
        field = Field(bus, settings.connects_per_s)
        steps = StepWriter(CommandLog(engine), writing)
        performer = FieldCommands(field, drivers)
        desk = CommandDesk(bus, topics, performer, steps.store, answers_unknown=settings.shard.count == 1)
        feeds = Feeds(bus, topics, field, drivers)
        leftovers = Leftovers(bus, topics, owner.name, field.told, field.recall)
        compiler = partial(compile_device, drivers=drivers, periods_ms=settings.periods_ms)
        watch = ConfigWatch(ConfigReader(engine), settings.shard.owns, compiler, reading)
        try:
            desk.remember(await until(stop, recent_ids(CommandLog(engine), writing)) or ())
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
                patience.end()
                await bus.close()
                for task in running:
                    task.cancel()
        finally:
            patience.end()
            engine.dispose()


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
    collect_rarely()
    start_logging()
    settings = Settings.from_env()
    with (
        hold_lock(settings.owner.data_dir / f"{settings.owner.name}.lock", "field_server"),
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        runner.run(serve(settings))


if __name__ == "__main__":
    main()

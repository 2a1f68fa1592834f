"""Runs the gateway: reads the settings, builds the objects, ends them in order."""

import asyncio
import contextlib
import gc
import logging
import signal
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Engine

from links.backoff import Backoff
from links.environment import exit_on_config_error
from links.lock import hold_lock
from links.logs import start_logging
from links.loop import new_event_loop
from links.mqtt import MqttLink, Will
from links.notify import notify_ready, notify_stopping
from mqtt_server.gateway import Gateway
from mqtt_server.parking import Parking
from mqtt_server.rejects import Rejects
from mqtt_server.settings import Settings
from mqtt_server.watch import ConfigWatch
from scada.errors import LinkError
from storage.config_reader import ConfigReader
from storage.damage import set_aside
from storage.engine import BUSY_TIMEOUT_S, WaitOn, open_engine
from storage.event_store import RejectLog
from storage.migrate import migrate
from storage.outbox import Outbox, OutboxRow

log = logging.getLogger("mqtt_server")

T = TypeVar("T")

SWITCH_S = 0.0005
"""The worker threads (database) give the loop its turn after this long, not after Python's default of 5 ms."""

GC_THRESHOLD = 50_000
"""Messages make no cycles: looking for them every 700 objects, Python's default, only costs time."""

DRAIN_S = 1.5
"""At the end, time for what waits to reach its device; then as long for the rest, and the rejects, to reach the database."""


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
    with ThreadPoolExecutor(1, "writing") as writing, ThreadPoolExecutor(1, "reading") as reading:
        rejects = Rejects(RejectLog(engine), writing)
        gateway = Gateway(rejects)
        parking = Parking(Outbox(engine), writing, gateway.settle)
        link = MqttLink(settings.mqtt, settings.client_id, gateway.receive, will=_will(settings.owner))
        watch = ConfigWatch(ConfigReader(engine), settings.shard, reading)
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(rejects.run(), name="rejects"),
                    tasks.create_task(parking.run(), name="parking"),
                    tasks.create_task(follow(gateway, parking, link, watch), name="configuration"),
                ]
                await stop.wait()
                log.info("stopping")
                notify_stopping()
                await drain(gateway, parking, rejects)
                ended.set()
                await link.close()
                for task in running:
                    task.cancel()
        finally:
            ended.set()
            rejects.report_unwritten()
            engine.dispose()


async def follow(gateway: Gateway, parking: Parking, link: MqttLink, watch: ConfigWatch) -> None:
    """Put the configuration into force, then each change of it. The broker is called when there is somewhere to write to."""
    first = True
    async for change in watch.changes():
        if first:
            gateway.attach(parking, link)
            gateway.restore(await load_outbox(parking))
        gateway.apply(change)
        devices, tags, endpoints = gateway.sizes
        log.info("configuration %d: %d devices, %d tags, %d endpoints", change.revision, devices, tags, endpoints)
        if first:
            first = False
            link.start()
            notify_ready(f"{devices} devices, {tags} tags")


async def load_outbox(parking: Parking) -> list[OutboxRow]:
    """What an earlier run left; nothing newer may be written before it is known."""
    backoff = Backoff(first_s=0.5, cap_s=10.0)
    told = ""
    while True:
        try:
            return await parking.load()
        except LinkError as error:
            if str(error) != told:
                log.error("outbox: cannot be read: %s", error)
                told = str(error)
            await asyncio.sleep(backoff.next_delay_s())


async def drain(gateway: Gateway, parking: Parking, rejects: Rejects) -> None:
    """Take no more messages; give what waits a moment to be written, and put the rest on disk."""
    gateway.stop_receiving()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            await gateway.drained()
    await gateway.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            await asyncio.gather(parking.drained(), rejects.flush())


async def open_database(uri: str, wait_on: WaitOn) -> Engine:
    """The database, migrated; tried again while it does not answer. Raises ConfigError for a URL that can never work."""
    backoff = Backoff(first_s=0.5, cap_s=10.0)
    told = ""
    while True:
        try:
            return await asyncio.to_thread(_open, uri, wait_on)
        except LinkError as error:
            if str(error) != told:
                log.error("database: %s", error)
                told = str(error)
            await asyncio.sleep(backoff.next_delay_s())


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None when `stop` comes first."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        return task.result()
    task.cancel()
    return None


def _open(uri: str, wait_on: WaitOn) -> Engine:
    engine = open_engine(uri, wait_on)
    try:
        migrate(engine)
        moved = set_aside(engine)
        if moved:
            # With an empty configuration every message that the broker has kept would be acknowledged and dropped.
            raise LinkError(
                f"{moved[-1]} was damaged and moved aside: messages are left to the broker until the configuration is "
                "restored and that file is moved elsewhere"
            )
    except BaseException:
        engine.dispose()
        raise
    return engine


def _will(owner: str) -> Will:
    return Will(f"tagwire/server/{owner}", b'{"online":false}', b'{"online":true}')


@exit_on_config_error
def main() -> None:
    """The program."""
    gc.set_threshold(GC_THRESHOLD)
    sys.setswitchinterval(SWITCH_S)
    start_logging()
    settings = Settings.from_env()
    with (
        hold_lock(settings.data_dir / f"mqtt_server-{settings.shard}.lock", "mqtt_server"),
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        runner.run(serve(settings))


if __name__ == "__main__":
    main()

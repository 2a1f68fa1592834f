"""Runs the gateway: reads the settings, builds the objects, ends them in order."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from links.backoff import Backoff
from links.bus import Bus
from links.bus_leftovers import Leftovers
from links.command_desk import CommandDesk
from links.environment import exit_on_config_error
from links.lock import hold_lock
from links.logs import start_logging
from links.loop import collect_rarely, new_event_loop, stop_on_signals, until
from links.mqtt import MqttLink
from links.notify import notify_ready, notify_stopping
from mqtt_server.commands import MqttCommands
from mqtt_server.gateway import Gateway
from mqtt_server.heard import Heard
from mqtt_server.intake import Intake
from mqtt_server.parking import Parking
from mqtt_server.rejects import Rejects
from mqtt_server.samples import Samples
from mqtt_server.settings import Settings
from scada.errors import LinkError
from scada.mapping import DevicePlan, compile_device
from scada.topics import BusTopics
from scada.values import Sample
from storage.bus_buffer import BusBuffer
from storage.command_store import CommandLog
from storage.config_reader import ConfigReader
from storage.config_watch import ConfigWatch
from storage.event_store import RejectLog
from storage.heard_store import HeardStore
from storage.opening import Patience, open_database
from storage.outbox import Outbox
from storage.step_writer import StepWriter, recent_ids

log = logging.getLogger("mqtt_server")
T = TypeVar("T")

SWITCH_S = 0.0005
"""The worker threads (database) give the loop its turn after this long, not after Python's default of 5 ms."""

DRAIN_S = 1.5
"""At the end, time for what waits to reach its device; then as long for the rest, and the rejects, to reach the database."""


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    owner, stop, patience = settings.owner, stop_on_signals(), Patience()
    engine = await until(stop, open_database(owner.database_uri, patience))
    if engine is None:
        patience.end()
        return
    topics = BusTopics(owner.bus.root)
    with (
        ThreadPoolExecutor(1, "writing") as writing,
        ThreadPoolExecutor(1, "reading") as reading,
        ThreadPoolExecutor(1, "hearing") as hearing,  # of its own: the outbox must not wait for it at a locked database
    ):
        buffer = BusBuffer(owner.buffer_path, owner.bus.buffer_rows)
        bus = Bus(owner.mqtt, topics, owner.name, buffer=buffer)
        rejects = Rejects(RejectLog(engine), writing)
        samples = Samples(bus)
        heard = Heard(HeardStore(engine), hearing, settings.shard.owns)
        gateway = Gateway(rejects, samples, heard, topics)
        heard.attach(gateway.settle)
        parking = Parking(Outbox(engine), writing, gateway.settle)
        link = MqttLink(owner.mqtt, settings.client_id, gateway.receive, on_change=gateway.connection)
        commands = MqttCommands(gateway.find, link, bus, samples, partial(_feed_own, gateway, owner.name))
        steps = StepWriter(CommandLog(engine), writing)
        desk = CommandDesk(bus, topics, commands, steps.store, answers_unknown=False)
        intake = Intake(bus, topics, owner.name, gateway.find, (samples, gateway.feeds, commands))
        leftovers = Leftovers(bus, topics, owner.name, intake.told, intake.recall)
        watch = ConfigWatch(ConfigReader(engine), settings.shard.owns, compile_device, reading)
        follower = Follower(gateway, (parking, heard), (link, bus), intake, commands)
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(work, name=name)
                    for name, work in (
                        ("rejects", rejects.run()),
                        ("parking", parking.run()),
                        ("heard", heard.run()),
                        ("silence", samples.watch()),
                        ("bus", intake.watch()),
                        ("leftovers", leftovers.run()),
                        ("steps of commands", steps.run()),
                        ("commands", desk.run()),
                        ("commands of an earlier run", remember(desk, recent_ids(CommandLog(engine), reading))),
                        ("configuration", follower.follow(watch)),
                    )
                ]
                await stop.wait()
                log.info("stopping")
                notify_stopping()
                gateway.stop_receiving()
                await desk.close()
                await drain(gateway, parking.drained(), heard.written(), rejects.flush(), steps.written())
                patience.end()
                samples.close()
                await asyncio.gather(link.close(), bus.close())
                for task in running:
                    task.cancel()
        finally:
            patience.end()
            rejects.report_unwritten()
            engine.dispose()


@dataclass(frozen=True, slots=True)
class Follower:
    """Puts the configuration into force. `stores`: what an earlier run left; `links`: the devices' and the bus."""

    gateway: Gateway
    stores: tuple[Parking, Heard]
    links: tuple[MqttLink, Bus]
    intake: Intake
    commands: MqttCommands

    async def follow(self, watch: ConfigWatch[DevicePlan]) -> None:
        """Each change of the configuration. The broker is called when there is somewhere to write to."""
        gateway, first = self.gateway, True
        async for change in watch.changes():
            if first:
                parking, heard = self.stores
                gateway.attach(parking, self.links[0])
                gateway.restore(await loaded("outbox", parking.load))
                await loaded("which devices were heard", heard.load)
                heard.keep({plan.device_id: plan.topic for plan in change.plans})
            names = {plan.device_id: plan.name for plan in change.plans}
            concerned = gateway.plans([*change.removed, *names])
            gone = [plan.name for plan in concerned if names.get(plan.device_id) != plan.name]
            ask = gateway.apply(change)
            for name in gone:
                self.commands.forget(name)
            for plan in change.plans:
                self.commands.forget(plan.name, plan.setpoints)
            self.intake.configure(ask)
            devices, tags, endpoints = gateway.sizes
            log.info("configuration %d: %d devices, %d tags, %d endpoints", change.revision, devices, tags, endpoints)
            if first:
                first = False
                for link in self.links:
                    link.start()
                notify_ready(f"{devices} devices, {tags} tags")


async def remember(desk: CommandDesk, ids: Awaitable[list[str]]) -> None:
    """So that none of these commands is carried out again."""
    desk.remember(await ids)


async def loaded(what: str, load: Callable[[], Awaitable[T]]) -> T:
    """What an earlier run left; nothing newer may be written before it is known."""
    backoff = Backoff(first_s=0.5, cap_s=10.0)
    told = ""
    while True:
        try:
            return await load()
        except LinkError as error:
            if str(error) != told:
                log.error("%s: cannot be read: %s", what, error)
                told = str(error)
            await asyncio.sleep(backoff.next_delay_s())


async def drain(gateway: Gateway, *stored: Awaitable[None]) -> None:
    """Give what waits a moment to be written, and put the rest on disk: then `stored` comes true."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            await gateway.drained()
    await gateway.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            await asyncio.gather(*stored)


def _feed_own(gateway: Gateway, owner: str, device: str, samples: list[Sample]) -> None:
    """What we have set ourselves, for other bindings of the same tags."""
    gateway.feeds.take(owner, device, samples, repeat=False, is_state=False)


@exit_on_config_error
def main() -> None:
    """The program."""
    collect_rarely()
    sys.setswitchinterval(SWITCH_S)
    start_logging()
    settings = Settings.from_env()
    with (
        hold_lock(settings.owner.data_dir / f"mqtt_server-{settings.shard}.lock", "mqtt_server"),
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        runner.run(serve(settings))


if __name__ == "__main__":
    main()

"""Follows the configuration: what changed since the last look, already compiled."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from dataclasses import dataclass

from mqtt_server.settings import Shard
from scada.errors import LinkError
from scada.mapping import DevicePlan, compile_device
from storage.config_reader import ConfigReader

log = logging.getLogger(__name__)

PERIOD_S = 0.25
"""A change takes effect within 1 s; reading one number four times a second costs nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """Plans that are new or different, and the ids of the devices that are gone."""

    revision: int
    plans: list[DevicePlan]
    removed: set[int]


class ConfigWatch:
    """The configuration as this process last saw it."""

    def __init__(self, reader: ConfigReader, shard: Shard, executor: Executor) -> None:
        self._reader = reader
        self._shard = shard
        self._executor = executor
        self._revision = -1
        self._known: set[int] = set()
        self._error: str | None = None

    async def changes(self) -> AsyncIterator[Change]:
        """One Change for each difference found, the first as soon as the database answers."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                change = await loop.run_in_executor(self._executor, self._look)
            except LinkError as error:
                if self._error is None:
                    log.error("configuration: cannot be read, the last one stays in force: %s", error)
                self._error = str(error)
            else:
                if self._error is not None:
                    log.warning("configuration: can be read again")
                    self._error = None
                if change is not None:
                    yield change
                    # The plans stay: the collector need not walk through a hundred thousand of them again and again.
                    gc.collect()
                    gc.freeze()
            await asyncio.sleep(PERIOD_S)

    def _look(self) -> Change | None:
        """In the worker thread."""
        revision = self._reader.revision()
        if revision == self._revision:
            return None
        # Lower than before: the database was replaced by another one, so nothing known of it holds.
        since = self._revision if revision > self._revision else -1
        present = {device_id for device_id in self._reader.device_ids() if self._shard.owns(device_id)}
        plans: list[DevicePlan] = []
        without_mqtt: set[int] = set()
        for device in self._reader.load_devices(since):
            if not self._shard.owns(device.id):
                continue
            plan = compile_device(device)
            if plan is None:
                without_mqtt.add(device.id)
            else:
                plans.append(plan)
        removed = (self._known - present) | (self._known & without_mqtt)
        self._known = (self._known - removed) | {plan.device_id for plan in plans}
        self._revision = revision
        return Change(revision, plans, removed)

"""Follows the configuration: what changed since the last look, already compiled by the program that asks."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from scada.config import DeviceConfig
from scada.errors import LinkError
from storage.config_reader import ConfigReader

log = logging.getLogger(__name__)

PERIOD_S = 0.25
"""A change takes effect within 1 s; reading one number four times a second costs nothing."""


class Plan(Protocol):
    """What a program makes of a device."""

    @property
    def device_id(self) -> int:
        """The device's id."""


P = TypeVar("P", bound=Plan)


@dataclass(frozen=True, slots=True)
class Change(Generic[P]):
    """Plans that are new or different, and the ids of the devices that are gone."""

    revision: int
    plans: list[P]
    removed: set[int]


class ConfigWatch(Generic[P]):
    """The configuration as this process last saw it: the devices that it owns and has a plan for."""

    def __init__(
        self,
        reader: ConfigReader,
        owns: Callable[[int], bool],
        compile_device: Callable[[DeviceConfig], P | None],
        executor: Executor,
    ) -> None:
        self._reader = reader
        self._owns = owns
        self._compile = compile_device
        self._executor = executor
        self._revision = -1
        self._known: set[int] = set()
        self._error: str | None = None

    async def changes(self) -> AsyncIterator[Change[P]]:
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

    def _look(self) -> Change[P] | None:
        """In the worker thread."""
        revision = self._reader.revision()
        if revision == self._revision:
            return None
        # Lower than before: the database was replaced by another one, so nothing known of it holds.
        since = self._revision if revision > self._revision else -1
        present = {device_id for device_id in self._reader.device_ids() if self._owns(device_id)}
        plans: list[P] = []
        without: set[int] = set()
        for device in self._reader.load_devices(since):
            if not self._owns(device.id):
                continue
            plan = self._compile(device)
            if plan is None:
                without.add(device.id)
            else:
                plans.append(plan)
        removed = (self._known - present) | (self._known & without)
        self._known = (self._known - removed) | {plan.device_id for plan in plans}
        self._revision = revision
        return Change(revision, plans, removed)

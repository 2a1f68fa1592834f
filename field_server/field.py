"""All links: a poller for each, and a new configuration put into force without touching what did not change."""

import asyncio
import logging
from collections.abc import Hashable, Iterable

from field_server.connects import Connects
from field_server.plans import DevicePlan, Part
from field_server.poller import Poller
from field_server.sink import Sink
from scada.config import Direction
from scada.values import Sample
from storage.config_watch import Change

log = logging.getLogger(__name__)


class Field:
    """Every device that this process reads. Runs in one event loop."""

    def __init__(self, sink: Sink, connects_per_s: float) -> None:
        self._sink = sink
        self._connects = Connects(connects_per_s)
        self._plans: dict[int, DevicePlan] = {}
        self._by_name: dict[str, DevicePlan] = {}
        self._noted: dict[str, dict[str, Sample]] = {}
        self._pollers: dict[Hashable, tuple[Poller, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Devices of ours, tags that are read, and links in force."""
        ours = [plan for plan in self._plans.values() if plan.parts]
        return len(ours), sum(len(part.sources) for plan in ours for part in plan.parts), len(self._pollers)

    def device(self, name: str) -> DevicePlan | None:
        """The plan of the device called `name`."""
        return self._by_name.get(name)

    def told(self, name: str) -> set[str] | None:
        """The tags of the device called `name` that we may tell of; None: the device is none of ours."""
        plan = self._by_name.get(name)
        return {tag.name for tag in plan.config.tags} if plan is not None and plan.parts else None

    def last(self, name: str, tag: str) -> Sample | None:
        """The sample of a device's tag that was told last."""
        plan = self._by_name.get(name)
        for part in () if plan is None else plan.parts:
            sample = self._pollers[part.key][0].last(part.device_id, tag)
            if sample is not None:
                return sample
        return self._noted.get(name, {}).get(tag)

    def note(self, name: str, samples: Iterable[Sample]) -> None:
        """Tell samples of tags that are never read: what was written there last."""
        plan = self._by_name.get(name)
        known = set() if plan is None else {tag.name for tag in plan.config.tags}
        samples = [sample for sample in samples if sample.tag in known]  # else it was taken out meanwhile
        if samples:
            self._noted.setdefault(name, {}).update((sample.tag, sample) for sample in samples)
            self._sink.publish(name, samples)

    def recall(self, name: str, samples: Iterable[Sample]) -> None:
        """Take over what an earlier run told of tags that are never read and were not set since."""
        plan = self._by_name.get(name)
        if plan is None:
            return
        setpoints = {
            tag.name
            for tag in plan.config.tags
            if not any(each.direction is not Direction.OUT for each in tag.bindings)
        }
        noted = self._noted.get(name, {})
        self.note(name, [each for each in samples if each.tag in setpoints and each.tag not in noted])

    def poller(self, part: Part) -> Poller:
        """The poller that reads a part."""
        return self._pollers[part.key][0]

    def apply(self, change: Change[DevicePlan]) -> None:
        """Put a new configuration into force; only the links of what changed are touched."""
        new = {plan.device_id: plan for plan in change.plans}
        # Names may change hands within one change: what was told under them is withdrawn before anything new is told.
        for device_id in [*change.removed, *new]:
            old = self._plans.get(device_id)
            if old is None or not old.parts:
                continue
            now = new.get(device_id)
            if now is None or now.name != old.name or not now.parts:
                self._sink.forget(old.name)
                self._noted.pop(old.name, None)
        for device_id in change.removed:
            self._leave(self._plans.pop(device_id), ())
        for plan in change.plans:
            self._put(plan)
        self._by_name = {plan.name: plan for plan in self._plans.values()}

    async def close(self) -> None:
        """End every link, and wait for it."""
        for key in list(self._pollers):
            self._end(key)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _put(self, plan: DevicePlan) -> None:
        for fault in plan.faults if plan.parts else ():
            log.error("%s: left out: %s", plan.name, fault)
        old = self._plans.get(plan.device_id)
        if old is not None:
            self._leave(old, plan.parts)
            gone = {tag.name for tag in old.config.tags} - {tag.name for tag in plan.config.tags}
            if gone and old.parts and old.name == plan.name:
                self._sink.forget(plan.name, gone)
                for name in gone:
                    self._noted.get(plan.name, {}).pop(name, None)
        self._plans[plan.device_id] = plan
        for part in plan.parts:
            known = self._pollers.get(part.key)
            if known is None:
                poller = Poller(part.driver, part.network, self._sink, self._connects)
                task = asyncio.create_task(poller.run(), name=f"poller {part.key}")
                known = self._pollers[part.key] = poller, task
            known[0].put(part)

    def _leave(self, plan: DevicePlan, parts: Iterable[Part]) -> None:
        """Take a device off the links that it has no more."""
        kept = {part.key for part in parts}
        for part in plan.parts:
            if part.key in kept:
                continue
            poller, _ = self._pollers[part.key]
            poller.remove(plan.device_id)
            if not poller.devices:
                self._end(part.key)

    def _end(self, key: Hashable) -> None:
        _, task = self._pollers.pop(key)
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

"""Reads that somebody waits for, ahead of those that are due: of calls, and of commands that look at what they wrote."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from drivers.contract import Link, Refusal, Request
from field_server.errands import Action
from field_server.reports import Reports
from field_server.turns import DeviceTurns
from scada.errors import DeviceRefused
from scada.values import BadValue, Sample, Value


class Asks:
    """Of the devices behind one link. Each request is one errand of the link, so that others get in between, and waits for the
    ceiling of its device before it, so that a slow device holds up nobody else.
    """

    def __init__(
        self,
        devices: Mapping[int, DeviceTurns],
        meaning: Callable[[int], Refusal],
        perform: Callable[[Action], Awaitable[None]],
        reports: Reports,
        heard: Callable[[DeviceTurns, int], None],
    ) -> None:
        """`devices` by id, as they are just now; `meaning` of a refusal's code; `heard`: a unit has answered a read."""
        self._devices = devices
        self._meaning = meaning
        self._perform = perform
        self._reports = reports
        self._heard = heard

    def last_raw(self, device_id: int, tag: str) -> Value | BadValue | None:
        """What was read of a device's tag last, before scaling and limits; None while nothing is known."""
        device = self._devices.get(device_id)
        return None if device is None else device.last_raw(tag)

    async def read(self, device_id: int, request: Request) -> Sequence[Value | BadValue]:
        """The values of one request, for nobody else; raises what `Link.read` raises, KeyError when the device has changed."""
        device = self._devices[device_id]
        found: Sequence[Value | BadValue] = ()

        async def read(link: Link) -> None:
            nonlocal found
            found = await link.read(request)

        await self._paced(device, read)
        self._check_same(device)
        return found

    async def read_now(self, device_id: int, tags: Sequence[str], *, whole: bool = True) -> list[Sample]:
        """The samples of tags of a device, which are told to everybody as well.

        Raises what `Link.read` raises; KeyError for a tag that is not read here, or when the device's configuration changes
        meanwhile. Not `whole`: a request that the device refuses makes its tags bad, as long as not every one is refused.
        """
        device = self._devices[device_id]
        asked, left, answered = frozenset(tags), dict.fromkeys(tags), False

        async def read(link: Link) -> None:
            nonlocal answered
            # Which request reads a tag may be another one than a moment ago.
            (job,) = device.jobs_of([next(iter(left))])
            for source in job.readings.sources:
                left.pop(source.tag, None)
            try:
                values = await link.read(job.request)
            except DeviceRefused as error:
                self._check_same(device)
                meaning = self._meaning(error.code)
                if meaning is not Refusal.UNREACHABLE:
                    self._heard(device, job.request.unit)
                if whole or not (left or answered):
                    raise
                self._reports.refused(device, job, error, meaning)
            else:
                self._check_same(device)
                answered = True
                self._heard(device, job.request.unit)
                self._reports.values(device, job, values, asked)

        while left:
            await self._paced(device, read)
        samples = [device.last(tag) for tag in tags]
        return [sample for sample in samples if sample is not None]

    async def _paced(self, device: DeviceTurns, action: Action) -> None:
        """Perform one request of a device as soon as its ceiling lets it."""
        is_done = False
        loop = asyncio.get_running_loop()

        async def attempt(link: Link) -> None:
            nonlocal is_done
            self._check_same(device)
            if device.take_place(loop.time(), by_turn=False):
                is_done = True
                await action(link)

        device.askers += 1
        try:
            while not is_done:
                wait_s = device.allowed_at - loop.time()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                await self._perform(attempt)
        finally:
            device.askers -= 1

    def _check_same(self, device: DeviceTurns) -> None:
        """Raise KeyError when a device is read by another configuration now: nothing more is to be told of it."""
        if self._devices.get(device.part.device_id) is not device:
            raise KeyError(device.part.device_id)

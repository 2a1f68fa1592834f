"""What the field server says of devices: samples, and whether a device answers."""

import time
from collections.abc import Collection, Sequence

from drivers.contract import Refusal
from field_server.samples import REFUSED
from field_server.sink import Sink
from field_server.turns import DeviceTurns, Job
from scada.errors import DeviceRefused
from scada.values import BadValue, Reason, Value


class Reports:
    """Of the devices behind one link, to the sink and, where a state changes, to the log, so many lines a minute."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def values(
        self, device: DeviceTurns, job: Job, values: Sequence[Value | BadValue], asked: Collection[str] = ()
    ) -> None:
        """What a request has read; what changed is told, and of the tags `asked` for everything."""
        samples = job.readings.take(values, time.time_ns() // 1_000_000, asked)
        if samples:
            self._sink.publish(device.part.device, samples)

    def refused(self, device: DeviceTurns, job: Job, error: DeviceRefused, meaning: Refusal) -> None:
        """The tags of a request that was refused are bad."""
        reason = REFUSED[meaning]
        samples = job.readings.fail(reason, time.time_ns() // 1_000_000)
        if samples:
            device.lines.warning("%s: %s: %d tags are bad (%s)", device.part.device, error, len(samples), reason)
            self._sink.publish(device.part.device, samples)

    def silent(self, device: DeviceTurns, unit: int, reason: Reason, error: str) -> None:
        """Everything that is read of a unit is bad."""
        time_ms = time.time_ns() // 1_000_000
        concerned = [turn for turn in device.turns if turn.unit == unit]
        if not concerned:
            return
        samples = [sample for turn in concerned for job in turn.jobs for sample in job.readings.fail(reason, time_ms)]
        if samples:
            self._sink.publish(device.part.device, samples)
        self._note(device, unit, error)

    def answers(self, device: DeviceTurns, unit: int) -> None:
        """A unit of the device is there."""
        if device.errors.get(unit, "") is not None:
            self._note(device, unit, None)

    def _note(self, device: DeviceTurns, unit: int, error: str | None) -> None:
        """Tell whether the device answers, when that has changed."""
        device.errors[unit] = error
        report = device.news()
        if report is None:
            return
        online, text = report
        if not online:
            device.lines.warning("%s: offline: %s", device.part.device, text)
        elif text is not None:
            device.lines.warning("%s: in part offline: %s", device.part.device, text)
        else:
            device.lines.info("%s: online", device.part.device)
        self._sink.link(device.part.device, online, text)

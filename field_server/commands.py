"""Carries commands out on the links: write once, then read back until the device shows what was set."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from drivers.contract import Driver, Link, Point
from field_server.field import Field
from field_server.plans import DevicePlan, Part, point
from field_server.poller import Poller
from links.command_desk import Report
from scada.commands import Call, Command, CommandState
from scada.config import BindingConfig, DeviceConfig, TagConfig
from scada.conversion import compile_engineering, compile_raw
from scada.errors import ConfigError, DeviceRefused, LinkError, ProtocolError
from scada.setpoints import command_route, is_reached, verification
from scada.sources import compile_source
from scada.values import BadValue, Quality, Reason, Sample, Value

FIRST_LOOK_S = 0.02
LAST_LOOK_S = 0.5
"""A value that is not there yet is looked for again after FIRST_LOOK_S, then after twice as long, up to this."""
MARGIN_S = 0.1
"""So much before its time is over (or a tenth of its time) a command that does not come true is judged, with what the device
shows instead."""


@dataclass(frozen=True, slots=True)
class _Target:
    """One tag on its way: where it is written, and where and how it is looked for."""

    tag: TagConfig
    value: Value
    binding: BindingConfig
    point: Point
    raw: Value
    feedback: TagConfig | None
    feedback_binding: BindingConfig | None


@dataclass(frozen=True, slots=True)
class _Setpoint:
    """A tag that is set at a place where it is not read otherwise."""

    tag: TagConfig
    binding: BindingConfig
    point: Point

    @property
    def own(self) -> TagConfig:
        """The tag without its scaling: the route's binding carries the one that is in force."""
        return replace(self.tag, scaling=None)


class FieldCommands:
    """The field server behind its command desk. `drivers` are those of `Field`."""

    def __init__(self, field: Field, drivers: Mapping[str, Driver]) -> None:
        self._field = field
        self._drivers = drivers

    def device(self, name: str) -> DeviceConfig | None:
        """The configuration of a device, of whatever protocols."""
        plan = self._field.device(name)
        return None if plan is None else plan.config

    def is_mine(self, owner: str) -> bool:
        """Everything that no other program answers for: the refusals of tags that nobody can set are ours."""
        return owner in ("field_server", "")

    def last_value(self, device: str, tag: str) -> Value | None:
        """The value told last."""
        sample = self._field.last(device, tag)
        return None if sample is None else sample.value

    async def carry_out(self, command: Command, report: Report, seconds: float) -> None:
        """See `links.command_desk.Performer`."""
        plan = self._field.device(command.device)
        if plan is None:
            raise ConfigError(f"device {command.device!r} was taken out of the configuration")
        part, targets = self._targets(plan, command)
        poller = self._field.poller(part)
        deadline = time.monotonic() + seconds - min(MARGIN_S, seconds / 10)
        is_sent = False

        async def write(link: Link) -> None:
            nonlocal is_sent
            if self._field.device(command.device) is not plan:
                raise ConfigError(f"{command.device}: its configuration changed meanwhile")
            points = [target.point for target in targets]
            link.can_write(points)
            if not report(CommandState.SENT):
                return
            is_sent = True
            await link.write([(target.point, target.raw) for target in targets])

        doubt = ""
        try:
            await poller.perform(write)
        except (LinkError, ProtocolError) as error:
            if not is_sent:
                raise
            # Never written twice: whether the device has taken it is seen when it is read.
            doubt = f"no answer to the write ({error})"
        if not is_sent:
            return
        watched = [target for target in targets if _is_watched(target)]
        if not doubt and not watched:
            self._tell_written(part, targets)
            report(CommandState.ACKNOWLEDGED, final=True)
            return
        if doubt and not watched:
            raise LinkError(doubt)
        if not doubt and not report(CommandState.ACKNOWLEDGED):
            return
        if await self._verify(_Verification(poller, part, watched, report, deadline, doubt)):
            self._tell_written(part, targets)

    async def read(self, call: Call) -> tuple[Sample, ...]:
        """See `links.command_desk.Performer`. A setpoint's place is read too, and told to nobody else: its value on the bus is
        the one that was set last, which is also the answer where the place cannot be read."""
        plan = self._field.device(call.device)
        if plan is None:
            raise ConfigError(f"device {call.device!r} was taken out of the configuration")
        wanted = set(call.tags)
        found: list[Sample] = []
        for part in plan.parts:
            tags = [source.tag for source in part.sources if not wanted or source.tag in wanted]
            if tags:
                poller = self._field.poller(part)
                found += await _read(poller, part, tags, whole=False)
        left = wanted - {sample.tag for sample in found}
        refusal: DeviceRefused | None = None
        for part, setpoints in _setpoints(plan, left):
            values, refusal = await _read_setpoints(self._field.poller(part), part, setpoints)
            time_ms = time.time_ns() // 1_000_000
            found += [compile_source(each.own, each.binding).sample(raw, time_ms, None) for each, raw in values]
        for name in sorted(left - {sample.tag for sample in found}):
            noted = self._field.last(call.device, name)
            if noted is not None:
                found.append(noted)
        if not found and refusal is not None:
            raise refusal
        if not found:
            raise ConfigError(f"{', '.join(sorted(wanted)) or call.device}: not read from the field by this program")
        return tuple(found)

    def _targets(self, plan: DevicePlan, command: Command) -> tuple[Part, list[_Target]]:
        tags = {tag.name: tag for tag in plan.config.tags}
        parts = {part.driver.protocol: part for part in plan.parts}
        targets = []
        used: set[str] = set()
        for name, value in command.values.items():
            binding = command_route(plan.config, tags[name]).binding
            part = parts.get(binding.protocol)
            if part is None:
                raise ConfigError(f"{plan.name}@{name}: set over {binding.protocol}, which is not for commands")
            used.add(binding.protocol)
            targets.append(_target(tags[name], value, binding, part, tags))
        if len(used) > 1:
            raise ConfigError(f"a group is written in one request, not over {' and '.join(sorted(used))}")
        return parts[used.pop()], targets

    async def _verify(self, task: "_Verification") -> bool:
        """Look until everything is reached, or the time is over; then say what is there instead. Whether it was reached."""
        pause_s = FIRST_LOOK_S
        shown = "it could not be read back in time"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, task.deadline - time.monotonic())):
                while True:
                    try:
                        shown = await task.look()
                    except (LinkError, ProtocolError, DeviceRefused, BadValue) as error:
                        shown = f"it could not be read back: {error}"
                        if task.poller.is_shared and isinstance(error, LinkError):
                            break  # each further look would cost the other units a timeout
                    if not shown:
                        break
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, LAST_LOOK_S)
        if shown:
            task.report(CommandState.FAILED, f"{task.doubt}; {shown}" if task.doubt else shown)
            return False
        if task.doubt and not task.report(CommandState.ACKNOWLEDGED, f"{task.doubt}, but the value is there"):
            return False
        return task.report(CommandState.VERIFIED)

    def _tell_written(self, part: Part, targets: list[_Target]) -> None:
        """A tag that is never read has the value that was set last."""
        read = {source.tag for source in part.sources}
        time_ms = time.time_ns() // 1_000_000
        samples = [
            Sample(target.tag.name, target.value, Quality.GOOD, time_ms, Reason.NONE)
            for target in targets
            if target.tag.name not in read
        ]
        if samples:
            self._field.note(part.device, samples)


@dataclass(slots=True)
class _Verification:
    poller: Poller
    part: Part
    targets: list[_Target]
    report: Report
    deadline: float
    doubt: str

    async def look(self) -> str:
        """Read everything once; what is not as it should be, "" when all is."""
        read = {source.tag for source in self.part.sources}
        names = [_watched_name(target) for target in self.targets]
        known = [name for name in names if name in read]
        found: dict[str, Value | None] = {}
        if known:
            await _read(self.poller, self.part, known)
        for target in self.targets:
            name = _watched_name(target)
            if name in read:
                found[name] = _engineering(target, self.poller.asks.last_raw(self.part.device_id, name))
            else:
                found[name] = await _read_point(self.poller, self.part, target)
        wrong = [
            f"{_watched_name(target)} shows {found[_watched_name(target)]!r}, not {target.value!r}"
            for target in self.targets
            if not is_reached(target.binding, target.value, found[_watched_name(target)], target.feedback_binding)
        ]
        return "; ".join(wrong)


def _target(tag: TagConfig, value: Value, binding: BindingConfig, part: Part, tags: Mapping[str, TagConfig]) -> _Target:
    wanted = verification(binding).feedback
    feedback, feedback_binding = None, None
    if wanted is not None:
        feedback = tags.get(wanted)
        source = None if feedback is None else next((s for s in part.sources if s.tag == wanted), None)
        if feedback is None or source is None:
            raise ConfigError(f"its feedback tag {wanted!r} is not read over the same link")
        feedback_binding = next(each for each in feedback.bindings if each.id == source.point.binding_id)
        if feedback_binding.scaling is None:
            feedback_binding = replace(feedback_binding, scaling=feedback.scaling)
    raw = compile_raw(tag, binding)(value)
    place = point(tag, binding, part.network, part.driver)
    return _Target(tag, value, binding, place, raw, feedback, feedback_binding)


def _is_watched(target: _Target) -> bool:
    wanted = verification(target.binding)
    return wanted.read_back or wanted.feedback is not None


def _watched_name(target: _Target) -> str:
    return target.tag.name if target.feedback is None else target.feedback.name


async def _read(poller: Poller, part: Part, tags: list[str], *, whole: bool = True) -> list[Sample]:
    with _gone(part.device):
        return await poller.asks.read_now(part.device_id, tags, whole=whole)


async def _read_point(poller: Poller, part: Part, target: _Target) -> Value | None:
    """The engineering value at a place that is not read otherwise; None when the bytes there are no value."""
    found, refusal = await _read_setpoints(poller, part, [_Setpoint(target.tag, target.binding, target.point)])
    if refusal is not None:
        raise refusal
    return _engineering(target, found[0][1])


def _engineering(target: _Target, raw: Value | BadValue | None) -> Value | None:
    """What `raw` says at the place where a target is looked for; None when it is no value. Without limits: one that clamps would
    show what was wanted, one that rejects would hide a float32's rounding."""
    if raw is None or isinstance(raw, BadValue):
        return None
    if target.feedback is not None and target.feedback_binding is not None:
        return compile_engineering(replace(target.feedback, scaling=None), target.feedback_binding)(raw)
    return compile_engineering(replace(target.tag, scaling=None), target.binding)(raw)


def _setpoints(plan: DevicePlan, names: Collection[str]) -> list[tuple[Part, list[_Setpoint]]]:
    """Those of the tags that are set over a link of this program, by link."""
    result = []
    for part in plan.parts:
        setpoints = []
        for tag in plan.config.tags:
            if tag.name in names:
                with contextlib.suppress(ConfigError):  # nobody can set it, so nobody can say where it would be
                    binding = command_route(plan.config, tag).binding
                    if binding.protocol == part.driver.protocol:
                        setpoints.append(_Setpoint(tag, binding, point(tag, binding, part.network, part.driver)))
        if setpoints:
            result.append((part, setpoints))
    return result


async def _read_setpoints(
    poller: Poller, part: Part, setpoints: Sequence[_Setpoint]
) -> tuple[list[tuple[_Setpoint, Value | BadValue]], DeviceRefused | None]:
    """What stands at these places, and the last refusal; a place that the device refuses to read is left out."""
    by_point = {each.point.binding_id: each for each in setpoints}
    found: list[tuple[_Setpoint, Value | BadValue]] = []
    refusal: DeviceRefused | None = None
    for request in poller.plan([each.point for each in setpoints]):
        try:
            with _gone(part.device):
                values = await poller.asks.read(part.device_id, request)
        except DeviceRefused as error:
            refusal = error
            continue
        found.extend((by_point[each.binding_id], raw) for each, raw in zip(request.points, values, strict=True))
    return found, refusal


@contextlib.contextmanager
def _gone(device: str) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise ConfigError(f"{device}: its configuration changed meanwhile") from error

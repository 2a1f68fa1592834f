"""The driver of simulated devices: physics that catches up with the clock whenever somebody looks."""

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from itertools import islice
from typing import Any

from drivers.contract import Driver, Point, Refusal, Request
from drivers.simulated.boiler import Boiler
from drivers.simulated.machine import Machine
from drivers.simulated.stress import Stress
from drivers.simulated.tank import Tank
from drivers.simulated.train import Train
from drivers.simulated.waveforms import Waveforms
from scada.errors import ConfigError, DeviceRefused, Fault, LinkError
from scada.protocols.simulated import Model, ModelPoint, SimulatedNetwork
from scada.values import TYPE_NAMES, BadValue, DataType, RejectCode, Value

# A bigger read would keep the loop busy for more than a millisecond.
MAX_POINTS = 1000
# Steps that one look may cost; time beyond goes into longer steps.
MAX_STEPS = 200

_MODELS: Mapping[Model, Callable[[SimulatedNetwork], Machine]] = {
    Model.TANK: lambda _: Tank(),
    Model.BOILER: lambda _: Boiler(),
    Model.TRAIN: lambda _: Train(),
    Model.STRESS: lambda network: Stress(network.points),
    Model.WAVEFORMS: lambda network: Waveforms(random.Random(network.seed)),
}


class Code(IntEnum):
    """Why a simulated device says no: the code of its DeviceRefused."""

    READ_ONLY = 1
    OUT_OF_RANGE = 2
    NOT_NOW = 3


_MEANINGS: Mapping[int, Refusal] = {
    Code.READ_ONLY: Refusal.CONFIG,
    Code.OUT_OF_RANGE: Refusal.DEVICE,
    Code.NOT_NOW: Refusal.BUSY,
}


class SimulatedLink:
    """One simulated device. It lives on while the link is closed, as a real one does."""

    def __init__(self, network: SimulatedNetwork, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never run backwards."""
        self._network = network
        self._machine = _MODELS[network.model](network)
        self._step_s = network.step_ms / 1000
        self._clock = clock
        self._at_s = clock()
        self._connected = False

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def learned(self) -> Sequence[str]:
        return ()

    async def connect(self) -> None:
        self._connected = True

    async def close(self) -> None:
        self._connected = False

    def plan(self, points: Sequence[Point]) -> Sequence[Request]:
        """Up to MAX_POINTS in each request."""
        rest = iter(points)
        requests = []
        while chunk := tuple(islice(rest, MAX_POINTS)):
            names = chunk[0].address.point, chunk[-1].address.point
            text = names[0] if len(chunk) == 1 else f"{len(chunk)} points, {names[0]} to {names[1]}"
            known = tuple(self._network.point(point.address.point) is not None for point in chunk)
            requests.append(Request(0, chunk, text, known))
        return requests

    async def read(self, request: Request) -> Sequence[Value | BadValue]:
        self._live()
        read = self._machine.read
        return [
            read(point.address.point) if known else self._unknown(point)
            for point, known in zip(request.points, request.detail, strict=True)
        ]

    def refused(self, request: Request, code: int) -> Sequence[Request] | None:
        return None

    def can_write(self, points: Sequence[Point]) -> None:
        """Every point that exists: whether it is writable the device itself says, as a real one would."""
        faults = [Fault(point.name, str(self._unknown(point))) for point in points if self._spec(point) is None]
        names = [point.address.point for point in points]
        if len(set(names)) < len(names):
            faults.append(Fault("", "one point cannot take two values at once"))
        if faults:
            raise ConfigError(faults)

    async def write(self, values: Sequence[tuple[Point, Value]]) -> None:
        self.can_write([point for point, _ in values])
        wanted = {}
        for point, value in values:
            spec = self._spec(point)
            assert spec is not None  # can_write has said so
            wanted[spec.name] = _typed(spec, value)
        self._live()
        for point, _ in values:
            self._check(point, wanted[point.address.point])
        objection = self._machine.objection(wanted)
        if objection:
            raise DeviceRefused(f"{objection} ({self._network.model}: {', '.join(wanted)})", Code.NOT_NOW)
        self._machine.write(wanted)

    def _live(self) -> None:
        """Let the time pass that has passed; raises LinkError when nobody connected."""
        if not self._connected:
            raise LinkError(f"the simulated {self._network.model} is not connected")
        owed = int((self._clock() - self._at_s) / self._step_s)
        if owed <= 0:
            return
        self._at_s += owed * self._step_s
        steps = min(owed, MAX_STEPS)
        dt_s = owed * self._step_s / steps
        for _ in range(steps):
            self._machine.step(dt_s)

    def _spec(self, point: Point) -> ModelPoint | None:
        spec = self._network.point(point.address.point)
        # One entry stands for all of a stress device's points.
        return spec and replace(spec, name=point.address.point)

    def _unknown(self, point: Point) -> BadValue:
        model = self._network.model
        return BadValue(RejectCode.BAD_CONFIG, f"the model {model} has no point {point.address.point!r:.70}")

    def _check(self, point: Point, value: Value) -> None:
        """Raise DeviceRefused for what the device would not do."""
        spec = self._spec(point)
        assert spec is not None
        if not spec.writable:
            raise DeviceRefused(f"{self._network.model}: {spec.name} cannot be written", Code.READ_ONLY)
        if spec.low is not None and spec.high is not None and not spec.low <= float(value) <= spec.high:
            message = f"{self._network.model}: {spec.name} must be {spec.low:g} to {spec.high:g}, not {value!r}"
            raise DeviceRefused(message, Code.OUT_OF_RANGE)


def _typed(spec: ModelPoint, value: Value) -> Value:
    """The value as the point's type; BadValue when it is none: 0 and 1 are taken for false and true, 3.0 for 3."""
    if spec.data_type is DataType.STRING:
        if isinstance(value, str):
            return value
    elif spec.data_type is DataType.BOOL:
        if not isinstance(value, str) and value in (0, 1):
            return bool(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) < 2.0**63:
            raise BadValue(RejectCode.OUT_OF_RANGE, f"{spec.name}: {value!r:.40} is out of every range")
        if spec.data_type is DataType.FLOAT:
            return float(value)
        if float(value).is_integer():
            return int(value)
        raise BadValue(RejectCode.NOT_INTEGER, f"{spec.name} takes whole numbers, not {value!r}")
    raise BadValue(RejectCode.WRONG_TYPE, f"{spec.name} is of type {spec.data_type}, not {TYPE_NAMES[type(value)]}")


def _key(network: SimulatedNetwork) -> Hashable:
    return network


def _unit(address: Any) -> int:
    return 0


def _ceiling(network: Any) -> float:
    return 0.0


def _retries(network: Any) -> int:
    return 0


def _meaning(code: int) -> Refusal:
    return _MEANINGS.get(code, Refusal.DEVICE)


DRIVER = Driver("simulated", _key, SimulatedLink, _unit, _ceiling, _retries, shared=False, meaning=_meaning)

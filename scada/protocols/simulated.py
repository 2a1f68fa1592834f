"""What the configuration of a simulated device may say, and which points each model has."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from scada.config import Direction
from scada.errors import Fault
from scada.schema import spec
from scada.values import DataType


class Model(StrEnum):
    """What is simulated; the points of each model are in POINTS and in docs/driver_simulated.md."""

    TANK = "tank"
    BOILER = "boiler"
    TRAIN = "train"
    STRESS = "stress"
    WAVEFORMS = "waveforms"


@dataclass(frozen=True, slots=True)
class ModelPoint:
    """One point of a model: `low` and `high` are inclusive, and are what a command is checked against."""

    name: str
    data_type: DataType
    doc: str
    unit: str = ""
    writable: bool = False
    low: float | None = None
    high: float | None = None


_FLOAT, _INT, _BOOL, _STRING = DataType.FLOAT, DataType.INT, DataType.BOOL, DataType.STRING
_LARGEST = 1_000_000.0

POINTS: Mapping[Model, tuple[ModelPoint, ...]] = MappingProxyType(
    {
        Model.TANK: (
            ModelPoint("level", _FLOAT, "how full it is; stops at empty and at full", "%", low=0, high=100),
            ModelPoint("pump", _BOOL, "fills: +1 % per second", writable=True),
            ModelPoint("door", _BOOL, "open it empties: -2 % per second", writable=True),
        ),
        Model.BOILER: (
            ModelPoint("temperature", _FLOAT, "rises with the heater on, falls without", "°C", low=100, high=150),
            ModelPoint(
                "pressure", _FLOAT, "follows the temperature; falls with the valve open", "kPa", low=0, high=200
            ),
            ModelPoint("heater", _BOOL, "heats", writable=True),
            ModelPoint("valve", _BOOL, "open it lets steam off", writable=True),
        ),
        Model.TRAIN: (
            ModelPoint("position", _FLOAT, "place on the line, between its two buffers", "m", low=0, high=10_000),
            ModelPoint("speed", _FLOAT, "negative in reverse", "m/s", low=-40, high=40),
            ModelPoint("station", _STRING, "the station that it stands at, empty elsewhere"),
            ModelPoint("throttle", _FLOAT, "share of 40 m/s", "%", writable=True, low=0, high=100),
            ModelPoint("direction", _INT, "1 forward, 0 neutral, -1 reverse; only at rest", "", True, -1, 1),
            ModelPoint("brake", _BOOL, "stops it whatever the throttle says", writable=True),
            ModelPoint("door", _BOOL, "opens only at rest; open it holds the train", writable=True),
        ),
        Model.STRESS: (
            ModelPoint("running", _BOOL, "off, every point stays as it is", writable=True),
            ModelPoint("toggle_s", _FLOAT, "time between two changes of one point", "s", True, 0.02, 3600),
        ),
        Model.WAVEFORMS: (
            ModelPoint("sine", _FLOAT, "-amplitude to amplitude", low=-_LARGEST, high=_LARGEST),
            ModelPoint("ramp", _FLOAT, "0 to amplitude, then from 0 again", low=0, high=_LARGEST),
            ModelPoint("square", _FLOAT, "amplitude for half a period, then -amplitude", low=-_LARGEST, high=_LARGEST),
            ModelPoint("random_walk", _FLOAT, "wanders between -amplitude and amplitude", low=-_LARGEST, high=_LARGEST),
            ModelPoint(
                "period_s", _FLOAT, "time of one period; a change goes on from the same phase", "s", True, 0.1, 86_400
            ),
            ModelPoint("amplitude", _FLOAT, "of all four", "", True, 0, _LARGEST),
        ),
    }
)
TOGGLING = ModelPoint("p1", _BOOL, "toggles; p1 to pN, N is `points` of the network, evenly spread in time")

_BY_NAME = {model: {point.name: point for point in points} for model, points in POINTS.items()}
_TOGGLING_NAME = re.compile(r"p([1-9][0-9]{0,5})")


@dataclass(frozen=True, slots=True)
class SimulatedAddress:
    """Which point of the model a tag is."""

    point: str = spec("name of the model's point, for example level", max_length=64)


@dataclass(frozen=True, slots=True)
class SimulatedNetwork:
    """One simulated device."""

    model: Model = spec("tank, boiler, train, stress or waveforms")
    step_ms: int = spec("time between two steps of its physics", 100, minimum=10, maximum=60_000)
    points: int = spec("number of points; only with model stress", 100, minimum=1, maximum=100_000)
    seed: int = spec("start of its random numbers", 1, minimum=0, maximum=2**31 - 1)

    def point(self, name: str) -> ModelPoint | None:
        """The model's point of this name; None when it has none."""
        found = _BY_NAME[self.model].get(name)
        if found is not None or self.model is not Model.STRESS:
            return found
        match = _TOGGLING_NAME.fullmatch(name)
        return TOGGLING if match is not None and int(match[1]) <= self.points else None

    def misplaced(self, address: SimulatedAddress, direction: Direction) -> Iterator[Fault]:
        """What is wrong with an address in a binding of this direction behind this network."""
        found = self.point(address.point)
        if found is None:
            names = [point.name for point in POINTS[self.model]]
            if self.model is Model.STRESS:
                names.append("p1" if self.points == 1 else f"p1 to p{self.points}")
            yield Fault("point", f"the model {self.model} has {', '.join(names)}, not {address.point!r}")
        elif direction is not Direction.IN and not found.writable:
            yield Fault("point", f"{address.point} of the model {self.model} cannot be written: direction in only")


@dataclass(frozen=True, slots=True)
class SimulatedOptions:
    """A simulated point has no options of its own."""

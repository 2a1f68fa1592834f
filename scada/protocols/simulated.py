"""What the configuration of a simulated device may say."""

from dataclasses import dataclass
from enum import StrEnum

from scada.schema import spec


class Model(StrEnum):
    """What is simulated; the points of each model are listed in the driver's documentation."""

    TANK = "tank"
    BOILER = "boiler"
    TRAIN = "train"
    STRESS = "stress"
    WAVEFORMS = "waveforms"


@dataclass(frozen=True, slots=True)
class SimulatedNetwork:
    """One simulated device."""

    model: Model = spec("tank, boiler, train, stress or waveforms")
    step_ms: int = spec("time between two steps of its physics", 100, minimum=10, maximum=60_000)
    points: int = spec("number of points; only with model stress", 100, minimum=1, maximum=100_000)
    seed: int = spec("start of its random numbers", 1, minimum=0, maximum=2**31 - 1)


@dataclass(frozen=True, slots=True)
class SimulatedAddress:
    """Which point of the model a tag is."""

    point: str = spec("name of the model's point, for example level", max_length=64)


@dataclass(frozen=True, slots=True)
class SimulatedOptions:
    """A simulated point has no options of its own."""

"""A train on a line of five stations."""

from collections.abc import Mapping
from dataclasses import dataclass

from drivers.simulated.machine import Machine
from scada.physics import approach, clamp
from scada.values import Value

LENGTH_M = 10_000.0
STATIONS: Mapping[str, float] = {
    "Airport": 0.0,
    "Harbour": 2_500.0,
    "Central": 5_000.0,
    "University": 7_500.0,
    "Lakeside": LENGTH_M,
}
_PLATFORM_M = 100.0  # to either side of a station's middle
_TOP_SPEED = 40.0  # m/s
_ACCELERATION, _ROLLING_OUT, _BRAKING = 0.8, 0.3, 1.2  # m/s²


@dataclass(slots=True)
class Train(Machine):
    """Runs as throttle and direction say; doors and points obey only at rest."""

    position: float = 0.0
    speed: float = 0.0
    station: str = "Airport"
    throttle: float = 0.0
    direction: int = 1
    brake: bool = False
    door: bool = False

    def step(self, dt_s: float) -> None:
        before = self.speed
        target = 0.0 if self.brake or self.door else self.direction * self.throttle / 100 * _TOP_SPEED
        driving = _ACCELERATION if abs(target) > abs(before) else _ROLLING_OUT
        change = _BRAKING if self.brake else driving
        self.speed = approach(before, target, change * dt_s)
        place = self.position + (before + self.speed) / 2 * dt_s
        self.position = clamp(place, 0.0, LENGTH_M)
        if self.position != place:
            self.speed = 0.0  # a buffer stops it
        self.station = self._station() if self.speed == 0 else ""

    def objection(self, values: Mapping[str, Value]) -> str:
        if self.speed == 0:
            return ""
        if values.get("door") is True:
            return "the door opens only at rest"
        if values.get("direction", self.direction) != self.direction:
            return "the direction changes only at rest"
        return ""

    def _station(self) -> str:
        for name, place in STATIONS.items():
            if abs(self.position - place) <= _PLATFORM_M:
                return name
        return ""

"""A tank with a pump that fills it and a door that empties it."""

from dataclasses import dataclass

from drivers.simulated.machine import Machine
from scada.physics import clamp

_PUMP_PER_S = 1.0
_DOOR_PER_S = -2.0


@dataclass(slots=True)
class Tank(Machine):
    """Full in 100 s, empty in 50; pump and door together lose 1 % per second."""

    level: float = 50.0
    pump: bool = False
    door: bool = False

    def step(self, dt_s: float) -> None:
        rate = (_PUMP_PER_S if self.pump else 0.0) + (_DOOR_PER_S if self.door else 0.0)
        self.level = clamp(self.level + rate * dt_s, 0.0, 100.0)

"""Any number of points that toggle, to see what the rest of the house can bear."""

from collections.abc import Mapping
from dataclasses import dataclass

from drivers.simulated.machine import Machine
from scada.values import Value


@dataclass(slots=True)
class Stress(Machine):
    """Points p1 to pN; each toggles every `toggle_s`, one after the other, so the changes come evenly in time."""

    points: int
    running: bool = True
    toggle_s: float = 1.0
    turns: float = 0.0  # toggles of the last point since the start, modulo 2

    def step(self, dt_s: float) -> None:
        if self.running:
            self.turns = (self.turns + dt_s / self.toggle_s) % 2

    def read(self, point: str) -> Value:
        if point == "running":
            return self.running
        if point == "toggle_s":
            return self.toggle_s
        return int(self.turns + int(point[1:]) / self.points) % 2 == 1

    def write(self, values: Mapping[str, Value]) -> None:
        self.running = bool(values.get("running", self.running))
        self.toggle_s = float(values.get("toggle_s", self.toggle_s))

"""Signals to look at in a trend: sine, ramp, square, random walk."""

import random
from dataclasses import dataclass
from math import pi, sin, sqrt

from drivers.simulated.machine import Machine
from scada.physics import clamp

_WANDER = 0.5  # standard deviation of the random walk's way in one period, in amplitudes


@dataclass(slots=True)
class Waveforms(Machine):
    """Four signals of one period and amplitude; the same seed and the same steps give the same random walk."""

    rng: random.Random
    period_s: float = 60.0
    amplitude: float = 100.0
    phase: float = 0.0
    sine: float = 0.0
    ramp: float = 0.0
    square: float = 100.0
    random_walk: float = 0.0

    def step(self, dt_s: float) -> None:
        self.phase = (self.phase + dt_s / self.period_s) % 1
        self.sine = self.amplitude * sin(2 * pi * self.phase)
        self.ramp = self.amplitude * self.phase
        self.square = self.amplitude if self.phase < 0.5 else -self.amplitude
        way = self.rng.gauss(0, _WANDER * self.amplitude * sqrt(dt_s / self.period_s))
        self.random_walk = clamp(self.random_walk + way, -self.amplitude, self.amplitude)

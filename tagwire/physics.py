"""Plausible machines for the demo fleet: pure models that are stepped with the time passed, in seconds.

Every model is first-order lags, balances and thermostats with some sensor noise: enough that trends look like a plant.
"""

import random
from dataclasses import dataclass, field
from math import pi, sin
from typing import Protocol

from scada.physics import lag
from scada.values import Value

_HOUR_S = 3600.0


class Machine(Protocol):
    """One device of the fleet."""

    def step(self, dt_s: float) -> dict[str, Value]:
        """Let `dt_s` seconds pass; the five readings then."""
        ...


@dataclass(slots=True)
class Tank:
    """A 2,000 litre tank: a valve fills it between 30 % and 85 %, consumers empty it."""

    rng: random.Random
    level: float = 55.0
    valve: bool = False
    inflow: float = 0.0
    outflow: float = 40.0
    demand: float = 40.0
    temperature: float = 18.0

    def step(self, dt_s: float) -> dict[str, Value]:
        if self.level < 30:
            self.valve = True
        elif self.level > 85:
            self.valve = False
        self.inflow = lag(self.inflow, 120.0 if self.valve else 0.0, dt_s, 3)
        if self.rng.random() < dt_s / 40:
            self.demand = self.rng.uniform(20, 90)
        self.outflow = lag(self.outflow, self.demand, dt_s, 8)
        # litres a minute into per cent of 2,000 litres
        self.level = min(100.0, max(0.0, self.level + (self.inflow - self.outflow) / 60 * dt_s / 20))
        self.temperature = lag(self.temperature, 16.0 if self.valve else 19.0, dt_s, 600)
        return {
            "level": round(self.level + self.rng.gauss(0, 0.05), 2),
            "inflow": round(max(0.0, self.inflow + self.rng.gauss(0, 0.3)), 1),
            "outflow": round(max(0.0, self.outflow + self.rng.gauss(0, 0.3)), 1),
            "temperature": round(self.temperature + self.rng.gauss(0, 0.02), 2),
            "valve": self.valve,
        }


@dataclass(slots=True)
class Boiler:
    """A boiler with a thermostat of 4 K: the burner heats with a lag, the load cools."""

    rng: random.Random
    setpoint: float = 72.0
    temperature: float = 60.0
    burner: bool = True
    power: float = 0.0

    def step(self, dt_s: float) -> dict[str, Value]:
        if self.temperature < self.setpoint - 2:
            self.burner = True
        elif self.temperature > self.setpoint + 2:
            self.burner = False
        self.power = lag(self.power, 100.0 if self.burner else 0.0, dt_s, 5)
        self.temperature = lag(self.temperature, 20 + 0.9 * self.power, dt_s, 120)
        return {
            "temperature": round(self.temperature + self.rng.gauss(0, 0.05), 2),
            "pressure": round(1.0 + 0.012 * self.temperature + self.rng.gauss(0, 0.003), 3),
            "setpoint": self.setpoint,
            "power": round(self.power, 1),
            "burner": self.burner,
        }


@dataclass(slots=True)
class Pump:
    """A pump with a duty cycle of `period_s`, two thirds of it on."""

    rng: random.Random
    period_s: float = 90.0
    clock_s: float = 0.0
    speed: float = 0.0
    motor: float = 25.0

    def step(self, dt_s: float) -> dict[str, Value]:
        self.clock_s = (self.clock_s + dt_s) % self.period_s
        running = self.clock_s < self.period_s * 2 / 3
        self.speed = lag(self.speed, 1480.0 if running else 0.0, dt_s, 2)
        share = self.speed / 1480
        self.motor = lag(self.motor, 25 + 45 * share, dt_s, 180)
        return {
            "running": running,
            "speed": round(max(0.0, self.speed + self.rng.gauss(0, 2) * share)),
            "flow": round(max(0.0, 60 * share + self.rng.gauss(0, 0.2) * share), 2),
            "pressure": round(max(0.0, 4.2 * share**2 + self.rng.gauss(0, 0.01)), 3),
            "motor_temperature": round(self.motor + self.rng.gauss(0, 0.1), 1),
        }


@dataclass(slots=True)
class Room:
    """A room: people come and go, warm it and use up its air; the window light follows a short day."""

    rng: random.Random
    people: int = 0
    temperature: float = 21.0
    co2: float = 450.0
    humidity: float = 42.0
    clock_s: float = 0.0

    def step(self, dt_s: float) -> dict[str, Value]:
        self.clock_s += dt_s
        if self.rng.random() < dt_s / 30:
            self.people = self.rng.randint(0, 6)
        self.temperature = lag(self.temperature, 20.5 + 0.5 * self.people, dt_s, 300)
        self.co2 = lag(self.co2, 420 + 180 * self.people, dt_s, 240)
        self.humidity = lag(self.humidity, 40 + 1.5 * self.people, dt_s, 400)
        daylight = max(0.0, sin(2 * pi * self.clock_s / 600))
        return {
            "temperature": round(self.temperature + self.rng.gauss(0, 0.03), 2),
            "humidity": round(self.humidity + self.rng.gauss(0, 0.1), 1),
            "co2": round(self.co2 + self.rng.gauss(0, 3)),
            "light": round(80 + 900 * daylight + self.rng.gauss(0, 4)),
            "occupied": self.people > 0,
        }


@dataclass(slots=True)
class Meter:
    """An electricity meter: a base load and appliances that switch; energy only ever grows."""

    rng: random.Random
    load: float = 1500.0
    power: float = 1500.0
    energy_wh: float = field(default=0.0)

    def step(self, dt_s: float) -> dict[str, Value]:
        if self.rng.random() < dt_s / 20:
            self.load = self.rng.choice((400, 900, 1500, 2600, 4200)) * self.rng.uniform(0.9, 1.1)
        self.power = lag(self.power, self.load, dt_s, 1)
        self.energy_wh += self.power * dt_s / _HOUR_S
        voltage = 230 - self.power / 2000 + self.rng.gauss(0, 0.4)
        return {
            "voltage": round(voltage, 1),
            "current": round(self.power / voltage, 3),
            "power": round(self.power, 1),
            "frequency": round(50 + self.rng.gauss(0, 0.01), 3),
            "energy": round(self.energy_wh),
        }

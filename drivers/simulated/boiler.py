"""A steam boiler with a heater and a valve."""

from dataclasses import dataclass

from drivers.simulated.machine import Machine
from scada.physics import lag

_COLD, _COOLED_BY_STEAM, _HOT = 100.0, 135.0, 150.0  # °C
_KPA_PER_K = 4.0  # 200 kPa at 150 °C
_HEAT_S, _BUILD_UP_S, _LET_OFF_S = 60.0, 20.0, 5.0


@dataclass(slots=True)
class Boiler(Machine):
    """The water follows the heater, the pressure the water; an open valve lets the pressure off, and heat with it."""

    temperature: float = _COLD
    pressure: float = 0.0
    heater: bool = False
    valve: bool = False

    def step(self, dt_s: float) -> None:
        target = (_COOLED_BY_STEAM if self.valve else _HOT) if self.heater else _COLD
        self.temperature = lag(self.temperature, target, dt_s, _HEAT_S)
        if self.valve:
            self.pressure = lag(self.pressure, 0.0, dt_s, _LET_OFF_S)
        else:
            steam = (self.temperature - _COLD) * _KPA_PER_K
            self.pressure = lag(self.pressure, steam, dt_s, _BUILD_UP_S)

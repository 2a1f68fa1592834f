"""What a read costs on one link: a first guess from how it is wired, then what its own answers took. Without I/O."""

from typing import Final

from scada.modbus.endpoint import Endpoint, Transport
from scada.modbus.plan import ReadCost

_NETWORK_REQUEST_S: Final = 1e-3
_NETWORK_REGISTER_S: Final = 1e-5
_UNKNOWN_LINE_BAUDRATE: Final = (
    19_200  # Serial 3.1.1: the default that devices shall have; behind a converter nobody tells
)
_OVERHEAD_CHARACTERS: Final = (
    8 + 5 + 7
)  # a request; what a reply has around its data; twice the silence of 3.5 (Serial 2.5.1)
_TURNAROUND_S: Final = 5e-3

_FORGET: Final = 0.995  # a timing counts half after 139 more
_FEWEST: Final = 20
_EVERY: Final = 32
"""So many timings are waited for between two looks at what they say."""
_LEAST_VARIANCE: Final = 25.0  # of the registers in a request: with requests all alike nothing can be told apart
_OUTLIER: Final = 4.0
_TRUST: Final = 20.0
"""A cost that is this many times the first guess, or this small a part of it, is a disturbance, not the device."""


def first_guess(endpoint: Endpoint) -> ReadCost:
    """The cost of a read before anything was measured."""
    gap_s = endpoint.gap_ms / 1000
    if endpoint.transport in (Transport.SERIAL, Transport.RTU_OVER_TCP):
        serial = endpoint.transport is Transport.SERIAL
        bits = 1 + endpoint.bytesize + (endpoint.parity != "N") + endpoint.stopbits if serial else 11
        character_s = bits / (endpoint.baudrate if serial else _UNKNOWN_LINE_BAUDRATE)
        return ReadCost(_OVERHEAD_CHARACTERS * character_s + _TURNAROUND_S + gap_s, 2 * character_s)
    return ReadCost(_NETWORK_REQUEST_S + gap_s, _NETWORK_REGISTER_S)


class CostModel:
    """A straight line through what reads took, by their registers; recent ones count more."""

    def __init__(self, guess: ReadCost) -> None:
        self._guess = guess
        self.cost = guess
        """What plans are made with: changes only when one request turns out to be worth twice, or half, as many registers."""
        self.is_measured = False
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
        self._count = 0

    def observe(self, registers: float, seconds: float) -> None:
        """A read of so many registers (16 bits count as one) took so long."""
        weight = self._weight
        if weight > _FEWEST:
            seconds = min(seconds, _OUTLIER * self._y / weight)
        self._weight = weight * _FORGET + 1.0
        self._x = self._x * _FORGET + registers
        self._y = self._y * _FORGET + seconds
        self._xx = self._xx * _FORGET + registers * registers
        self._xy = self._xy * _FORGET + registers * seconds
        self._count += 1
        if self._count % _EVERY == 0:
            self._take_over()

    @property
    def worth(self) -> int:
        """How many registers cost as much as one request."""
        return round(_worth(self.cost))

    def _take_over(self) -> None:
        fitted = self._fit()
        if fitted is not None and not (self.is_measured and 0.5 <= _worth(fitted) / _worth(self.cost) <= 2.0):
            self.cost, self.is_measured = fitted, True

    def _fit(self) -> ReadCost | None:
        if self._weight < _FEWEST:
            return None
        x, y = self._x / self._weight, self._y / self._weight
        variance = self._xx / self._weight - x * x
        if variance < _LEAST_VARIANCE:
            return None
        guess = self._guess
        per_register_s = _near(guess.per_register_s, (self._xy / self._weight - x * y) / variance)
        return ReadCost(_near(guess.per_request_s, y - per_register_s * x), per_register_s)


def _worth(cost: ReadCost) -> float:
    return cost.per_request_s / cost.per_register_s


def _near(guess: float, measured: float) -> float:
    return min(max(measured, guess / _TRUST), guess * _TRUST)

"""Which units behind a link answer: their circuit breakers, and how long nobody has said anything. Pure."""

from collections.abc import Callable, Collection

from field_server.breaker import Breaker


class Units:
    """Of one link. `make_breaker` makes the breaker of a unit that is asked for the first time."""

    def __init__(self, make_breaker: Callable[[], Breaker]) -> None:
        self._make_breaker = make_breaker
        self._breakers: dict[int, Breaker] = {}
        self._silences: dict[int, int] = {}
        self.unanswered = 0
        """Requests without an answer since the last one of any unit."""

    def breaker(self, unit: int) -> Breaker:
        """The unit's circuit breaker."""
        found = self._breakers.get(unit)
        if found is None:
            found = self._breakers[unit] = self._make_breaker()
        return found

    def is_closed(self, unit: int) -> bool:
        """Whether the unit has answered, as far as is known."""
        return self.breaker(unit).is_closed

    def unheard(self, unit: int) -> int:
        """The unit left a request without an answer; how many since its last one."""
        self.unanswered += 1
        silences = self._silences[unit] = self._silences.get(unit, 0) + 1
        return silences

    def heard(self, unit: int) -> bool:
        """The unit answered. True when it did not before."""
        self._silences.pop(unit, None)
        self.unanswered = 0
        return self.breaker(unit).succeeded()

    def lost(self, unit: int, now: float) -> None:
        """The unit is left alone for a while."""
        self._silences.pop(unit, None)
        self.breaker(unit).failed(now)

    @property
    def all_lost(self) -> bool:
        """Nobody behind the link answers."""
        return not any(breaker.is_closed for breaker in self._breakers.values())

    def keep(self, units: Collection[int]) -> None:
        """Forget all others."""
        self._breakers = {unit: breaker for unit, breaker in self._breakers.items() if unit in units}

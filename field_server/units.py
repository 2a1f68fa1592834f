"""Which units behind a link answer: their circuit breakers, and how long nobody has said anything. Pure."""

from collections.abc import Callable, Collection

from field_server.breaker import Breaker

PROBE_SHARE = 10
"""Units that do not answer cost the others behind their link at most one part in so many of its time."""


class Units:
    """Of one link. `make_breaker` makes the breaker of a unit that is asked for the first time."""

    def __init__(self, make_breaker: Callable[[], Breaker]) -> None:
        self._make_breaker = make_breaker
        self._breakers: dict[int, Breaker] = {}
        self._silences: dict[int, int] = {}
        self.in_doubt = True
        """Nobody has answered since the last silence, or since the connection began."""
        self.unanswered = 0
        """Requests without an answer since the last one of any unit, those to open breakers not counted: they say nothing new."""
        self.probe_at = 0.0
        """When a unit whose breaker is open may be asked, for the sake of those that answer."""

    def breaker(self, unit: int) -> Breaker:
        """The unit's circuit breaker."""
        found = self._breakers.get(unit)
        if found is None:
            found = self._breakers[unit] = self._make_breaker()
        return found

    def is_closed(self, unit: int) -> bool:
        """Whether the unit has answered, as far as is known."""
        return self.breaker(unit).is_closed

    def unheard(self, unit: int, now: float, cost_s: float) -> int:
        """The unit left a request without an answer, which took `cost_s`; how many since its last one."""
        self.in_doubt = True
        if self.is_closed(unit):
            self.unanswered += 1
        else:
            self.probe_at = now + PROBE_SHARE * cost_s
        silences = self._silences[unit] = self._silences.get(unit, 0) + 1
        return silences

    def heard(self, unit: int, now: float) -> bool:
        """The unit answered. True when it did not before: then all that do not answer are asked again as soon as may be."""
        self._silences.pop(unit, None)
        self.in_doubt = False
        self.unanswered = 0
        is_back = self.breaker(unit).succeeded()
        if is_back:
            for breaker in self._breakers.values():
                breaker.retry_at = min(breaker.retry_at, now)
        return is_back

    def retry_at(self, unit: int, now: float) -> float:
        """When the unit may be asked; not after `now` when it may at once."""
        breaker = self.breaker(unit)
        if breaker.is_closed:
            return now
        return breaker.retry_at if self.all_lost else max(breaker.retry_at, self.probe_at)

    def is_sound(self, unit: int) -> bool:
        """Whether the unit has answered, the last time too."""
        return self.is_closed(unit) and unit not in self._silences

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
        self._silences = {unit: count for unit, count in self._silences.items() if unit in units}

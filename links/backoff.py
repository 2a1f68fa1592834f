"""How long to wait before the next attempt."""

import random


class Backoff:
    """Delays that double from `first_s` up to `cap_s`, each spread by +-`jitter` (a share of it).

    The spread keeps a thousand devices that came back together from being called together for ever.
    """

    def __init__(
        self, first_s: float = 0.5, cap_s: float = 30.0, jitter: float = 0.2, rng: random.Random | None = None
    ) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._jitter = jitter
        self._rng = rng or random.Random()
        self._step_s = first_s

    def next_delay_s(self) -> float:
        """The delay before the next attempt, in seconds; the one after it is twice as long."""
        delay_s = self._step_s
        self._step_s = min(self._step_s * 2, self._cap_s)
        return delay_s * self._rng.uniform(1 - self._jitter, 1 + self._jitter)

    def reset(self) -> None:
        """An attempt succeeded: the next failure starts from `first_s` again."""
        self._step_s = self._first_s

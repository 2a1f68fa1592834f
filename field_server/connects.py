"""How often connections are opened, all links together: after a power cut a thousand devices come back at once."""

import asyncio


class Connects:
    """Turns for opening connections, evenly spaced: at most `per_second` of them."""

    def __init__(self, per_second: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._interval_s = 1.0 / per_second
        self._next_at = 0.0

    def book(self) -> float:
        """The next free turn, in order; how many seconds from now it is."""
        now = self._loop.time()
        turn = max(now, self._next_at)
        self._next_at = turn + self._interval_s
        return turn - now

"""The circuit breaker of one unit: after a failure it is left alone for a while, then asked once. Pure."""

from links.backoff import Backoff


class Breaker:
    """Times are monotonic seconds. The link asks one thing at a time, so an open breaker whose time has come (half open)
    lets one request through: its failure sets the next time, its success closes the breaker.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self.is_closed = True
        self.retry_at = 0.0
        """When an open breaker lets the next request through."""

    def failed(self, now: float) -> None:
        """The unit did not answer."""
        self.is_closed = False
        self.retry_at = now + self._backoff.next_delay_s()

    def succeeded(self) -> bool:
        """The unit answered. True when it did not before."""
        was_closed, self.is_closed = self.is_closed, True
        if not was_closed:
            self._backoff.reset()
        return not was_closed

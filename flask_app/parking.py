"""What the bridge and a view that waits agree on: its request leaves the thread, and comes back when there is an answer."""

from collections.abc import Callable
from typing import Any

from flask_app.waiters import Waiter

PARKS = "tagwire.parks"
"""True in the WSGI environment when whoever called the application takes a `Parked`."""
RESUMES = "tagwire.resumes"
"""And when the request comes back: what gives its answer."""
BEGUN = "tagwire.begun"
"""When a request that came back was begun first, by `time.perf_counter`."""


class Parked(BaseException):
    """A request that has left its thread: to be called again, with `finish` in its environment, once `waiter` is woken or
    the time is up; `leave` in any case. No Exception, so that nothing between the view and the bridge answers it."""

    def __init__(self, waiter: Waiter, until_s: float, finish: Callable[[], Any], leave: Callable[[], None]) -> None:
        """`until_s` is on the monotonic clock."""
        self.waiter = waiter
        self.until_s = until_s
        self.finish = finish
        self.leave = leave
        super().__init__()

"""How a view waits for news of a device: behind the bridge without a thread; elsewhere (`flask run`) the thread itself waits."""

import time
from collections.abc import Callable
from concurrent.futures import wait

from flask import Flask, Response, request

from flask_app.live import live
from flask_app.parking import PARKS, RESUMES, Parked
from flask_app.waiters import Waiter

Finish = Callable[[], Response]


def register(app: Flask) -> None:
    """Answer requests that come back. To be called after whatever else looks at a request first."""

    @app.before_request
    def resume() -> Response | None:
        finish: Finish | None = request.environ.get(RESUMES)
        return None if finish is None else finish()


def answer(waiter: Waiter, done: Callable[[], bool], wait_s: float, finish: Finish) -> Response:
    """The answer that `finish` gives once `done` says so, or after `wait_s`; the waiter's place is free then."""
    waiters = live().waiters
    waiters.until(waiter, done)
    if request.environ.get(PARKS):
        raise Parked(waiter, time.monotonic() + wait_s, finish, lambda: waiters.leave(waiter))
    try:
        wait([waiter.woken], wait_s)
    finally:
        waiters.leave(waiter)
    return finish()

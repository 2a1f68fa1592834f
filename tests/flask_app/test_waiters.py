"""Who waits for a device: woken, bounded, let go. No request and no bus here."""

import threading
from concurrent.futures import ThreadPoolExecutor

from flask_app.waiters import MAX_WAITING, MAX_WAITING_FOR_ONE, Waiter, Waiters


def placed(waiters: Waiters, device: str) -> Waiter:
    found = waiters.place(device)
    assert isinstance(found, Waiter), found
    return found


def test_a_waiter_is_woken_by_news_of_its_device_that_it_waits_for() -> None:
    waiters = Waiters()
    waiter, other = placed(waiters, "boiler"), placed(waiters, "boiler")
    news: list[str] = []
    waiters.until(waiter, lambda: "a" in news)
    waiters.until(other, lambda: "b" in news)
    waiters.look("boiler")
    assert not waiter.woken.done()
    news.append("a")
    waiters.look("tank")
    assert not waiter.woken.done()
    waiters.look("boiler")
    waiters.look("boiler")
    assert (waiter.woken.done(), other.woken.done()) == (True, False)
    news.append("b")
    # What is there already wakes at once, in whatever thread.
    late = placed(waiters, "boiler")
    waiters.until(late, lambda: "b" in news)
    assert late.woken.done()
    waiters.look("boiler")
    assert other.woken.done()


def test_places_are_bounded_in_all_and_for_each_device_and_come_back() -> None:
    waiters = Waiters(most=3, most_for_one=2)
    first, _ = placed(waiters, "dead"), placed(waiters, "dead")
    assert waiters.place("dead") == "2 requests wait for this device already"
    placed(waiters, "a")
    assert waiters.place("b") == waiters.place("dead") == "3 requests wait already"
    waiters.leave(first)
    waiters.leave(first)
    placed(waiters, "b")
    assert waiters.place("c") == "3 requests wait already"


def test_hundreds_may_wait_and_one_dead_device_does_not_take_every_place() -> None:
    assert 4 * MAX_WAITING_FOR_ONE <= MAX_WAITING


def test_the_end_lets_everybody_go_and_nobody_waits_afterwards() -> None:
    waiters = Waiters()
    waiting = [placed(waiters, device) for device in ("a", "b", "b")]
    waiters.let_go()
    late = placed(waiters, "c")
    waiters.until(late, lambda: False)
    assert all(each.woken.done() for each in (*waiting, late))


def test_news_from_several_threads_at_once_wake_once() -> None:
    waiters = Waiters()
    waiting = [placed(waiters, "boiler") for _ in range(200)]
    start = threading.Barrier(8)

    def look() -> None:
        start.wait(10)
        waiters.look("boiler")

    for each in waiting:
        each.done = lambda: True
    with ThreadPoolExecutor(8) as threads:
        for looked in [threads.submit(look) for _ in range(8)]:
            looked.result(20)
    assert all(each.woken.done() for each in waiting)

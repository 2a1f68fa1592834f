import random

from links.backoff import Backoff


def test_doubles_up_to_the_cap() -> None:
    backoff = Backoff(first_s=0.5, cap_s=30, jitter=0)
    assert [backoff.next_delay_s() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_starts_over_after_a_success() -> None:
    backoff = Backoff(first_s=1, jitter=0)
    backoff.next_delay_s()
    backoff.next_delay_s()
    backoff.reset()
    assert backoff.next_delay_s() == 1


def test_spreads_each_delay_by_a_fifth_to_either_side() -> None:
    backoff = Backoff(first_s=10, cap_s=10, jitter=0.2, rng=random.Random(7))
    delays = [backoff.next_delay_s() for _ in range(1000)]
    assert 8 <= min(delays) < 8.2
    assert 11.8 < max(delays) <= 12


def test_two_devices_do_not_march_in_step() -> None:
    one, other = Backoff(), Backoff()
    assert [one.next_delay_s() for _ in range(5)] != [other.next_delay_s() for _ in range(5)]

"""Received messages, as a link hands them over and its broker counts them."""

from collections.abc import Callable
from typing import NamedTuple


class Delivery(NamedTuple):
    """What names a received message to the broker. `session` counts connections: numbers of an old one mean nothing."""

    session: int
    mid: int
    qos: int
    is_repeat: bool = False
    """The broker sent it before (DUP): it may be older than what came since."""


OnMessage = Callable[[str, bytes, bool, Delivery], None]
"""Given topic, payload, whether it was retained, and what to acknowledge."""

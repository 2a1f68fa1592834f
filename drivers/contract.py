"""What field_server asks of a driver. A driver is a folder here with a `driver.py` that has one `DRIVER` (docs/drivers.md).

A driver opens links. A link carries requests to one endpoint, one at a time: field_server sees to that, to when a request
is sent, to retries, circuit breakers and reconnecting, and to everything about engineering values, quality and commands.
Values here are raw: as the protocol has them, before any scaling.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from scada.values import BadValue, Value


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One tag as its protocol reaches it. `unit` is what answers, or is silent, on its own behind the link.

    `network`, `address` and `options` are records of the protocol's own classes (`scada.registry`).
    """

    binding_id: int
    name: str
    unit: int
    network: Any
    address: Any
    options: Any


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request that reads `points`, all of one unit. `text` is for operators, `detail` is the driver's."""

    unit: int
    points: tuple[Point, ...]
    text: str
    detail: Any


class Refusal(StrEnum):
    """What a device's clean no is about."""

    CONFIG = "config"
    """What was asked for does not exist there: asking again soon changes nothing."""
    DEVICE = "device"
    """The device could not do it, this time."""
    BUSY = "busy"
    """The device asks to be asked later."""
    UNREACHABLE = "unreachable"
    """A gateway says that the unit behind it did not answer."""


def device_failure(code: int) -> Refusal:
    """The meaning of every code in a protocol whose codes say no more."""
    return Refusal.DEVICE


def _first(networks: Sequence[Any]) -> Any:
    return networks[0]


class Link(Protocol):
    """One endpoint. Every method that waits ends by itself: each has a deadline from the network's configuration.

    A method that is cancelled leaves the link usable, closed if need be. `read` and `write` without `connect` raise LinkError.
    """

    @property
    def connected(self) -> bool:
        """The link is up as far as is known. It may stay so after a LinkError when only one unit was silent."""

    @property
    def learned(self) -> Sequence[str]:
        """What was found out about the endpoint by asking (illegal addresses, missing functions), for people."""

    async def connect(self) -> None:
        """Open the link unless it is open; raises LinkError."""

    async def close(self) -> None:
        """Close the link; never raises."""

    def plan(self, points: Sequence[Point]) -> Sequence[Request]:
        """How `points` (of any units) are read with the fewest requests. Pure but for what the link has learned so far.

        Every point is in exactly one request.
        """

    async def read(self, request: Request) -> Sequence[Value | BadValue]:
        """The values of the request's points, in their order; BadValue for one whose bytes are no value.

        Raises LinkError (no answer in time, connection lost), ProtocolError (remote: a wrong answer), DeviceRefused (a clean
        no to the request as a whole).
        """

    def refused(self, request: Request, code: int) -> Sequence[Request] | None:
        """What to ask instead of a request that was refused with `code`; the link learns from it.

        None when there is nothing to gain: the refusal is then about each of its points.
        """

    def can_write(self, points: Sequence[Point]) -> None:
        """Raise ConfigError unless `points` can be written, and if they are several, all of them in one request."""

    async def write(self, values: Sequence[tuple[Point, Value]]) -> None:
        """Write raw values, all in one request or none at all, and wait until the device confirmed it.

        Raises BadValue (before anything is sent: a value does not fit), ConfigError (as `can_write`), LinkError,
        ProtocolError, DeviceRefused.
        """


@dataclass(frozen=True, slots=True)
class Driver:
    """A protocol's driver. `open` makes a link, not yet connected. Devices whose networks have equal `key` share one.

    Without `shared` every device has a link of its own, and `key` only says when a changed network needs a new one.
    `unit` is the unit that an address names. `ceiling` is the most requests per second that a network allows, 0 for none;
    `retries` how often a read without an answer is tried again; `meaning` what the code of a DeviceRefused says; `merge`
    the network to open a link with that devices share whose networks differ in other things than the key.
    """

    protocol: str
    key: Callable[[Any], Hashable]
    open: Callable[[Any], Link]
    unit: Callable[[Any], int]
    ceiling: Callable[[Any], float]
    retries: Callable[[Any], int]
    shared: bool = True
    meaning: Callable[[int], Refusal] = device_failure
    merge: Callable[[Sequence[Any]], Any] = _first

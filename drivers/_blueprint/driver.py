"""The link and the driver: how points become requests, and what a refusal teaches."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from functools import partial

from drivers._blueprint.configuration import LineAddress, LineNetwork
from drivers._blueprint.connection import Connection
from drivers._blueprint.messages import NO_SUCH_POINT, accepted, check_value, encode_read, encode_write, values_of
from drivers.contract import Driver, Point, Refusal, Request
from scada.errors import ConfigError, Fault, ProtocolError
from scada.values import BadValue, Value


class LineLink:
    """One endpoint."""

    def __init__(self, network: LineNetwork) -> None:
        self._connection = Connection(network.host, network.port, network.connect_timeout_s)
        # (unit, name) that the device does not know: each is asked for alone, so that it spoils no other's request.
        self._unknown: set[tuple[int, str]] = set()

    @property
    def connected(self) -> bool:
        return self._connection.connected

    @property
    def learned(self) -> Sequence[str]:
        return [f"unit {unit} has no point {name}" for unit, name in sorted(self._unknown)]

    async def connect(self) -> None:
        await self._connection.connect()

    async def close(self) -> None:
        await self._connection.close()

    def plan(self, points: Sequence[Point]) -> Sequence[Request]:
        """Up to `max_points` of a unit in each request."""
        known: dict[tuple[int, int], list[Point]] = defaultdict(list)
        requests = []
        for point in points:
            if (point.unit, point.address.name) in self._unknown:
                requests.append(_request([point]))
            else:
                known[point.unit, point.network.max_points].append(point)
        for (_, most), members in known.items():
            requests += [_request(members[start : start + most]) for start in range(0, len(members), most)]
        return requests

    async def read(self, request: Request) -> Sequence[Value | BadValue]:
        names = [point.address.name for point in request.points]
        encode = partial(encode_read, unit=request.unit, names=names)
        reply = await self._connection.request(encode, request.points[0].network.timeout_s)
        try:
            accepted(reply)
            values = values_of(reply, len(names))
        except ProtocolError:
            await self.close()
            raise
        self._unknown -= {(request.unit, name) for name in names}
        return values

    def refused(self, request: Request, code: int) -> Sequence[Request] | None:
        """Halves, until each unknown point stands alone."""
        if code != NO_SUCH_POINT:
            return None
        half = len(request.points) // 2
        if half == 0:
            self._unknown.add((request.unit, request.points[0].address.name))
            return None
        return [_request(request.points[:half]), _request(request.points[half:])]

    def can_write(self, points: Sequence[Point]) -> None:
        faults = []
        if len({point.unit for point in points}) > 1:
            faults.append(Fault("", "not in one request: of several units"))
        if len({point.address.name for point in points}) < len(points):
            faults.append(Fault("", "one point cannot take two values at once"))
        if len(points) > points[0].network.max_points:
            faults.append(Fault("", f"not in one request: more than {points[0].network.max_points} points"))
        if faults:
            raise ConfigError(faults)

    async def write(self, values: Sequence[tuple[Point, Value]]) -> None:
        self.can_write([point for point, _ in values])
        for point, value in values:
            check_value(point.name, value)
        first = values[0][0]
        encode = partial(encode_write, unit=first.unit, values={point.address.name: value for point, value in values})
        reply = await self._connection.request(encode, first.network.timeout_s)
        try:
            accepted(reply)
        except ProtocolError:
            await self.close()
            raise


def _request(points: Sequence[Point]) -> Request:
    names = [point.address.name for point in points]
    text = names[0] if len(names) == 1 else f"{len(names)} points, {names[0]} to {names[-1]}"
    return Request(points[0].unit, tuple(points), f"unit {points[0].unit} {text}", None)


def _key(network: LineNetwork) -> Hashable:
    return network.host, network.port, network.connect_timeout_s


def _unit(address: LineAddress) -> int:
    return address.unit


def _ceiling(network: LineNetwork) -> float:
    return network.max_requests_per_s


def _retries(network: LineNetwork) -> int:
    return network.retries


def _meaning(code: int) -> Refusal:
    return Refusal.CONFIG if code == NO_SUCH_POINT else Refusal.DEVICE


DRIVER = Driver("blueprint", _key, LineLink, _unit, _ceiling, _retries, meaning=_meaning)

"""What the configuration of a device may say. In a driver of its own this is `scada/protocols/<name>.py`."""

from dataclasses import dataclass

from scada.schema import spec


@dataclass(frozen=True, slots=True)
class LineNetwork:
    """One endpoint that speaks JSON lines over TCP."""

    host: str = spec("host name or address", max_length=253)
    port: int = spec("port of the server", minimum=1, maximum=65535)
    timeout_s: float = spec("time for one whole answer", 1.0, minimum=0.02, maximum=60)
    connect_timeout_s: float = spec("time for connecting", 3.0, minimum=0.1, maximum=60)
    max_points: int = spec("most points in one request", 100, minimum=1, maximum=1000)
    retries: int = spec("further attempts after a request without an answer, for reading", 1, minimum=0, maximum=10)
    max_requests_per_s: float = spec("ceiling on requests per second; 0 is none", 0.0, minimum=0, maximum=100_000)


@dataclass(frozen=True, slots=True)
class LineAddress:
    """Where a tag's value stands."""

    name: str = spec("name of the point", max_length=64)
    unit: int = spec("number of the unit behind the endpoint", 1, minimum=0, maximum=255)


@dataclass(frozen=True, slots=True)
class LineOptions:
    """A point has no options."""

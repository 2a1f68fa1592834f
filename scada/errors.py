"""The five kinds of error, one reaction each (the table is in the design: ConfigError, NotFound, LinkError, ...)."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an operator's input.

    `field` is a dotted path into that input (`tags.0.bindings.1.address.register`) or the name of a setting; "" is the whole.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class TagwireError(Exception):
    """What every error of ours is."""


class ConfigError(TagwireError):
    """The operator's input is wrong; carries every fault found. Exit code 2 or HTTP 422; never retried."""

    def __init__(self, faults: Iterable[Fault] | str) -> None:
        self.faults: tuple[Fault, ...] = (Fault("", faults),) if isinstance(faults, str) else tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))


class Conflict(ConfigError):
    """The input is well formed but contradicts what is stored: a name taken twice, an outdated revision. HTTP 409."""


class NotFound(TagwireError):
    """No such device, term, item, tag or binding. HTTP 404."""


class LinkError(TagwireError):
    """The network or the peer is gone, or late. Bad quality, jittered backoff, retry."""


class Side(StrEnum):
    """Who broke the protocol."""

    REMOTE = "remote"
    LOCAL = "local"


class ProtocolError(TagwireError):
    """Bytes that break the protocol. Remote: drop the link and retry. Local: our bug, fail loudly."""

    def __init__(self, message: str, side: Side = Side.REMOTE) -> None:
        self.side = side
        super().__init__(message)


class DeviceRefused(TagwireError):
    """A clean no from the device. `code` is the protocol's own code, for Modbus the exception code. Keep the link."""

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(message)

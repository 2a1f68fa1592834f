"""What the configuration of registers in our own Modbus server may say: the protocol `modbus_server`."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from scada.config import ModbusAddress
from scada.errors import Fault
from scada.modbus.limits import Table
from scada.schema import spec


class NotGood(StrEnum):
    """What a client sees of a tag whose value is not good."""

    LAST = "last"
    EXCEPTION = "exception"
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class MailboxNetwork:
    """A device whose registers stand in our own Modbus server."""

    not_good: NotGood = spec(
        "what clients see of a value that is not good: the last value, exception 0B, or the last value and a status register",
        NotGood.LAST,
    )
    stale_after_s: float = spec(
        "a value not confirmed for so long is stale; 0 is never", 0.0, minimum=0, maximum=86_400
    )


@dataclass(frozen=True, slots=True)
class MailboxAddress(ModbusAddress):
    """Where in our Modbus server a tag's value stands."""

    status: int | None = spec(
        "holding register of the same unit with the quality: 0 good, 1 uncertain, 2 bad; with not_good: status",
        None,
        minimum=0,
        maximum=65535,
    )

    def faults(self) -> Iterator[Fault]:
        yield from ModbusAddress.faults(self)
        if self.status is not None and self.table is Table.HOLDING_REGISTER and self.status == self.register:
            yield Fault("status", "is the value's own register")


@dataclass(frozen=True, slots=True)
class MailboxOptions:
    """How a value is written into the server's registers."""

    round: bool | None = spec("round a fraction for an integer type; left out: only when the binding scales", None)

"""What the configuration of registers in our own Modbus server may say: the protocol `modbus_server`."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from scada.config import Direction
from scada.errors import Fault
from scada.modbus.limits import Table
from scada.modbus.registers import codec
from scada.protocols.modbus import ModbusAddress, ModbusTerm
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
        "what clients see of a bad or stale value: the last value, exception 0B, or the last value and a status register;"
        " for units of which no term says it",
        NotGood.LAST,
    )
    stale_after_s: float = spec(
        "a value not confirmed for so long is stale; 0 is never", 0.0, minimum=0, maximum=86_400
    )


@dataclass(frozen=True, slots=True)
class MailboxTerm(ModbusTerm):
    """What a term says about a unit of our own Modbus server, which may hold tags of several devices."""

    not_good: NotGood | None = spec(
        "what clients see of a bad or stale value of any tag of the unit; that of each device's network when left out",
        None,
    )


@dataclass(frozen=True, slots=True)
class MailboxAddress(ModbusAddress):
    """Where in our Modbus server a tag's value stands."""

    status: int | None = spec(
        "holding register of the same unit that shows the quality: 0 good, 1 uncertain, 2 bad or stale",
        None,
        minimum=0,
        maximum=65535,
    )

    def faults(self) -> Iterator[Fault]:
        own = list(ModbusAddress.faults(self))
        yield from own
        if own or self.status is None or self.table is not Table.HOLDING_REGISTER:
            return
        count = codec(self.type, self.order, length=self.length, bit=self.bit).registers
        if self.register <= self.status < self.register + count:
            yield Fault("status", "is one of the value's own registers")

    def directed(self, direction: Direction) -> Iterator[Fault]:
        """What is wrong with it in a binding of this direction: clients write two tables only."""
        if direction is not Direction.OUT and not self.table.is_writable:
            yield Fault("table", f"clients cannot write a {self.table}: direction out only")


@dataclass(frozen=True, slots=True)
class MailboxOptions:
    """How a value is written into the server's registers."""

    round: bool | None = spec("round a fraction for an integer type; left out: only when the binding scales", None)

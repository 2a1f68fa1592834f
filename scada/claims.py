"""Which addresses of our own Modbus server a tag takes, and what two tags of one image cannot both have. Pure."""

from typing import NamedTuple

from scada.config import Direction
from scada.modbus.limits import Table
from scada.modbus.registers import codec
from scada.protocols.mailbox import MailboxAddress

MAX_REGISTERS = 125
"""Of one value: text of 250 bytes."""


class Claim(NamedTuple):
    """Addresses `first` up to `end` of a table, all of them or one bit of a register, for `owner`.

    `field` is the part of the address that asks for them. `read_only`: clients do not write them.
    """

    field: str
    table: Table
    first: int
    end: int
    bit: int | None
    read_only: bool
    owner: str


def claims_of(address: MailboxAddress, direction: Direction, name: str) -> tuple[Claim, ...]:
    """What the tag called `name` takes: its value's addresses first, then its status register.

    Raises ConfigError for a type that is not in order.
    """
    count, read_only = 1, direction is Direction.OUT
    if not address.table.is_bits:
        count = codec(address.type, address.order, length=address.length, bit=address.bit).registers
    value = Claim("register", address.table, address.register, address.register + count, address.bit, read_only, name)
    if address.status is None:
        return (value,)
    owner = f"the status of {name}"
    return value, Claim("status", Table.HOLDING_REGISTER, address.status, address.status + 1, None, True, owner)


class Claims:
    """What is taken of one image."""

    def __init__(self) -> None:
        self._taken: dict[tuple[Table, int], list[Claim]] = {}

    def collision(self, claim: Claim) -> str:
        """Why these addresses cannot be had; "" when they are free.

        Bits of one register may belong to several tags, when they are all for clients to write or none is.
        """
        for address in range(claim.first, claim.end):
            for other in self._taken.get((claim.table, address), ()):
                if claim.bit is None or other.bit is None or claim.bit == other.bit:
                    return f"{claim.table} {address} belongs to {other.owner} already"
                if claim.read_only is not other.read_only:
                    return f"{claim.table} {address}: its bits are written by clients or read, not both ({other.owner})"
        return ""

    def take(self, claim: Claim) -> None:
        """Take them, whether or not they are free."""
        for address in range(claim.first, claim.end):
            self._taken.setdefault((claim.table, address), []).append(claim)

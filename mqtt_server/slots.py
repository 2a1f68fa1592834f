"""What waits to be written, binding by binding: pure decisions about when a value goes out and whose message it settles.

A slot is one `out` binding. `offer` gives it a value, `take` hands out the next value to send, and `confirmed`, `refused` or
`requeue` says what came of it. Tickets are messages: each counts the slots that it still waits for.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from scada.modbus.limits import Table
from scada.outputs import OutPlan, Write
from scada.scaling import exceeds_deadband

MAX_QUEUE = 10_000
"""Most values that a binding with `every_value` keeps; beyond it the oldest is dropped and reported."""

REFUSED_PAUSE_S = 10.0
"""How long a binding whose write was refused as illegal is left alone (values that arrive meanwhile are rejected at once)."""


class Ticket:
    """One received message. `waiting` counts the values that are not settled yet, and the message before it on its topic.

    At 0 the message can be acknowledged; `following` is the next message of the topic, which waits for that. `owed` says
    whether the broker expects that at all: messages of QoS 0 come without a limit, so a slot holds one of them at most. `head` is
    the beginning of the payload, for reports.
    """

    __slots__ = ("delivery", "following", "head", "owed", "topic", "waiting")

    def __init__(self, delivery: Any, topic: str = "", owed: bool = True, head: bytes = b"") -> None:
        self.delivery = delivery
        self.topic = topic
        self.head = head
        self.owed = owed
        self.waiting = 0
        self.following: Ticket | None = None


@dataclass(slots=True, eq=False)
class Entry:
    """A value in a slot, with the messages that wait for it. `row_id` is its row in the outbox.

    `source` is the message that the value came in, for reports; None where it came in none.
    """

    write: Write
    tickets: list[Ticket]
    source: Ticket | None = None
    row_id: int | None = None
    parked: bool = False

    def take_tickets(self) -> list[Ticket]:
        """The messages, which this entry then settles no more."""
        tickets, self.tickets = self.tickets, []
        return tickets


@dataclass(slots=True, eq=False)
class Slot:
    """One binding's values on their way out, and itself the cell that is sent. Times are monotonic seconds.

    `silent` says whether the source is (None: not known yet); `flag` is the slot of the register that tells it to readers.
    """

    out: OutPlan
    queue: deque[Entry] = field(default_factory=deque)
    inflight: Entry | None = None
    last: Write | None = None
    """The value that the device confirmed last."""
    is_assured: bool = False
    """The device still holds `last`, as far as is known."""
    last_sent: float = float("-inf")
    last_source: float = float("-inf")
    not_before: float = float("-inf")
    refused_until: float = float("-inf")
    refusal: str = ""
    alone: bool = False
    silent: bool | None = None
    is_well: bool = False
    """The source is there, though it speaks only of changes."""
    flag: "Slot | None" = None
    gone: bool = False
    session: int = 0
    """The connection to the broker over which the newest value came for the first time."""
    unit_id: int = 0
    table: Table = Table.HOLDING_REGISTER
    address: int = 0
    count: int = 0
    bit: int | None = None
    limit: int = 0
    data: bytes = b""

    def __post_init__(self) -> None:
        self.adopt(self.out)

    def adopt(self, out: OutPlan) -> None:
        """Take `out` as the binding's plan; the values that wait are kept."""
        self.out = out
        self.unit_id, self.table, self.address = out.unit_id, out.table, out.address
        self.count, self.bit = out.count, out.bit
        network = out.network
        self.limit = network.max_write_coils if out.table is Table.COIL else network.max_write_registers

    def offer(self, write: Write, ticket: Ticket | None) -> list[Entry]:
        """Add a value. Returns the entries that it pushed out of a full queue."""
        queue = self.queue
        tickets = []
        if ticket is not None and (ticket.owed or self.out.options.every_value or not (queue and queue[0].tickets)):
            ticket.waiting += 1
            tickets.append(ticket)
        if self.out.options.every_value:
            queue.append(Entry(write, tickets, ticket))
            return [queue.popleft()] if len(queue) > MAX_QUEUE else []
        if queue:
            entry = queue[0]
            entry.write = write
            entry.source = ticket
            entry.tickets += tickets
            entry.parked = False
        else:
            queue.append(Entry(write, tickets, ticket))
        return []

    def take(self) -> Entry | None:
        """The next value to send, now in flight; None when there is none."""
        if not self.queue:
            return None
        self.inflight = entry = self.queue.popleft()
        self.data = entry.write.data
        return entry

    def unchanged(self, write: Write) -> bool:
        """The binding's options say that `write` need not be sent."""
        last, options = self.last, self.out.options
        if last is None or not self.is_assured or not (options.on_change or options.deadband):
            return False
        if options.deadband and exceeds_deadband(last.value, write.value, options.deadband):
            return options.on_change and last.data == write.data
        return True if options.deadband else last.data == write.data

    def confirmed(self, now: float) -> Entry:
        """The value in flight stands in the device."""
        entry = self._landed()
        self.last, self.last_sent = entry.write, now
        self.is_assured = True
        self.alone = False
        self.refused_until = float("-inf")
        if self.out.options.min_interval_s:
            self.not_before = now + self.out.options.min_interval_s
        return entry

    def refused(self, reason: str, now: float) -> Entry:
        """The device will not have the value in flight; later ones are rejected for a while without asking again."""
        entry = self._landed()
        self.is_assured = False  # a gateway refuses as well when the unit behind it was only late
        self.alone = True
        self.refusal = reason
        self.refused_until = now + REFUSED_PAUSE_S
        return entry

    def requeue(self) -> None:
        """The value in flight did not get through: it waits again, unless a newer one does."""
        entry = self.inflight
        if entry is None:
            return
        self.inflight = None
        self.is_assured = False  # it may stand in the device all the same
        if self.queue and not self.out.options.every_value:
            self.queue[0].tickets[:0] = [ticket for ticket in entry.tickets if ticket.owed]
        else:
            self.queue.appendleft(entry)

    def newest(self) -> Entry | None:
        """The value that came last of those not yet settled."""
        return self.queue[-1] if self.queue else self.inflight

    def entries(self) -> Iterable[Entry]:
        """All values not yet settled, oldest first."""
        if self.inflight is not None:
            yield self.inflight
        yield from self.queue

    def _landed(self) -> Entry:
        entry = self.inflight
        if entry is None:
            raise AssertionError(f"binding {self.out.binding_id}: an answer without a request")
        self.inflight = None
        return entry

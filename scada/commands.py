"""Commands: what is asked of a tag or of several tags of one device, and the states that an answer moves through.

    (none) -> accepted -> sent -> acknowledged -> verified
                 |          |          |
                 +- expired, failed ---+     superseded: from accepted, and from acknowledged (a newer value is on its way)

Payloads are in `scada.command_messages`, what an owner remembers in `scada.command_book`, what may be set in `scada.setpoints`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from scada.values import Sample, Value

DEFAULT_EXPIRY_MS = 5_000
MAX_EXPIRY_MS = 3_600_000
"""A command that could still act after an hour would surprise whoever stands beside the machine."""
MAX_AHEAD_MS = 5_000
"""The clock of who asks may be so far ahead of the owner's: a command is never done later than that after its time."""
MAX_ID_CHARACTERS = 64
MAX_WHO_CHARACTERS = 64
MAX_REASON_CHARACTERS = 256
MAX_GROUP = 1_968
"""Most tags in one group: the most coils that one Modbus request writes (V1.1b3 section 6.11)."""


class CommandState(StrEnum):
    """Where a command is. A call knows `verified`, `failed` and `expired` only."""

    ACCEPTED = "accepted"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"
    VERIFIED = "verified"
    FAILED = "failed"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


FINAL = frozenset({CommandState.VERIFIED, CommandState.FAILED, CommandState.EXPIRED, CommandState.SUPERSEDED})
"""Nothing follows these. `acknowledged` is final too where nothing can be read back: a step says so itself."""

_ENDS = frozenset({CommandState.FAILED, CommandState.EXPIRED})
_FOLLOWING: Mapping[CommandState | None, frozenset[CommandState]] = MappingProxyType(
    {
        None: _ENDS | {CommandState.ACCEPTED},
        CommandState.ACCEPTED: _ENDS | {CommandState.SENT, CommandState.SUPERSEDED},
        CommandState.SENT: _ENDS | {CommandState.ACKNOWLEDGED},
        CommandState.ACKNOWLEDGED: _ENDS | {CommandState.VERIFIED, CommandState.SUPERSEDED},
    }
)


def may_follow(state: CommandState | None, after: CommandState) -> bool:
    """Whether a command in `state` (None: not seen yet) may come to `after`."""
    return after in _FOLLOWING.get(state, frozenset())


@dataclass(frozen=True, slots=True)
class Command:
    """Set tags of a device to engineering values, by tag name in the order given. A `group` is done whole or not at all.

    `by` is who asks and `origin` from where ("rest 127.0.0.1", "console"); `expires_ms`: UTC milliseconds.
    """

    id: str
    device: str
    values: Mapping[str, Value]
    expires_ms: int
    by: str = ""
    origin: str = ""
    group: bool = False

    @property
    def tag(self) -> str | None:
        """The tag; None for a group."""
        return None if self.group else next(iter(self.values), None)

    @property
    def value(self) -> "Value | Mapping[str, Value] | None":
        """The value as feedback shows it: that of the tag, or for a group an object of them."""
        return self.values if self.group else next(iter(self.values.values()), None)


@dataclass(frozen=True, slots=True)
class Call:
    """Read tags of a device now; no tags are all of them."""

    id: str
    device: str
    tags: tuple[str, ...]
    expires_ms: int
    by: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a command's (or call's) state, as it stands on `feedback` and in the log.

    `value` is what was asked for, `old_value` the tag's value before, None when it is not known; both are objects by tag for a
    group (`tag` is None). `samples`: the answer of a call.
    """

    id: str
    device: str
    tag: str | None
    state: CommandState
    time_ms: int
    value: Value | Mapping[str, Value] | None = None
    old_value: Value | Mapping[str, Value | None] | None = None
    reason: str = ""
    by: str = ""
    origin: str = ""
    final: bool = False
    samples: tuple[Sample, ...] = field(default=())

    @property
    def is_of_call(self) -> bool:
        """Whether it answers a call: a command has a tag, or the values of a group."""
        return self.tag is None and self.value is None


def step_of(
    command: Command,
    state: CommandState,
    now_ms: int,
    *,
    old_value: Value | Mapping[str, Value | None] | None = None,
    reason: str = "",
    final: bool | None = None,
) -> Step:
    """A command's step. `final` is left out but for an acknowledgement that nothing follows."""
    return Step(
        command.id,
        command.device,
        command.tag,
        state,
        now_ms,
        command.value,
        old_value,
        reason[:MAX_REASON_CHARACTERS],
        command.by,
        command.origin,
        state in FINAL if final is None else final,
    )


def answer_of(
    call: Call, state: CommandState, now_ms: int, *, samples: tuple[Sample, ...] = (), reason: str = ""
) -> Step:
    """A call's only step: `verified` with the samples, else `failed` or `expired` with the reason."""
    return Step(
        call.id,
        call.device,
        None,
        state,
        now_ms,
        None,
        None,
        reason[:MAX_REASON_CHARACTERS],
        call.by,
        call.origin,
        True,
        samples,
    )

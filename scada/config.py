"""The configuration's records: what a device, a tag or a binding may say whatever its protocol.

These classes declare; `scada.schema` parses them, the REST schemas and the documentation are made from them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from scada.errors import Fault
from scada.scaling import OutOfLimits
from scada.schema import spec
from scada.values import DataType


class Direction(StrEnum):
    """Seen from Tagwire: `in` reads the tag from the field, `out` writes it there."""

    IN = "in"
    OUT = "out"
    INOUT = "inout"


class ScanClass(StrEnum):
    """How often a tag is read that names no period of its own; field_server's settings say what each means."""

    FAST = "fast"
    NORMAL = "normal"
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class ScalingConfig:
    """Linear scaling between the raw value of the protocol and the tag's engineering value."""

    gain: float = spec("engineering = raw * gain + offset", 1.0)
    offset: float = spec("engineering = raw * gain + offset", 0.0)

    def faults(self) -> Iterator[Fault]:
        if self.gain == 0:
            yield Fault("gain", "must not be 0")


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """Engineering limits, inclusive."""

    low: float | None = spec("lowest engineering value", None)
    high: float | None = spec("highest engineering value", None)
    action: OutOfLimits = spec(
        "what happens to a value outside: it is rejected, or clamped to the limit", OutOfLimits.REJECT
    )

    def faults(self) -> Iterator[Fault]:
        if self.low is not None and self.high is not None and self.low > self.high:
            yield Fault("low", f"must not be above high ({self.low:g} > {self.high:g})")


@dataclass(frozen=True, slots=True)
class BindingConfig:
    """How one protocol reaches one tag. `address` and `options` are of the protocol's own classes."""

    id: int
    protocol: str
    direction: Direction
    address: object
    options: object
    scaling: ScalingConfig | None
    limits: LimitsConfig | None
    period_ms: int | None = None
    scan: ScanClass | None = None


@dataclass(frozen=True, slots=True)
class TagConfig:
    """One tag with what it inherits from its item and term already filled in."""

    id: int
    name: str
    data_type: DataType
    scaling: ScalingConfig | None
    limits: LimitsConfig | None
    deadband: float
    bindings: tuple[BindingConfig, ...]


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """One device as a program needs it. `revision` is the configuration's revision that changed it last.

    `terms` are what its terms say about each protocol: records of the protocol's own class. `faults` lists what could not be
    understood in the stored rows; those parts are left out.
    """

    id: int
    name: str
    revision: int
    networks: Mapping[str, object]
    tags: tuple[TagConfig, ...]
    faults: tuple[Fault, ...] = field(default=())
    terms: Mapping[str, tuple[object, ...]] = field(default_factory=dict)

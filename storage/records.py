"""The configuration's records: what a device, a term, an item, a tag and a binding say for themselves.

Those of the protocols and of scaling and limits are declared in `scada`; the REST schemas are made from all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from scada.config import Direction, LimitsConfig, ScalingConfig, ScanClass
from scada.errors import ConfigError, Fault
from scada.schema import spec
from scada.topics import check_name
from scada.values import DataType
from storage.models import NAME_LENGTH


def _check_device_name(text: str) -> None:
    check_name(text)
    if text.isascii() and text.isdigit():
        raise ConfigError("digits alone mean an id wherever a device is named: add a letter")


@dataclass(frozen=True, slots=True)
class DeviceFields:
    """A device's own fields; beside them a document has `network`, `terms` and `tags`."""

    name: str = spec("unique, fit for a topic, not digits alone", max_length=NAME_LENGTH, check=_check_device_name)
    description: str = spec("free text", "", max_length=500)
    enabled: bool = spec("a device that is not enabled is left alone by every program", True)


@dataclass(frozen=True, slots=True)
class TermFields:
    """A term's own fields; beside them a document has `settings`, one object per protocol."""

    name: str = spec("unique in its device", max_length=NAME_LENGTH, check=check_name)
    description: str = spec("free text", "", max_length=500)


@dataclass(frozen=True, slots=True)
class ItemFields:
    """An item."""

    name: str = spec("unique", max_length=NAME_LENGTH, check=check_name)
    description: str = spec("free text", "", max_length=500)
    data_type: DataType = spec("float, int, bool or string", DataType.FLOAT)
    unit: str = spec("engineering unit", "", max_length=32)
    scaling: ScalingConfig | None = spec("linear scaling of the raw value", None)
    limits: LimitsConfig | None = spec("engineering limits", None)
    deadband: float = spec("a smaller change is no change", 0.0, minimum=0)


@dataclass(frozen=True, slots=True)
class TagFields:
    """A tag's own fields, null for what its item says; beside them `item_id` or `item`, `term_id` or `term`, and `bindings`."""

    name: str = spec("unique in its device", max_length=NAME_LENGTH, check=check_name)
    description: str = spec("free text", "", max_length=500)
    data_type: DataType | None = spec("float, int, bool or string; the item's, else float, when left out", None)
    unit: str | None = spec("engineering unit", None, max_length=32)
    scaling: ScalingConfig | None = spec("linear scaling of the raw value", None)
    limits: LimitsConfig | None = spec("engineering limits", None)
    deadband: float | None = spec("a smaller change is no change", None, minimum=0)


@dataclass(frozen=True, slots=True)
class BindingFields:
    """A binding's own fields; beside them `address` and `options`, whose fields the protocol declares."""

    protocol: str = spec("name of the protocol", max_length=32)
    direction: Direction = spec("in: Tagwire reads the tag; out: it writes it; inout: both")
    scaling: ScalingConfig | None = spec("linear scaling of this binding, in place of the tag's", None)
    limits: LimitsConfig | None = spec("limits of this binding, on top of the tag's", None)
    period_ms: int | None = spec(
        "time between two reads; left out: that of its scan class", None, minimum=10, maximum=86_400_000
    )
    scan: ScanClass | None = spec("fast, normal or slow; normal when both are left out", None)

    def faults(self) -> Iterator[Fault]:
        if self.period_ms is not None and self.scan is not None:
            yield Fault("scan", "says how often, and so does period_ms: name one of them")

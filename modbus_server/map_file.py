"""The map file: which unit ids the server has, and which addresses each of them. TOML in, plan out; pure.

[shared]                                # one image for every unit id, with only these addresses
holding_register = ["0-99", "4000"]

[[unit]]                                # or separate images
ids = [1, 2, 3]
coil = "all"
holding_register = ["0-99"]
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scada.errors import ConfigError, Fault
from scada.modbus.image import WHOLE, Span, UnitMap
from scada.modbus.limits import MAX_ADDRESS, MAX_UNIT_ID, Table

_SPAN = re.compile(r"(\d{1,5})(?:\s*-\s*(\d{1,5}))?")
_ALL = "all"


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """Either one image that every unit id shares, or an image for each unit id that exists."""

    shared: UnitMap | None
    units: Mapping[int, UnitMap]


WITHOUT_MAP = UnitPlan(UnitMap.whole(), {})


def parse_map(text: str) -> UnitPlan:
    """The plan that a map file describes. Raises ConfigError with every fault; fields are places such as `unit.0.coil.1`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError([Fault("", f"is not TOML: {exc}")]) from exc
    faults: list[Fault] = [
        Fault(key, "is not known here; [shared] and [[unit]] are") for key in document if key not in ("shared", "unit")
    ]
    if ("shared" in document) == ("unit" in document):
        faults.append(Fault("", "needs either [shared] or [[unit]]"))
    shared: UnitMap | None = None
    units: dict[int, UnitMap] = {}
    if "shared" in document:
        shared = _unit_map(document["shared"], "shared", frozenset(), faults)
    for place, entry in _entries(document.get("unit", []), faults):
        unit_map = _unit_map(entry, place, frozenset({"ids"}), faults)
        for unit_id in _unit_ids(entry, place, faults):
            if unit_id in units:
                faults.append(Fault(f"{place}.ids", f"unit id {unit_id} is named twice"))
            units[unit_id] = unit_map
    if faults:
        raise ConfigError(faults)
    return UnitPlan(shared, units)


def _entries(value: Any, faults: list[Fault]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(value, list):
        faults.append(Fault("unit", "must be a list of tables: [[unit]]"))
        return
    for index, entry in enumerate(value):
        if isinstance(entry, dict):
            yield f"unit.{index}", entry
        else:
            faults.append(Fault(f"unit.{index}", "must be a table"))


def _unit_ids(entry: Mapping[str, Any], place: str, faults: list[Fault]) -> list[int]:
    ids = entry.get("ids")
    if not isinstance(ids, list) or not ids:
        faults.append(Fault(f"{place}.ids", "must list the unit ids"))
        return []
    good = []
    for index, unit_id in enumerate(ids):
        if isinstance(unit_id, int) and not isinstance(unit_id, bool) and 0 <= unit_id <= MAX_UNIT_ID:
            good.append(unit_id)
        else:
            faults.append(
                Fault(f"{place}.ids.{index}", f"must be a number from 0 to {MAX_UNIT_ID} (it is {unit_id!r})")
            )
    return good


def _unit_map(entry: Any, place: str, others: frozenset[str], faults: list[Fault]) -> UnitMap:
    if not isinstance(entry, dict):
        faults.append(Fault(place, "must be a table"))
        return UnitMap({})
    spans: dict[Table, tuple[Span, ...]] = {}
    for key, value in entry.items():
        if key in others:
            continue
        if key not in set(Table):
            faults.append(Fault(f"{place}.{key}", f"is not known; {', '.join(sorted(others | set(Table)))} are"))
            continue
        spans[Table(key)] = tuple(_spans(value, f"{place}.{key}", faults))
    if not spans:
        faults.append(Fault(place, "has no table, so no address"))
    return UnitMap(spans)


def _spans(value: Any, place: str, faults: list[Fault]) -> Iterator[Span]:
    if value == _ALL:
        yield WHOLE
        return
    if not isinstance(value, list):
        faults.append(Fault(place, f'must be "{_ALL}" or a list of addresses and spans such as "0-99"'))
        return
    for index, item in enumerate(value):
        match = None if isinstance(item, bool) else _SPAN.fullmatch(str(item).strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first <= last <= MAX_ADDRESS:
            yield Span(first, last)
        else:
            message = f'must be an address or a span such as "0-99" within 0-{MAX_ADDRESS} (it is {item!r})'
            faults.append(Fault(f"{place}.{index}", message))

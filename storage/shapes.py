"""Rows as documents: what is stored in short form is shown with its defaults and what it inherits."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Column, Table

from scada.config import LimitsConfig, ScalingConfig
from scada.modbus.endpoint import Transport
from scada.modbus.limits import TCP_PORT, TLS_PORT
from scada.registry import PROTOCOLS
from scada.schema import fields
from storage import models

Row = dict[str, Any]

DEVICE: Table = models.Device.__table__  # type: ignore[assignment]  # a FromClause to its types
NETWORK: Table = models.Network.__table__  # type: ignore[assignment]  # a FromClause to its types
TERM: Table = models.Term.__table__  # type: ignore[assignment]  # a FromClause to its types
ITEM: Table = models.Item.__table__  # type: ignore[assignment]  # a FromClause to its types
TAG: Table = models.Tag.__table__  # type: ignore[assignment]  # a FromClause to its types
BINDING: Table = models.Binding.__table__  # type: ignore[assignment]  # a FromClause to its types

DEFAULT_UNIT_ID = 1
BINDING_FIELDS = ("protocol", "direction", "address", "options", "scaling", "limits", "period_ms", "scan")
TAG_FIELDS = (
    "device_id", "term_id", "item_id", "name", "description", "data_type", "unit", "scaling", "limits", "deadband",
)  # fmt: skip


INHERITED = ("data_type", "unit", "scaling", "limits", "deadband")
"""What a tag has from its item, unless it says something else."""


def columns(table: Table, *names: str) -> list[Column[Any]]:
    """The id and the named columns of a table."""
    return [table.c[name] for name in ("id", *names)]


def filled(kind: type, stored: Mapping[str, Any]) -> Row:
    """A stored record with its defaults."""
    return {**_defaults(kind), **stored}


def network_document(device_id: int, protocol: str, settings: Mapping[str, Any]) -> Row:
    """A network configuration; an MQTT topic or a Modbus port that was left out is shown as the one in force."""
    result = filled(PROTOCOLS[protocol].network, settings)
    if protocol == "mqtt" and result.get("topic") is None:
        result["topic"] = default_topic(device_id)
    if protocol == "modbus" and result.get("port") is None and result["transport"] != Transport.SERIAL:
        result["port"] = TLS_PORT if result["transport"] == Transport.TLS else TCP_PORT
    return result


def default_topic(device_id: int) -> str:
    """Where a device without a topic publishes."""
    return f"device/{device_id}"


def item_document(row: Mapping[str, Any]) -> Row:
    """An item."""
    return {**row, "scaling": _scaling(row["scaling"]), "limits": _limits(row["limits"])}


def tag_document(row: Mapping[str, Any], item: Mapping[str, Any] | None, bindings: list[Row]) -> Row:
    """A tag with its bindings, already documents; what it has from its item is shown as its own."""
    known = {**row, **inherited(row, item), "bindings": bindings}
    return {**known, "scaling": _scaling(known["scaling"]), "limits": _limits(known["limits"])}


def inherited(row: Mapping[str, Any], item: Mapping[str, Any] | None) -> Row:
    """A stored tag's INHERITED fields as they are in force."""
    result = {name: row[name] if row[name] is not None or item is None else item[name] for name in INHERITED}
    return {**result, "data_type": result["data_type"] or "float"}


def binding_document(row: Mapping[str, Any], term_settings: Mapping[str, Any] | None) -> Row:
    """A binding; its address is shown with what it takes from the tag's term."""
    name = row["protocol"]
    kind = PROTOCOLS[name]
    address = filled(kind.address, row["address"])
    if kind.term is not None and address.get("unit_id") is None:
        address["unit_id"] = unit_id(name, term_settings)
    options = None if row["options"] is None else filled(kind.options, row["options"])
    return {
        **row,
        "address": address,
        "options": options,
        "scaling": _scaling(row["scaling"]),
        "limits": _limits(row["limits"]),
    }


def unit_id(protocol: str, term_settings: Mapping[str, Any] | None) -> int:
    """The unit that an address without one means: the term's, else 1."""
    found: int | None = ((term_settings or {}).get(protocol) or {}).get("unit_id")
    return DEFAULT_UNIT_ID if found is None else found


@cache
def _defaults(kind: type) -> Row:
    given = {field.name: field.default for field in fields(kind) if not field.required and field.default is not None}
    return {name: getattr(value, "value", value) for name, value in given.items()}


def _scaling(stored: Mapping[str, Any] | None) -> Row | None:
    return None if stored is None else filled(ScalingConfig, stored)


def _limits(stored: Mapping[str, Any] | None) -> Row | None:
    return None if stored is None else filled(LimitsConfig, stored)

"""Registers of our own Modbus server that two tags want, and units of which two terms say different things.

They are looked for at the end of a change, when everything stands as it will: within one change tags may trade places. Only
what the change has put there is judged, so an old database that holds such a thing can be mended piece by piece.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, or_, select

from scada.claims import MAX_REGISTERS, Claim, Claims, claims_of
from scada.config import Direction
from scada.errors import ConfigError, Fault
from scada.protocols.mailbox import MailboxAddress
from scada.schema import join, parse
from storage.shapes import BINDING, DEVICE, TAG, TERM, Row, unit_id

PROTOCOL = "modbus_server"
"""All of its devices share the registers of one server."""
_CHUNK = 900


@dataclass(slots=True)
class Placed:
    """What a change has put into the server, each with the place in the document that says so.

    `bindings` and `tags` are by the tag's id: the binding itself, or a tag that goes to its term's unit. `terms` have moved to
    another unit or say something else of it, `devices` were enabled.
    """

    bindings: dict[int, str] = field(default_factory=dict)
    tags: dict[int, str] = field(default_factory=dict)
    terms: dict[int, str] = field(default_factory=dict)
    devices: dict[int, str] = field(default_factory=dict)

    def refuse_collisions(self, connection: Connection) -> None:
        """Raise ConfigError for what was put where something else is already; the other one is named."""
        if self.bindings or self.tags or self.terms or self.devices:
            faults = [*self._colliding(connection), *self._contradicting(connection)]
            if faults:
                raise ConfigError(faults)

    def _colliding(self, connection: Connection) -> Iterable[Fault]:
        own = self._own(connection)
        if not own:
            return
        images: dict[int, Claims] = defaultdict(Claims)
        claims = [claim for each in own for claim in each.claims]
        low, high = min(claim.first for claim in claims), max(claim.end for claim in claims)
        ids = {each.tag_id for each in own}
        for each in _standing(connection, _between(low, high)):
            if each.tag_id not in ids:
                for claim in each.claims:
                    images[each.unit_id].take(claim)
        for each in own:
            for claim in each.claims:
                fault = images[each.unit_id].collision(claim)
                if fault:
                    yield Fault(self._path(each, claim), f"unit {each.unit_id}: {fault}")
                else:
                    images[each.unit_id].take(claim)

    def _own(self, connection: Connection) -> "list[_Standing]":
        found: dict[int, _Standing] = {}
        for column, ids in (
            (TAG.c.id, self.bindings.keys() | self.tags.keys()),
            (TAG.c.term_id, self.terms.keys()),
            (TAG.c.device_id, self.devices.keys()),
        ):
            ordered = sorted(ids)
            for start in range(0, len(ordered), _CHUNK):
                query = _QUERY.where(column.in_(ordered[start : start + _CHUNK]))
                found |= {each.tag_id: each for each in _standing(connection, query)}
        return [found[tag_id] for tag_id in sorted(found)]

    def _path(self, tag: "_Standing", claim: Claim) -> str:
        if tag.tag_id in self.bindings:
            return join(self.bindings[tag.tag_id], f"address.{claim.field}")
        if tag.tag_id in self.tags:
            return self.tags[tag.tag_id]
        if tag.term_id in self.terms:
            return join(self.terms[tag.term_id], f"settings.{PROTOCOL}.unit_id")
        return self.devices[tag.device_id]

    def _contradicting(self, connection: Connection) -> Iterable[Fault]:
        if not self.terms and not self.devices:
            return
        query = (
            select(TERM.c.id, TERM.c.device_id, TERM.c.name, TERM.c.settings, DEVICE.c.name.label("device"))
            .join(DEVICE, DEVICE.c.id == TERM.c.device_id)
            .where(DEVICE.c.enabled)
            .order_by(TERM.c.id)
        )
        chosen = [row for row in map(_Chosen.of, connection.execute(query).mappings()) if row is not None]
        said: dict[int, _Chosen] = {}
        for mine in (False, True):
            for each in chosen:
                path = self.terms.get(each.term_id)
                path = None if path is None else join(path, f"settings.{PROTOCOL}.not_good")
                path = self.devices.get(each.device_id) if path is None else path
                if (path is not None) is not mine:
                    continue
                other = said.setdefault(each.unit_id, each)
                if path is not None and other.not_good != each.not_good:
                    both = f"{each.not_good!r}, by {each.name}, and {other.not_good!r}, by {other.name}"
                    yield Fault(path, f"unit {each.unit_id} cannot show both {both}")


class _Standing(NamedTuple):
    """A tag in the server, as it is stored."""

    tag_id: int
    device_id: int
    term_id: int | None
    unit_id: int
    claims: tuple[Claim, ...]


class _Chosen(NamedTuple):
    """A term that says what clients see of its unit."""

    term_id: int
    device_id: int
    name: str
    unit_id: int
    not_good: str

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> "_Chosen | None":
        settings: Row = row["settings"]
        not_good = (settings.get(PROTOCOL) or {}).get("not_good")
        if not_good is None:
            return None
        name = f"term {row['name']!r} of device {row['device']!r}"
        return cls(row["id"], row["device_id"], name, unit_id(PROTOCOL, settings), not_good)


_QUERY = (
    select(
        TAG.c.id,
        TAG.c.device_id,
        TAG.c.term_id,
        TAG.c.name,
        DEVICE.c.name.label("device"),
        BINDING.c.direction,
        BINDING.c.address,
        TERM.c.settings,
    )
    .select_from(
        BINDING.join(TAG, TAG.c.id == BINDING.c.tag_id)
        .join(DEVICE, DEVICE.c.id == TAG.c.device_id)
        .outerjoin(TERM, TERM.c.id == TAG.c.term_id)
    )
    .where(BINDING.c.protocol == PROTOCOL, DEVICE.c.enabled)
)


def _between(low: int, high: int) -> Select[Any]:
    """The tags that may have one of the addresses from `low` up to `high`."""
    register, status = (BINDING.c.address[name].as_integer() for name in ("register", "status"))
    return _QUERY.where(
        or_(register.between(low - MAX_REGISTERS + 1, high - 1), status.between(low, high - 1)),
    )


def _standing(connection: Connection, query: Select[Any]) -> Iterable[_Standing]:
    for row in connection.execute(query).mappings():
        try:
            address = parse(MailboxAddress, row["address"])
            claims = claims_of(address, Direction(row["direction"]), f"{row['device']}@{row['name']}")
        except (ConfigError, ValueError):
            continue  # a row of another program's: the server leaves it out as well
        unit = unit_id(PROTOCOL, row["settings"]) if address.unit_id is None else address.unit_id
        yield _Standing(row["id"], row["device_id"], row["term_id"], unit, claims)

"""Writing the networks and terms of a device."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, delete, func, insert, select, update

from scada.errors import ConfigError, Conflict, Fault
from scada.registry import PROTOCOLS
from scada.schema import join
from scada.topics import BusTopics
from storage import lines
from storage.claims import PROTOCOL
from storage.contradictions import misplaced
from storage.drafts import TermDraft
from storage.revisions import Change
from storage.shapes import BINDING, NETWORK, TAG, TERM, Row, default_topic
from storage.tags import Mode
from storage.views import NETWORK_COLUMNS, TERM_COLUMNS, rows

BUS_ROOT = "tagwire_bus_root"
"""The engine's option that says where the bus is."""


def stored_networks(connection: Connection, device_id: int) -> dict[str, Row]:
    """A device's networks as they are stored, by protocol."""
    return {
        row["protocol"]: row["settings"] for row in rows(connection, NETWORK_COLUMNS, NETWORK.c.device_id == device_id)
    }


def save_networks(change: Change, device_id: int, networks: Mapping[str, Row], mode: Mode, path: str | None) -> None:
    """Store a device's networks, by protocol. In REPLACE mode protocols that are not named are removed.

    Raises ConfigError for MQTT topics of the bus; `path` is where the networks stand in the document, None when it is one
    network's settings.
    """
    connection = change.connection

    def path_of(protocol: str) -> str:
        return "" if path is None else join(path, protocol)

    if "mqtt" in networks:
        faults = list(_on_the_bus(connection, device_id, networks["mqtt"], path_of("mqtt")))
        if faults:
            raise ConfigError(faults)
    stored = stored_networks(connection, device_id)
    own = NETWORK.c.device_id == device_id
    for protocol, settings in networks.items():
        if protocol == lines.PROTOCOL and stored.get(protocol) != settings:
            change.lines.networks[device_id] = path_of(protocol)
        if protocol not in stored:
            row = {"device_id": device_id, "protocol": protocol, "settings": settings}
            connection.execute(insert(NETWORK), row)
        elif stored[protocol] != settings:
            connection.execute(update(NETWORK).where(own, NETWORK.c.protocol == protocol).values(settings=settings))
    if mode is Mode.REPLACE:
        connection.execute(delete(NETWORK).where(own, NETWORK.c.protocol.not_in(list(networks))))


def _on_the_bus(connection: Connection, device_id: int, settings: Row, path: str) -> Iterable[Fault]:
    topics = BusTopics(connection.get_execution_options()[BUS_ROOT])
    used = {"topic": settings.get("topic") or default_topic(device_id), "out_topic": settings.get("out_topic")}
    for name, topic in used.items():
        if topic is not None and topics.owns(topic):
            message = f"{topic} belongs to the bus (TAGWIRE_BUS_ROOT is {topics.root}): a device there would hear Tagwire itself"
            yield Fault(join(path, name), message)


def refuse_orphans(change: Change, device_id: int, path: str = "network") -> None:
    """Raise Conflict when bindings of the device speak a protocol that it has no network for, or do not fit the one it has."""
    known = select(NETWORK.c.protocol).where(NETWORK.c.device_id == device_id)
    orphans = (
        select(BINDING.c.protocol, func.count())
        .join(TAG, TAG.c.id == BINDING.c.tag_id)
        .where(TAG.c.device_id == device_id, BINDING.c.protocol.not_in(known))
        .group_by(BINDING.c.protocol)
    )
    faults = [
        Fault(join(path, protocol), f"is needed by {count} bindings")
        for protocol, count in change.connection.execute(orphans)
    ]
    faults.extend(_misplaced(change, device_id, path))
    if faults:
        raise Conflict(faults)


def _misplaced(change: Change, device_id: int, path: str) -> Iterable[Fault]:
    """One fault for each network that bindings do not fit: the first of them, and how many."""
    choosy = [protocol.name for protocol in PROTOCOLS.values() if protocol.belongs is not None]
    networks = stored_networks(change.connection, device_id)
    for protocol in [name for name in networks if name in choosy]:
        bindings = (
            select(TAG.c.name, BINDING.c.protocol, BINDING.c.direction, BINDING.c.address)
            .join(TAG, TAG.c.id == BINDING.c.tag_id)
            .where(TAG.c.device_id == device_id, BINDING.c.protocol == protocol)
            .order_by(BINDING.c.id)
        )
        wrong = [
            (row["name"], fault)
            for row in change.connection.execute(bindings).mappings()
            for fault in misplaced(dict(row), networks[protocol])
        ]
        if wrong:
            name, fault = wrong[0]
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            yield Fault(join(path, protocol), f"does not fit its tag {name!r}: {fault.message}{more}")


def refuse_used(change: Change, terms: Iterable[Row], path: str = "") -> None:
    """Raise Conflict when tags are of one of the terms: without it their values would go to another unit."""
    used = select(func.count()).select_from(TAG)
    faults = []
    for term in terms:
        count = change.connection.execute(used.where(TAG.c.term_id == term["id"])).scalar_one()
        if count:
            faults.append(Fault(path, f"term {term['name']!r} is used by tags ({count} of them)"))
    if faults:
        raise Conflict(faults)


def save_terms(
    change: Change, device_id: int, terms: Sequence[TermDraft], mode: Mode, *, tags_follow: bool = False
) -> list[int]:
    """Store terms of a device, found by id, else by name; their ids. In REPLACE mode the others are removed.

    Raises Conflict for a name that is taken, and for a term that is removed while tags are of it, unless `tags_follow`:
    then all tags of the device are stored anew next, and say themselves what they are of.
    """
    connection = change.connection
    stored = rows(connection, TERM_COLUMNS, TERM.c.device_id == device_id)
    by_id = {row["id"]: row for row in stored}
    by_name = {row["name"]: row for row in stored}
    ids: list[int] = []
    for draft in terms:
        old = by_id.get(draft.id) if draft.id is not None and mode is not Mode.CREATE else None
        old = old or by_name.get(draft.row["name"])
        if old is None:
            statement = insert(TERM).values(device_id=device_id, **draft.row).returning(TERM.c.id)
            ids.append(connection.execute(statement).scalar_one())
            change.placed.terms[ids[-1]] = draft.path
            continue
        if mode is Mode.CREATE:
            message = f"the device already has a term {draft.row['name']!r}"
            raise Conflict([Fault(join(draft.path, "name"), message)])
        if old["id"] in ids:
            raise ConfigError([Fault(join(draft.path, "name"), "another term of the document is the same one")])
        ids.append(old["id"])
        if any(old[name] != value for name, value in draft.row.items()):
            connection.execute(update(TERM).where(TERM.c.id == old["id"]).values(**draft.row))
            if old["settings"].get(PROTOCOL) != draft.row["settings"].get(PROTOCOL):
                change.placed.terms[old["id"]] = draft.path
    if mode is Mode.REPLACE:
        if not tags_follow:
            refuse_used(change, [row for row in stored if row["id"] not in ids], "terms")
        connection.execute(delete(TERM).where(TERM.c.device_id == device_id, TERM.c.id.not_in(ids)))
    return ids

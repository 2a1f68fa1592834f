"""Tags that verify others: what the option `feedback` of a binding names must be there, and be read as the binding is."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, select

from scada.config import Direction
from scada.errors import Fault
from scada.schema import join
from storage.drafts import BindingDraft, TagDraft
from storage.shapes import BINDING, TAG

# SQLite before 3.32 takes 999 parameters in a statement.
_NAMES_AT_ONCE = 900


def unread(
    connection: Connection, tags: Sequence[tuple[int, TagDraft]], ids: Iterable[int | None], *, others_stay: bool
) -> Iterable[Fault]:
    """The faults of (device id, tag) pairs whose commands could never be verified, as their feedback tag is not read.

    `ids`: those of the pairs that are stored already, whose stored form counts no more. `others_stay`: other stored tags do.
    """
    wanted: dict[int, list[tuple[str, BindingDraft]]] = defaultdict(list)
    given: dict[int, dict[str, str | None]] = defaultdict(dict)
    for device_id, draft in tags:
        given[device_id][draft.row["name"]] = _source(each.row for each in draft.bindings or ())
        for binding in draft.bindings or ():
            name = (binding.row["options"] or {}).get("feedback")
            if name is not None:
                wanted[device_id].append((name, binding))
    changed = set(ids)
    for device_id, pairs in wanted.items():
        sources = given[device_id]
        if others_stay:
            sources = _stored(connection, device_id, {name for name, _ in pairs}, changed) | sources
        for name, binding in pairs:
            protocol = binding.row["protocol"]
            if sources.get(name) != protocol:
                wrong = f"has no tag {name!r}" if name not in sources else f"does not read {name!r} over {protocol}"
                yield Fault(join(binding.path, "options.feedback"), f"the device {wrong}: no command could be verified")


def _stored(connection: Connection, device_id: int, names: set[str], changed: set[int | None]) -> dict[str, str | None]:
    """By name, the protocol that each of these tags is read over."""
    ordered = sorted(names)
    bindings: dict[str, list[Mapping[str, str | None]]] = defaultdict(list)
    for start in range(0, len(ordered), _NAMES_AT_ONCE):
        query = (
            select(TAG.c.id, TAG.c.name, BINDING.c.protocol, BINDING.c.direction)
            .outerjoin(BINDING, BINDING.c.tag_id == TAG.c.id)
            .where(TAG.c.device_id == device_id, TAG.c.name.in_(ordered[start : start + _NAMES_AT_ONCE]))
        )
        for row in connection.execute(query).mappings():
            if row["id"] not in changed:
                bindings[row["name"]].append({"protocol": row["protocol"], "direction": row["direction"]})
    return {name: _source(rows) for name, rows in bindings.items()}


def _source(bindings: Iterable[Mapping[str, str | None]]) -> str | None:
    return next((each["protocol"] for each in bindings if each["direction"] not in (None, Direction.OUT)), None)

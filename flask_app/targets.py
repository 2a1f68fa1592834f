"""Which tags a request means: by id or name, alone, by term and item, or several of one device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask_app.api import resource
from flask_app.database import config
from scada.config import DeviceConfig, TagConfig
from scada.errors import ConfigError, Conflict, Fault, NotFound
from storage.config_reader import ConfigReader


@dataclass(frozen=True, slots=True)
class Target:
    """Tags of one device, in the order they were named; `device` holds no others. Not `named`: they are all there are."""

    device: DeviceConfig
    tags: tuple[TagConfig, ...]
    named: bool = True


def one_tag(reference: str) -> Target:
    """A tag by id or full name; raises NotFound, and Conflict when its device is disabled."""
    tag_id = resource.tag_id(reference)
    return _load(config().get_tag(tag_id)["device_id"], [tag_id])


def addressed(body: Mapping[str, Any]) -> Target:
    """The one tag that `device` with `tag`, or with `item` and perhaps `term`, means; or a `tag` that names its device.

    Raises ConfigError with the field that is missing or means several tags, NotFound.
    """
    if body.get("device") is None:
        if body.get("tag") is None:
            raise ConfigError([Fault("device", "is required, unless tag is an id or a full name, Device@Tag")])
        return one_tag(str(body["tag"]))
    device_id = resource.existing_device(str(body["device"]))
    if body.get("tag") is not None:
        return _load(device_id, [_tag_of(device_id, body["tag"])])
    if body.get("item") is None:
        raise ConfigError([Fault("tag", "is required, or an item")])
    return _load(device_id, [_tag_by_item(device_id, body.get("term"), body["item"])])


def several(device: Any, names: Sequence[str]) -> Target:
    """Tags of a device by their names; no names are all of them. Raises NotFound that names those that are not there."""
    device_id = resource.existing_device(str(device))
    if not names:
        return _load(device_id, None)
    known = config().tag_ids(device_id, names)
    missing = [name for name in dict.fromkeys(names) if name not in known]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise NotFound(f"the device has no tag {', '.join(repr(each[:64]) for each in missing[:5])}{more}")
    return _load(device_id, [known[name] for name in names])


def _load(device_id: int, tag_ids: Sequence[int] | None) -> Target:
    found = config()
    if not found.device_names([device_id]).get(device_id, ("", True))[1]:
        raise Conflict([Fault("device", "is disabled: no program reads it or sets it")])
    device = ConfigReader(found.engine).load_tags(device_id, tag_ids)
    by_id = {tag.id: tag for tag in device.tags}
    if tag_ids is None:
        return Target(device, device.tags, named=False)
    missing = [each for each in tag_ids if each not in by_id]
    if missing:
        # Deleted a moment ago, or its stored form is not understood, which is among the device's faults.
        raise NotFound(f"no tag {missing[0]}")
    return Target(device, tuple(by_id[each] for each in dict.fromkeys(tag_ids)))


def _tag_of(device_id: int, reference: Any) -> int:
    """The id of a device's tag by id or by name, the full one too."""
    if isinstance(reference, int):
        if config().get_tag(resource.identity(str(reference), "tag"))["device_id"] != device_id:
            raise NotFound(f"tag {reference} is another device's")
        return reference
    name = reference.rpartition("@")[2]
    if "@" in reference and resource.device_id(reference.partition("@")[0]) != device_id:
        raise NotFound(f"tag {reference[:130]!r} is another device's")
    known = config().tag_ids(device_id, [name])
    if name not in known:
        raise NotFound(f"the device has no tag {name[:64]!r}")
    return known[name]


def _tag_by_item(device_id: int, term: Any, item: Any) -> int:
    filters: dict[str, Any] = {"device_id": device_id, "item_id": _item_id(item)}
    if term is not None:
        filters["term_id"] = _term_id(device_id, term)
    tags, total = config().list_tags(1, 5, (), filters)
    if not tags:
        raise NotFound("the device has no tag of this item" + (" and term" if term is not None else ""))
    if total > 1:
        names = ", ".join(tag["name"] for tag in tags)
        raise ConfigError([Fault("item", f"means {total} tags ({names}{', ...' if total > 5 else ''}): name the tag")])
    found: int = tags[0]["id"]
    return found


def _item_id(reference: Any) -> int:
    if isinstance(reference, int):
        return resource.identity(str(reference), "item")
    return _first(config().list_items(1, 1, (), {"name": _literal(reference)})[0], "item", reference)


def _term_id(device_id: int, reference: Any) -> int:
    if isinstance(reference, int):
        return resource.identity(str(reference), "term")
    filters = {"device_id": device_id, "name": _literal(reference)}
    return _first(config().list_terms(1, 1, (), filters)[0], "term", reference)


def _literal(name: str) -> str:
    """A name as a filter; * and ? are wildcards there, and names have no *."""
    return "" if "*" in name else name


def _first(rows: Sequence[Mapping[str, Any]], what: str, reference: str) -> int:
    # A ? in a name is a wildcard in the filter.
    if not rows or rows[0]["name"] != reference:
        raise NotFound(f"no {what} {reference[:64]!r}")
    found: int = rows[0]["id"]
    return found

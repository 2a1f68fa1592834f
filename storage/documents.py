"""Reading documents: what the REST API or a file says about a device becomes checked rows, or every fault is listed.

Nothing here knows what is stored already; `storage.tags` and its neighbours look that up and add their faults.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from scada.config import Direction, LimitsConfig, ScalingConfig, ScanClass
from scada.errors import ConfigError, Fault
from scada.registry import PROTOCOLS, protocol
from scada.schema import join, parse, plain
from scada.values import DataType
from storage.contradictions import misdirected, one_source
from storage.drafts import BindingDraft, DeviceDraft, TagDraft, TermDraft
from storage.records import BindingFields, DeviceFields, ItemFields, TagFields, TermFields
from storage.revisions import MAX_ID
from storage.shapes import Row

Document = Mapping[str, Any]
Record = TypeVar("Record")
Draft = TypeVar("Draft")
# Stands for a document that was none: its fault is listed once, and nothing is said to be missing in it.
_NOT_AN_OBJECT: Row = {}


@dataclass(slots=True)
class Reader:
    """Reads documents and gathers their faults; a document with a fault gives None."""

    faults: list[Fault] = field(default_factory=list)

    def finish(self) -> None:
        """Raise ConfigError when there was any fault."""
        if self.faults:
            raise ConfigError(self.faults)

    def device(self, document: object, path: str = "") -> DeviceDraft | None:
        own, rest = self._split(document, {"network", "terms", "tags"}, {"id", "revision"}, path)
        record = self._record(DeviceFields, own, path)
        network = self.networks(rest["network"], join(path, "network")) if "network" in rest else None
        terms = self._each(rest, "terms", path, self.term)
        tags = self._each(rest, "tags", path, self.tag)
        self._distinct(terms, "term")
        self._distinct(tags, "tag")
        return None if record is None else DeviceDraft(plain(record), network, terms, tags, path)

    def networks(self, document: object, path: str) -> dict[str, Row]:
        result = {}
        for name, settings in self._object(document, path).items():
            row = self.network(name, settings, join(path, str(name)))
            if row is not None:
                result[name] = row
        return result

    def network(self, name: object, settings: object, path: str = "") -> Row | None:
        try:
            return plain(parse(protocol(name, path).network, settings, path), defaults=False)
        except ConfigError as error:
            self.faults.extend(error.faults)
            return None

    def term(self, document: object, path: str = "") -> TermDraft | None:
        own, rest = self._split(document, {"settings"}, {"id", "device_id", "revision"}, path)
        record = self._record(TermFields, own, path)
        settings = {}
        place = join(path, "settings")
        for name, each in self._object(rest.get("settings", {}), place).items():
            kind = PROTOCOLS[name].term if name in PROTOCOLS else None
            if kind is None:
                self.faults.append(Fault(join(place, str(name)), "no protocol of this name addresses units"))
                continue
            found: Any = self._record(kind, each, join(place, name))
            if found is not None:
                settings[name] = plain(found, defaults=False)
        if record is None:
            return None
        return TermDraft({**plain(record), "settings": settings}, path, _identity(document))

    def item(self, document: object, path: str = "") -> Row | None:
        own, _ = self._split(document, set(), {"id", "revision"}, path)
        record = self._record(ItemFields, own, path)
        return None if record is None else _columns(record)

    def tag(self, document: object, path: str = "") -> TagDraft | None:
        before = len(self.faults)
        references = {"item", "item_id", "term", "term_id"}
        own, rest = self._split(document, {"bindings", "device", *references}, {"id", "device_id", "revision"}, path)
        record = self._record(TagFields, own, path)
        for name in references & rest.keys():
            kind = int if name.endswith("_id") else str
            value = rest[name]
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                self.faults.append(
                    Fault(join(path, name), f"must be {'an integer' if kind is int else 'text'} or null")
                )
        for name in ("item", "term"):
            if rest.get(name) is not None and rest.get(f"{name}_id") is not None:
                self.faults.append(Fault(join(path, name), f"give either {name} or {name}_id"))
        bindings = self._each(rest, "bindings", path, self.binding)
        self.faults.extend(one_source(bindings or ()))
        if record is None or len(self.faults) > before:
            return None
        item, term = (_reference(rest, name) for name in ("item", "term"))
        return TagDraft(_columns(record), path, _identity(document), item, term, bindings)

    def binding(self, document: object, path: str = "") -> BindingDraft | None:
        own, rest = self._split(document, {"address", "options"}, {"id", "tag_id", "revision"}, path)
        record = self._record(BindingFields, own, path)
        name = own.get("protocol")
        if not isinstance(name, str):
            return None  # the record's parser has said so
        try:
            kind = protocol(name, join(path, "protocol"))
        except ConfigError as error:
            self.faults.extend(error.faults)
            return None
        address: Any = self._record(kind.address, rest.get("address", {}), join(path, "address"))
        given = rest.get("options")
        options: Any = None if given is None else self._record(kind.options, given, join(path, "options"))
        if record is not None:
            for fault in misdirected(kind, record, address):
                self.faults.append(Fault(join(path, fault.field), fault.message))
        if record is None or address is None or (options is None and given is not None):
            return None
        row = _columns(record)
        row["address"] = plain(address, defaults=False)
        row["options"] = (plain(options, defaults=False) or None) if options is not None else None
        return BindingDraft(row, path, _identity(document))

    def _record(self, kind: type[Record], data: object, path: str) -> Record | None:
        try:
            return None if data is _NOT_AN_OBJECT else parse(kind, data, path)
        except ConfigError as error:
            self.faults.extend(error.faults)
            return None

    def _split(self, document: object, nested: set[str], ignored: set[str], path: str) -> tuple[Row, Row]:
        """The fields of a record's own, and those for others. What the store itself gives out (ids) may come back, unread."""
        whole = self._object(document, path)
        if whole is _NOT_AN_OBJECT:
            return _NOT_AN_OBJECT, {}
        own = {name: value for name, value in whole.items() if name not in nested and name not in ignored}
        return own, {name: whole[name] for name in nested if name in whole}

    def _object(self, document: Any, path: str) -> Document:
        if isinstance(document, Mapping):
            return document
        self.faults.append(Fault(path, "must be an object"))
        return _NOT_AN_OBJECT

    def _each(self, rest: Row, name: str, path: str, read: Any) -> list[Any] | None:
        if name not in rest:
            return None
        place = join(path, name)
        if not isinstance(rest[name], list | tuple):
            self.faults.append(Fault(place, "must be an array"))
            return []
        drafts = (read(each, join(place, str(index))) for index, each in enumerate(rest[name]))
        return [draft for draft in drafts if draft is not None]

    def _distinct(self, drafts: Iterable[TagDraft | TermDraft] | None, what: str) -> None:
        seen: set[str] = set()
        for draft in drafts or ():
            if draft.row["name"] in seen:
                self.faults.append(Fault(join(draft.path, "name"), f"another {what} of this device has the same name"))
            seen.add(draft.row["name"])


def checked(read: Callable[..., Draft | None], *arguments: object) -> Draft:
    """What a method of Reader makes of one document; ConfigError with every fault."""
    reader = Reader()
    draft = read(reader, *arguments)
    reader.finish()
    assert draft is not None
    return draft


def _columns(record: object) -> Row:
    """A record as a row: every field, its nested records in short form."""
    row = {}
    for name in record.__dataclass_fields__:  # type: ignore[attr-defined]  # a dataclass, which object does not say
        value = getattr(record, name)
        row[name] = plain(value, defaults=False) if isinstance(value, ScalingConfig | LimitsConfig) else value
        if isinstance(value, DataType | Direction | ScanClass):
            row[name] = value.value
    return row


def _reference(rest: Row, name: str) -> int | str | None:
    found = rest.get(f"{name}_id")
    return rest.get(name) if found is None else found


def _identity(document: object) -> int | None:
    found = document.get("id") if isinstance(document, Mapping) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 < found <= MAX_ID else None

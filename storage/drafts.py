"""What has been read out of a document and checked, on its way into the tables. `path` is its place in the document."""

from collections.abc import Iterable
from dataclasses import dataclass

from scada.schema import join
from storage.shapes import Row


@dataclass(frozen=True, slots=True)
class BindingDraft:
    """A checked binding without its tag."""

    row: Row
    path: str
    id: int | None = None

    def constants(self) -> Iterable[tuple[str, object]]:
        """(path, value) of each value that the options name: it must be of the tag's type."""
        options = self.row["options"] or {}
        failsafe = options.get("failsafe") or {}
        if failsafe.get("value") is not None:
            yield join(self.path, "options.failsafe.value"), failsafe["value"]
        for text, value in (options.get("enum") or {}).items():
            yield join(self.path, f"options.enum.{text}"), value


@dataclass(slots=True)
class TagDraft:
    """A checked tag. `item` and `term` are an id, a name or None; the lookup puts their ids into the row."""

    row: Row
    path: str
    id: int | None
    item: int | str | None
    term: int | str | None
    bindings: list[BindingDraft] | None
    device: int | str | None = None


@dataclass(frozen=True, slots=True)
class TermDraft:
    """A checked term without its device."""

    row: Row
    path: str
    id: int | None


@dataclass(slots=True)
class DeviceDraft:
    """A checked device. A part that the document does not name is None."""

    row: Row
    network: dict[str, Row] | None
    terms: list[TermDraft] | None
    tags: list[TagDraft] | None
    path: str = ""

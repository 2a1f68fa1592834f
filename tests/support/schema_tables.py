"""Tables of a protocol's page made from its records: `python -m tests.support.schema_tables modbus` prints them."""

import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import StrEnum

from scada.protocols.simulated import POINTS, TOGGLING, Model, ModelPoint
from scada.registry import PROTOCOLS
from scada.schema import Field, fields

HEAD = "| field | default | admitted | meaning |\n|---|---|---|---|"
POINT_HEAD = "| point | type | unit | range | | meaning |\n|---|---|---|---|---|---|"
_KINDS = {str: "text", bool: "true, false", int: "integer", float: "number", object: "a value"}


def sections(protocol: str) -> Iterator[tuple[str, type]]:
    """(heading, record) of a protocol's page; records without fields have no section."""
    found = PROTOCOLS[protocol]
    for title, record in (
        ("Network", found.network),
        ("Address", found.address),
        ("Options", found.options),
        ("Term", found.term),
    ):
        if record is not None and fields(record):
            yield title, record


def field_rows(record: type, prefix: str = "") -> Iterator[str]:
    """One line for each field; those of a record inside it follow it with its name in front."""
    for field in fields(record):
        default = "" if field.required else "–" if field.default is None else f"`{_text(field.default)}`"
        meaning = f"{field.spec.doc}{'; required' if field.required else ''}"
        yield f"| `{prefix}{field.name}` | {default} | {_admitted(field)} | {meaning} |"
        if is_dataclass(field.kind):
            yield from field_rows(field.kind, f"{prefix}{field.name}.")


def point_rows(model: Model) -> Iterator[str]:
    """One line for each point of a simulated model."""
    yield from (_point_row(point) for point in POINTS[model])
    if model is Model.STRESS:
        yield _point_row(TOGGLING)


def _point_row(point: ModelPoint) -> str:
    span = "" if point.low is None or point.high is None else f"{_text(point.low)} to {_text(point.high)}"
    access = "read, write" if point.writable else "read"
    return f"| `{point.name}` | {point.data_type} | {point.unit} | {span} | {access} | {point.doc} |"


def _admitted(field: Field) -> str:
    if issubclass(field.kind, StrEnum):
        return ", ".join(f"`{each.value}`" for each in field.kind)
    kind = "object" if is_dataclass(field.kind) else _KINDS.get(field.kind, "object")
    low, high, length = field.spec.minimum, field.spec.maximum, field.spec.max_length
    if low is not None:
        kind += f" {_text(low)} to {_text(high)}" if high is not None else f" from {_text(low)}"
    elif high is not None:
        kind += f" up to {_text(high)}"
    elif length is not None and not field.many:
        kind += f" up to {length}"
    return f"array of {kind}" if field.many else kind


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    return str(value)


def _main(protocol: str) -> None:
    for title, record in sections(protocol):
        print(f"## {title}\n\n{HEAD}", *field_rows(record), "", sep="\n")
    if protocol == "simulated":
        for model in Model:
            print(f"## The model `{model}`\n\n{POINT_HEAD}", *point_rows(model), "", sep="\n")


if __name__ == "__main__":
    _main(sys.argv[1])

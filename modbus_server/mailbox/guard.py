"""What a new start must know before it has read the configuration: which registers are tags, and what clients may do there.

What shows a tag must not look fresh, and is not for clients to write; what a client writes into a tag could not be told yet.
A small JSON file beside the registers, `mailbox.json`, written whenever the layout changes.
"""

import logging
import os
import time
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import orjson

from modbus_server.mailbox.bound_image import BoundImage
from modbus_server.mailbox.layout import Index, UnitLayout
from modbus_server.mailbox.plans import BoundTag
from modbus_server.mailbox.status import Status
from modbus_server.settings import GUARD_FILE
from scada.errors import DeviceRefused
from scada.modbus.image import Image
from scada.modbus.limits import Table
from scada.modbus.pdu import ExceptionCode, refuse

logger = logging.getLogger(__name__)

BUSY_S = 10.0
"""So long after the start a write into a tag is refused while there is no configuration. A client comes again; a database that
is away for long must not keep it from its registers."""
_VERSION = 2
_OLD_VERSION = 1  # its rows say only whether a tag is guarded, and hold no tags that clients write
_KINDS = ("guarded", "read_only", "written", "")


def save_guard(folder: Path, tags: Iterable[BoundTag]) -> None:
    """Write the file for `tags`; without any there is none. A failure is logged: the server runs on."""
    rows: list[Any] = [
        [tag.place.unit_id, tag.place.table, tag.place.first, tag.place.count, _kind(tag), tag.status] for tag in tags
    ]
    path = folder / GUARD_FILE
    try:
        if not rows:
            path.unlink(missing_ok=True)
            return
        folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(orjson.dumps({"version": _VERSION, "tags": rows}))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except OSError as error:
        logger.error("%s cannot be written: after the next start old values may look fresh: %s", path, error.strerror)


class CarefulImage(BoundImage):
    """As clients see it until the configuration is read."""

    __slots__ = ("_busy_until_s",)

    def __init__(self, image: Image, layout: UnitLayout, hidden: AbstractSet[object], busy_s: float) -> None:
        super().__init__(image, layout, hidden, lambda *_: None)
        self._busy_until_s = time.monotonic() + busy_s

    def _check_write(self, table: Table, address: int, count: int) -> None:
        super()._check_write(table, address, count)
        index = self._layout.written.get(table)
        if index is not None and index.find(address, count) and time.monotonic() < self._busy_until_s:
            # APS 7: the client should come again. What is answered is told on the bus, and nobody could do that now.
            raise refuse(ExceptionCode.SERVER_DEVICE_BUSY, f"{table} {address}: the configuration is not read yet")


def guarded_images(folder: Path, images: Mapping[int, Image], busy_s: float = BUSY_S) -> Mapping[int, Image]:
    """`images` for clients until the configuration is read: status registers say bad, guarded registers are refused, those
    that show tags are not for them to write, and those that are tags' sources not for `busy_s` seconds.
    """
    by_image: dict[Image, dict[str, dict[Table, list[tuple[int, int, Any]]]]] = {}
    hidden: set[object] = set()
    for unit_id, table, first, count, kind, status in _load(folder / GUARD_FILE):
        image = images.get(unit_id)
        if image is None:
            continue
        try:
            image.check(table, first, count)
            if status is not None:
                image.write_registers(Table.HOLDING_REGISTER, status, Status.BAD.to_bytes(2, "big"))
        except DeviceRefused:
            continue  # the map was changed: clients do not get there either
        kinds = by_image.setdefault(image, {each: {} for each in _KINDS})
        item = (unit_id, table, first)
        if kind == "guarded":
            hidden.add(item)
            kinds["read_only"].setdefault(table, []).append((first, first + count, item))
        kinds[kind].setdefault(table, []).append((first, first + count, item))
        if status is not None:
            kinds["read_only"].setdefault(Table.HOLDING_REGISTER, []).append((status, status + 1, item))
    bound: dict[Image, Image] = {}
    for image, kinds in by_image.items():
        guarded, read_only, written = (
            {table: Index(items) for table, items in kinds[kind].items()} for kind in _KINDS[:3]
        )
        bound[image] = CarefulImage(image, UnitLayout(guarded, read_only, written), hidden, busy_s)
    if hidden:
        logger.info("%d tags are not good until the configuration was read", len(hidden))
    return {unit_id: bound.get(image, image) for unit_id, image in images.items()} if bound else images


def _kind(tag: BoundTag) -> str:
    if tag.is_guarded:
        return "guarded"
    return "read_only" if tag.is_read_only else "written"


def _load(path: Path) -> list[tuple[int, Table, int, int, str, int | None]]:
    try:
        document = orjson.loads(path.read_bytes())
        if document["version"] not in (_VERSION, _OLD_VERSION):
            raise ValueError(f"version {document['version']}")
        is_old = document["version"] == _OLD_VERSION
        rows = []
        for unit_id, table, first, count, kind, status in document["tags"]:
            known = ("guarded" if kind else "") if is_old else kind
            if known not in _KINDS:
                raise ValueError(f"kind {kind!r}")
            rows.append((int(unit_id), Table(table), int(first), int(count), known, status))
        return rows
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.error("%s cannot be used: old values may look fresh until the configuration was read: %s", path, error)
        return []

"""What a new start must know before it has read the configuration: which registers show tags, and must not look fresh.

A small JSON file beside the registers, `mailbox.json`, written whenever the layout changes.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from modbus_server.mailbox.bound_image import BoundImage
from modbus_server.mailbox.layout import Index, UnitLayout
from modbus_server.mailbox.plans import BoundTag, Role
from modbus_server.mailbox.status import Status
from modbus_server.settings import GUARD_FILE
from scada.errors import DeviceRefused
from scada.modbus.image import Image
from scada.modbus.limits import Table

logger = logging.getLogger(__name__)

_VERSION = 1


def save_guard(folder: Path, tags: Iterable[BoundTag]) -> None:
    """Write the file for `tags`; without any there is none. A failure is logged: the server runs on."""
    rows: list[Any] = [
        [tag.place.unit_id, tag.place.table, tag.place.first, tag.place.count, tag.is_guarded, tag.status]
        for tag in tags
        if tag.role is Role.SHOWN or tag.status is not None
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


def guarded_images(folder: Path, images: Mapping[int, Image]) -> Mapping[int, Image]:
    """`images` for clients until the configuration is read: status registers say bad, guarded registers are refused."""
    rows = _load(folder / GUARD_FILE)
    by_image: dict[Image, dict[Table, list[tuple[int, int, object]]]] = {}
    hidden: set[object] = set()
    for unit_id, table, first, count, is_guarded, status in rows:
        image = images.get(unit_id)
        if image is None:
            continue
        try:
            image.check(table, first, count)
            if status is not None:
                image.write_registers(Table.HOLDING_REGISTER, status, Status.BAD.to_bytes(2, "big"))
        except DeviceRefused:
            continue  # the map was changed: clients do not get there either
        if is_guarded:
            item = (unit_id, table, first)
            hidden.add(item)
            by_image.setdefault(image, {}).setdefault(table, []).append((first, first + count, item))
    if not by_image:
        return images
    bound: dict[Image, Image] = {}
    for image, tables in by_image.items():
        layout = UnitLayout({table: Index(items) for table, items in tables.items()}, {}, {})
        bound[image] = BoundImage(image, layout, hidden, lambda _: None)
    logger.info("%d tags are not good until the configuration was read", len(hidden))
    return {unit_id: bound.get(image, image) for unit_id, image in images.items()}


def _load(path: Path) -> list[tuple[int, Table, int, int, bool, int | None]]:
    try:
        document = orjson.loads(path.read_bytes())
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']}")
        return [
            (int(unit_id), Table(table), int(first), int(count), bool(is_guarded), status)
            for unit_id, table, first, count, is_guarded, status in document["tags"]
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.error("%s cannot be used: old values may look fresh until the configuration was read: %s", path, error)
        return []

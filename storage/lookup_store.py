"""Finding what a name means: ids behind the names of devices and tags, and the revision that guards an object."""

from collections.abc import Iterable

from sqlalchemy import Engine, select

from storage.engine import reading
from storage.revisions import found
from storage.shapes import DEVICE, TAG
from storage.tags import CHUNK, chunks
from storage.views import device_revision


class LookupStore:
    """What a ConfigStore knows about names and revisions."""

    engine: Engine

    def device_id(self, name: str) -> int:
        """The id of a device; NotFound when none is called `name`."""
        with reading(self.engine) as connection:
            query = select(DEVICE.c.id).where(DEVICE.c.name == name)
            identity: int = found(connection.execute(query).scalar(), "device", repr(name[:64]))
            return identity

    def tag_id(self, device: str, name: str) -> int:
        """The id of a tag of the device called `device`; NotFound when there is none."""
        with reading(self.engine) as connection:
            joined = TAG.join(DEVICE, TAG.c.device_id == DEVICE.c.id)
            query = select(TAG.c.id).select_from(joined).where(DEVICE.c.name == device, TAG.c.name == name)
            identity: int = found(connection.execute(query).scalar(), "tag", repr(f"{device}@{name}"[:130]))
            return identity

    def device_revision(self, device_id: int) -> int:
        """The revision of a device, which is also that of its networks, terms, tags and bindings; NotFound without it."""
        with reading(self.engine) as connection:
            return device_revision(connection, device_id)

    def device_names(self, device_ids: Iterable[int]) -> dict[int, tuple[str, bool]]:
        """Name, and whether it is enabled, of devices by id; who is not there is left out."""
        result: dict[int, tuple[str, bool]] = {}
        with reading(self.engine) as connection:
            for ids in chunks(set(device_ids)):
                query = select(DEVICE.c.id, DEVICE.c.name, DEVICE.c.enabled).where(DEVICE.c.id.in_(ids))
                result.update({row[0]: (row[1], row[2]) for row in connection.execute(query)})
        return result

    def tag_ids(self, device_id: int, names: Iterable[str]) -> dict[str, int]:
        """The ids of a device's tags by name; who is not there is left out."""
        result: dict[str, int] = {}
        wanted = sorted(set(names))
        with reading(self.engine) as connection:
            for start in range(0, len(wanted), CHUNK):
                part = wanted[start : start + CHUNK]
                query = select(TAG.c.name, TAG.c.id).where(TAG.c.device_id == device_id, TAG.c.name.in_(part))
                result.update(connection.execute(query).all())
        return result

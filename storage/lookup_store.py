"""Finding what a name means: ids behind the names of devices and tags, and the revision that guards an object."""

from sqlalchemy import Engine, select

from storage.engine import reading
from storage.revisions import found
from storage.shapes import DEVICE, TAG
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

"""Which devices have sent a live message: of those a retained message may be older than what stands in the registers."""

from collections.abc import Collection, Mapping

from sqlalchemy import Engine, Table, delete, insert, select

from storage.engine import reading, writing
from storage.models import Heard
from storage.shapes import DEVICE
from storage.tags import chunks

HEARD: Table = Heard.__table__  # type: ignore[assignment]  # a FromClause to its types


class HeardStore:
    """Written by the gateway only; every method is one transaction. Raises LinkError when the database fails."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def load(self) -> dict[int, str]:
        """The topic (or filter) on which each device was heard, by the device's id."""
        with reading(self.engine) as connection:
            return dict(connection.execute(select(HEARD.c.device_id, HEARD.c.topic)).all())

    def apply(self, heard: Mapping[int, str], forgotten: Collection[int]) -> None:
        """Store topics by device, and delete what is `forgotten`. A device that was deleted meanwhile is passed over."""
        with writing(self.engine) as connection:
            for ids in chunks({*heard, *forgotten}):
                connection.execute(delete(HEARD).where(HEARD.c.device_id.in_(ids)))
            known: list[int] = []
            for ids in chunks(heard):
                # Locked, so that a device cannot go between this look and the insert; SQLite has one writer and needs no lock.
                wanted = select(DEVICE.c.id).where(DEVICE.c.id.in_(ids)).with_for_update(key_share=True)
                known += connection.execute(wanted).scalars()
            if known:
                connection.execute(insert(HEARD), [{"device_id": each, "topic": heard[each]} for each in known])

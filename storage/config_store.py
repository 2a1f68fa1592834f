"""Everything the REST API does with the configuration, in documents: plain dicts as the API shows them.

What is stored has passed `storage.documents`, whichever way it came. Every method is one transaction.
Errors: ConfigError (faults with dotted paths), Conflict, NotFound, LinkError when the database fails.
"""

from sqlalchemy import Engine

from storage.binding_store import BindingStore
from storage.device_store import DeviceStore
from storage.engine import reading
from storage.item_store import ItemStore
from storage.lookup_store import LookupStore
from storage.network_store import NetworkStore
from storage.networks import BUS_ROOT
from storage.revisions import current_revision
from storage.tag_store import TagStore
from storage.term_store import TermStore
from storage.transfer import TransferStore


class ConfigStore(LookupStore, DeviceStore, NetworkStore, TermStore, ItemStore, TagStore, BindingStore, TransferStore):
    """The configuration. `who` in the methods that change it stands in the audit log; `expected_revision` is that of the
    device (or item) the caller has seen: Conflict when it was changed since. `bus_root`: topics from there on are no device's."""

    def __init__(self, engine: Engine, bus_root: str = "tagwire") -> None:
        self.engine: Engine = engine.execution_options(**{BUS_ROOT: bus_root})

    def revision(self) -> int:
        """The number of the newest change."""
        with reading(self.engine) as connection:
            return current_revision(connection)

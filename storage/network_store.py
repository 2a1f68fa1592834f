"""Networks in the configuration store: how a device speaks each protocol."""

from sqlalchemy import Engine, delete

from scada.errors import NotFound
from storage.documents import Document, Reader, checked
from storage.engine import reading
from storage.merge import merge_patch
from storage.networks import refuse_orphans, save_networks, stored_networks
from storage.revisions import Change, changing, expect
from storage.shapes import NETWORK, Row, network_document
from storage.tags import Mode
from storage.views import device_revision


class NetworkStore:
    """What a ConfigStore does with networks; their revision is their device's."""

    engine: Engine

    def list_networks(self, device_id: int) -> dict[str, Row]:
        """A device's networks by protocol."""
        with reading(self.engine) as connection:
            device_revision(connection, device_id)
            return {
                name: network_document(device_id, name, settings)
                for name, settings in stored_networks(connection, device_id).items()
            }

    def get_network(self, device_id: int, protocol: str) -> Row:
        """One network of a device."""
        with reading(self.engine) as connection:
            device_revision(connection, device_id)
            settings = _known(stored_networks(connection, device_id), protocol)
            return network_document(device_id, protocol, settings)

    def put_network(
        self,
        device_id: int,
        protocol: str,
        document: Document,
        *,
        expected_revision: int | None = None,
        who: str = "",
    ) -> Row:
        """Store a network, new or anew."""
        with changing(self.engine, who) as change:
            expect(device_revision(change.connection, device_id), expected_revision)
            return _save(change, device_id, protocol, document)

    def patch_network(
        self,
        device_id: int,
        protocol: str,
        document: Document,
        *,
        expected_revision: int | None = None,
        who: str = "",
    ) -> Row:
        """Change what the document names (RFC 7396)."""
        with changing(self.engine, who) as change:
            expect(device_revision(change.connection, device_id), expected_revision)
            stored = _known(stored_networks(change.connection, device_id), protocol)
            return _save(change, device_id, protocol, merge_patch(stored, document))

    def delete_network(
        self, device_id: int, protocol: str, *, expected_revision: int | None = None, who: str = ""
    ) -> None:
        """Remove a network; Conflict while bindings need it."""
        with changing(self.engine, who) as change:
            expect(device_revision(change.connection, device_id), expected_revision)
            before = _known(stored_networks(change.connection, device_id), protocol)
            where = (NETWORK.c.device_id == device_id) & (NETWORK.c.protocol == protocol)
            change.connection.execute(delete(NETWORK).where(where))
            refuse_orphans(change, device_id, "")
            change.touch(device_id)
            change.note(f"network {protocol} of device {device_id}", before, None)


def _known(networks: dict[str, Row], protocol: str) -> Row:
    if protocol not in networks:
        raise NotFound(f"the device has no network {protocol[:40]!r}")
    return networks[protocol]


def _save(change: Change, device_id: int, protocol: str, document: Document) -> Row:
    settings = checked(Reader.network, protocol, document)
    before = stored_networks(change.connection, device_id).get(protocol)
    save_networks(change, device_id, {protocol: settings}, Mode.MERGE, None)
    refuse_orphans(change, device_id, "")
    if before != settings:
        change.touch(device_id)
        change.note(f"network {protocol} of device {device_id}", before, settings)
    return network_document(device_id, protocol, settings)

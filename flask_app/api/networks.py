"""/devices/{device}/networks: how a device speaks each protocol."""

from flask import Response
from flask.views import MethodView

from flask_app.api import resource
from flask_app.api.blueprint import ApiBlueprint
from flask_app.database import config
from flask_app.schemas import NetworkPatchSchema, NetworkSchema, NetworksSchema

blueprint = ApiBlueprint("networks", "How a device speaks a protocol: topic, host and port, serial line.")


@blueprint.route("/devices/<device>/networks")
class Networks(MethodView):
    """A device's networks."""

    @blueprint.reading(NetworksSchema)
    def get(self, device: str) -> Response:
        """Read a device's networks, by protocol."""
        device_id = resource.device_id(device)
        revision = config().device_revision(device_id)
        return resource.shown(config().list_networks(device_id), revision)


@blueprint.route("/devices/<device>/networks/<protocol>")
class Network(MethodView):
    """How a device speaks one protocol."""

    @blueprint.reading(NetworkSchema)
    def get(self, device: str, protocol: str) -> Response:
        """Read one network."""
        device_id = resource.device_id(device)
        revision = config().device_revision(device_id)
        return resource.shown(config().get_network(device_id, protocol), revision)

    @blueprint.putting(NetworkSchema)
    def put(self, device: str, protocol: str) -> Response:
        """Create or replace a network."""
        device_id = resource.device_id(device)
        revision = config().device_revision(device_id)
        if protocol in config().list_networks(device_id):
            return resource.changed(config().put_network(device_id, protocol, resource.document(), **resource.guard()))
        expected = revision if resource.wanted_new() else resource.expected_revision()
        network = config().put_network(
            device_id, protocol, resource.document(), expected_revision=expected, who=resource.who()
        )
        return resource.created(network, f"/api/v1/devices/{device_id}/networks/{protocol}")

    @blueprint.patching(NetworkPatchSchema, NetworkSchema)
    def patch(self, device: str, protocol: str) -> Response:
        """Change what a merge patch names."""
        device_id = resource.device_id(device)
        return resource.changed(config().patch_network(device_id, protocol, resource.patch(), **resource.guard()))

    @blueprint.deleting()
    def delete(self, device: str, protocol: str) -> Response:
        """Remove a network that no binding needs."""
        config().delete_network(resource.device_id(device), protocol, **resource.guard())
        return resource.gone()

"""/devices: equipment, with its networks, terms and tags."""

from typing import Any

from flask import Response
from flask.views import MethodView

from flask_app.api import examples, resource
from flask_app.api.blueprint import ApiBlueprint
from flask_app.database import config
from flask_app.messages import query_schema
from flask_app.schemas import DevicePatchSchema, DeviceSchema

blueprint = ApiBlueprint("devices", "Equipment. Networks, terms and tags may be nested in a device's document.")
_Query = query_schema("Device", "id", "name", "description", "enabled", "revision")


@blueprint.route("/devices")
class Devices(MethodView):
    """All devices."""

    @blueprint.listing(_Query, DeviceSchema)
    def get(self, query: dict[str, Any]) -> Response:
        """List devices, without their tags."""
        return resource.page(config().list_devices, query)

    @blueprint.creating(DeviceSchema, example=examples.DEVICE)
    def post(self) -> Response:
        """Create a device."""
        document = config().create_device(resource.document(), **resource.maker())
        return resource.created(document, f"/api/v1/devices/{document['id']}")


@blueprint.route("/devices/<device>")
class Device(MethodView):
    """One device, by id or name."""

    @blueprint.reading(DeviceSchema)
    def get(self, device: str) -> Response:
        """Read a device with all that hangs from it."""
        return resource.shown(config().get_device(resource.device_id(device)))

    @blueprint.changing(DeviceSchema)
    def put(self, device: str) -> Response:
        """Replace a device. Networks, terms and tags stay unless the document names them."""
        return resource.changed(
            config().replace_device(resource.device_id(device), resource.document(), **resource.guard())
        )

    @blueprint.patching(DevicePatchSchema, DeviceSchema)
    def patch(self, device: str) -> Response:
        """Change what a merge patch names."""
        return resource.changed(config().patch_device(resource.device_id(device), resource.patch(), **resource.guard()))

    @blueprint.deleting()
    def delete(self, device: str) -> Response:
        """Delete a device and all that hangs from it."""
        config().delete_device(resource.device_id(device), **resource.guard())
        return resource.gone()

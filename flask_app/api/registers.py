"""/registers: reading and writing registers of a configured device, to check a mapping by hand."""

from typing import Any

from flask import Response, current_app
from flask.views import MethodView

from flask_app import probe
from flask_app.api import examples, resource
from flask_app.api.blueprint import ApiBlueprint
from flask_app.database import config
from flask_app.errors import respond
from flask_app.messages import RegistersQuerySchema, RegistersSchema, RegisterWriteSchema
from scada.errors import DeviceRefused, LinkError, NotFound, ProtocolError
from scada.modbus.endpoint import Endpoint
from scada.protocols.modbus import ModbusNetwork
from scada.schema import parse

blueprint = ApiBlueprint("registers", "Registers of a configured Modbus device, read and written at once.")


@blueprint.route("/registers")
class Registers(MethodView):
    """Registers and coils of a device."""

    @blueprint.problems(404, 422, 424)
    @blueprint.answering(RegistersSchema, "what the device holds")
    @blueprint.asking(RegistersQuerySchema)
    def get(self, query: dict[str, Any]) -> Response:
        """Read values from a device."""
        device, count = query.pop("device"), query.pop("count")
        wanted = probe.read_range(query, count)
        try:
            found = _prober().run(probe.read(_endpoint(device), wanted))
        except (LinkError, ProtocolError, DeviceRefused) as error:
            return _failed(error)
        return resource.as_json({"device": device, **wanted.document(), **found})

    @blueprint.problems(400, 404, 413, 415, 422, 424)
    @blueprint.taking({"application/json": RegisterWriteSchema}, examples.WRITE)
    @blueprint.answering(RegistersSchema, "what was written")
    def post(self) -> Response:
        """Write values to a device, in one request."""
        command = resource.loaded(RegisterWriteSchema, resource.document())
        device, values = command.pop("device"), command.pop("values")
        wanted = probe.write_range(command, values)
        endpoint = _endpoint(str(device))
        try:
            written = _prober().run(probe.write(endpoint, wanted, values))
        except (LinkError, ProtocolError, DeviceRefused) as error:
            return _failed(error)
        return resource.as_json({"device": str(device), **wanted.document(), **written})


def _prober() -> probe.Prober:
    found: probe.Prober = current_app.extensions[probe.EXTENSION]
    return found


def _endpoint(device: str) -> Endpoint:
    device_id = resource.device_id(device)
    networks = config().list_networks(device_id)
    if "modbus" not in networks:
        raise NotFound(f"device {device[:64]!r} has no network configuration for modbus")
    return parse(ModbusNetwork, networks["modbus"]).endpoint


def _failed(error: LinkError | ProtocolError | DeviceRefused) -> Response:
    # 424 and not 502: this program works, and a proxy's retries would not make the device answer.
    extra = {"code": error.code} if isinstance(error, DeviceRefused) else {}
    return respond(424, str(error), extra=extra)

"""/tags/{tag}/value, /values, /devices/{device}/link and plan: what the bus says just now."""

from typing import Any

from flask import Response
from flask.views import MethodView

from flask_app.api import resource
from flask_app.api.blueprint import ApiBlueprint
from flask_app.command_schemas import LinkSchema, PlanSchema, ValueSchema, ValuesQuerySchema
from flask_app.database import config
from flask_app.live import live
from flask_app.live_readings import Readings
from scada.errors import NotFound

blueprint = ApiBlueprint(
    "values", "The last values of tags with their quality; links of devices, and how they are read."
)
_NO_DEVICE = 0


@blueprint.route("/tags/<tag>/value")
class Value(MethodView):
    """The last value of one tag, by id or full name."""

    @blueprint.reporting(ValueSchema, 404)
    def get(self, tag: str) -> Response:
        """Read a tag's last value. Without a sample it is null, bad, not_connected."""
        document = config().get_tag(resource.tag_id(tag))
        devices = config().device_names([document["device_id"]])
        return resource.as_json(Readings(live(), devices).document(document))


@blueprint.route("/values")
class Values(MethodView):
    """The last values of many tags."""

    @blueprint.listing(ValuesQuerySchema, ValueSchema)
    def get(self, query: dict[str, Any]) -> Response:
        """List last values, in the order of the tags' ids. `name` is a pattern of full names, as boiler@*."""
        tags, total = config().list_tags(query["page"], query["page_size"], ("id",), _filters(query["name"]))
        readings = Readings(live(), config().device_names(tag["device_id"] for tag in tags))
        return resource.as_json({"items": [readings.document(tag) for tag in tags], "total": total})


@blueprint.route("/devices/<device>/link")
class Link(MethodView):
    """The link to a device."""

    @blueprint.reporting(LinkSchema, 404)
    def get(self, device: str) -> Response:
        """Tell whether a device is reached, since when, and why not."""
        name = _name(device)
        live().require_online()
        owners: list[dict[str, Any]] = []
        for each in live().values.links(name):
            owner, report = each.owner, each.report
            if live().values.is_running(owner) is False:
                owners.append({"owner": owner, "online": False, "since": None, "error": f"{owner} is not running"})
            elif live().values.is_silent(owner):
                owners.append(
                    {"owner": owner, "online": False, "since": None, "error": f"{owner} says nothing any more"}
                )
            else:
                owners.append(
                    {"owner": owner, "online": report.online, "since": report.since_ms, "error": report.error}
                )
        offline = [each for each in owners if not each["online"]]
        nobody = {"since": None, "error": "no program has told of a link to this device"}
        worst = (offline or owners or [nobody])[0]
        link = {"online": bool(owners) and not offline, "since": worst["since"], "error": worst["error"]}
        return resource.as_json({"device": name, **link, "owners": owners})


@blueprint.route("/devices/<device>/plan")
class Plan(MethodView):
    """How a device is read."""

    @blueprint.reporting(PlanSchema, 404)
    def get(self, device: str) -> Response:
        """Show the requests that read a device, and the load that they are."""
        name = _name(device)
        live().require_online()
        for owner, plan in live().values.plans(name).items():
            if isinstance(plan, dict):
                return resource.as_json({"device": name, "owner": owner, **plan})
        raise NotFound(f"no program has published a plan for device {name!r}")


def _name(device: str) -> str:
    device_id = resource.existing_device(device)
    return config().device_names([device_id]).get(device_id, ("", True))[0]


def _filters(pattern: str) -> dict[str, Any]:
    device, at, tag = pattern.partition("@")
    if not at:
        return {"name": pattern} if pattern != "*" else {}
    filters: dict[str, Any] = {} if tag == "*" else {"name": tag}
    if "*" in device or "?" in device:
        return filters if device == "*" else {**filters, "device": device}
    # One device's tags come from an index; a pattern has to look at every tag.
    try:
        return {**filters, "device_id": config().device_id(device)}
    except NotFound:
        return {**filters, "device_id": _NO_DEVICE}

"""/tags/{tag}/commands, /commands, /device_ctrl, /device_call: setting tags, and reading them now."""

import contextlib
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response
from flask.views import MethodView

from flask_app import targets, waits
from flask_app.api import examples, resource
from flask_app.api.blueprint import NOT_WAITED, ApiBlueprint
from flask_app.command_schemas import (
    CallAnswerSchema,
    CallWaitSchema,
    CommandQuerySchema,
    CommandRequestSchema,
    CommandSchema,
    DeviceCallSchema,
    DeviceCommandSchema,
    ListedCommandSchema,
    WaitSchema,
)
from flask_app.errors import respond
from flask_app.live import live
from flask_app.live_commands import SILENT
from flask_app.live_readings import reading
from scada.commands import Call, Command, CommandState, Step
from scada.config import Direction, TagConfig
from scada.errors import ConfigError, Conflict, Fault, LinkError, NotFound
from scada.registry import PROTOCOLS
from scada.setpoints import check_command, command_route
from scada.values import BadValue, Quality, Reason, Sample, Value
from storage.command_store import CommandQuery

blueprint = ApiBlueprint("commands", "Setting tags, with a verdict; and reading them from the device now.")
_COLUMNS = {"by": "who", "from": "origin"}
_SORTED = ("id", "device", "tag", "state", "final", "reason", "by", "from", "time_ms")
# What a device's programs did not give when others did, and what is only set, and was not yet.
_UNREAD = Sample("", None, Quality.BAD, 0, Reason.COMM_FAILURE)
_UNHEARD = Sample("", None, Quality.BAD, 0, Reason.NOT_CONNECTED)


@blueprint.route("/tags/<tag>/commands")
class TagCommands(MethodView):
    """Commands for one tag, by id or full name."""

    @blueprint.commanding(CommandRequestSchema, CommandSchema, example=examples.COMMAND)
    @blueprint.asking(WaitSchema)
    def post(self, query: dict[str, Any], tag: str) -> Response:
        """Set a tag. With `wait` the answer is 200 once the command has ended, else 202 with the state so far."""
        target = targets.one_tag(tag)
        body = resource.loaded(CommandRequestSchema, resource.document())
        return _command(target, {target.tags[0].name: body["value"]}, False, body["expires_s"], query["wait"])


@blueprint.route("/device_ctrl")
class DeviceControl(MethodView):
    """Commands by device."""

    @blueprint.commanding(DeviceCommandSchema, CommandSchema, example=examples.DEVICE_COMMAND)
    @blueprint.asking(WaitSchema)
    def post(self, query: dict[str, Any]) -> Response:
        """Set one tag of a device (by `tag`, or by `item` and `term`) to `value`, or several to `values`, all or none."""
        body = resource.loaded(DeviceCommandSchema, resource.document())
        _exclude(body, "values", "value", "tag", "term", "item")
        if "values" not in body:
            if "value" not in body:
                raise ConfigError([Fault("value", "is required, or values for several tags")])
            target = targets.addressed(body)
            return _command(target, {target.tags[0].name: body["value"]}, False, body["expires_s"], query["wait"])
        if "device" not in body:
            raise ConfigError([Fault("device", "is required with values")])
        target = targets.several(body["device"], list(body["values"]))
        return _command(target, body["values"], True, body["expires_s"], query["wait"])


@blueprint.route("/device_call")
class DeviceCall(MethodView):
    """Reading a device now."""

    @blueprint.problems(400, 404, 409, 413, 415, 422, 424)
    @blueprint.taking({"application/json": DeviceCallSchema}, examples.DEVICE_CALL)
    @blueprint.answering(CallAnswerSchema, "what the device holds")
    @blueprint.asking(CallWaitSchema)
    def post(self, query: dict[str, Any]) -> Response:
        """Read tags from the device itself: one, several, or with `device` alone all that are read.

        What one program did not give while another one answered is bad, with the reason comm_failure.
        """
        body = resource.loaded(DeviceCallSchema, resource.document())
        _exclude(body, "tags", "tag", "term", "item")
        whole = "device" in body and not {"tag", "item", "term"} & body.keys()
        target = targets.several(body["device"], body.get("tags", [])) if whole else targets.addressed(body)
        return _call(target, query["wait"])


@blueprint.route("/commands")
class Commands(MethodView):
    """All commands, whoever asked for them."""

    @blueprint.listing(CommandQuerySchema, ListedCommandSchema)
    def get(self, query: dict[str, Any]) -> Response:
        """List commands with where they are, newest first."""
        page, size, sort = query.pop("page"), query.pop("page_size"), query.pop("sort")
        sort = [_column(each) for each in sort]
        filters = {_COLUMNS.get(name, name): value for name, value in query.items()}
        steps, total = live().command_log().listing(CommandQuery(page, size, sort, filters))
        return resource.as_json({"items": [_last(step) for step in steps], "total": total})


@blueprint.route("/commands/<command>")
class OneCommand(MethodView):
    """One command."""

    @blueprint.reporting(CommandSchema, 404)
    def get(self, command: str) -> Response:
        """Read a command with all its steps."""
        stored, watch = live().command_log().steps(command), live().commands.find(command)
        # Owners store in the background: the bus may have told more so far.
        steps = stored if watch is None or len(stored) >= len(watch.steps) else watch.steps
        asked = watch.asked if watch is not None and isinstance(watch.asked, Command) else None
        if asked is None and (not steps or steps[0].is_of_call):
            raise NotFound(f"no command {command[:64]!r}")
        return resource.as_json(_document(asked, steps))


def _column(field: str) -> str:
    """A field to sort by as the log calls it; raises ConfigError."""
    name = field[1:] if field[:1] in ("-", "+") else field
    if name not in _SORTED:
        raise ConfigError([Fault("sort", f"cannot be {field[:64]!r}; possible are {', '.join(_SORTED)}")])
    return field[: len(field) - len(name)] + _COLUMNS.get(name, name)


def _command(
    target: targets.Target, values: Mapping[str, object], group: bool, expires_s: float, wait_s: float
) -> Response:
    """Check the values, send the command, and wait for its end when that is wanted."""
    checked = _checked(target, values, group)
    now_ms = time.time_ns() // 1_000_000
    command = Command(
        uuid.uuid4().hex,
        target.device.name,
        checked,
        now_ms + round(expires_s * 1000),
        resource.who(),
        resource.who(),
        group,
    )
    found = live()
    watch = found.ask(command)

    if wait_s <= 0:
        return _commanded(command, ())
    waiter = found.waiters.place(command.device)
    if isinstance(waiter, str):
        response = _commanded(command, ())
        response.headers[NOT_WAITED] = waiter
        return response
    return waits.answer(
        waiter, lambda: found.is_over(watch), wait_s, lambda: _commanded(command, found.commands.steps(watch))
    )


def _commanded(command: Command, steps: Sequence[Step]) -> Response:
    """What became of a command so far."""
    response = resource.as_json(_document(command, steps), 200 if _final(steps) else 202)
    response.headers["Location"] = f"/api/v1/commands/{command.id}"
    return response


def _checked(target: targets.Target, values: Mapping[str, object], group: bool) -> dict[str, Value]:
    """The values as the tags have them; ConfigError with every fault, Conflict for what cannot be set."""
    result: dict[str, Value] = {}
    faults: list[Fault] = []
    refused: list[Fault] = []
    owners: set[str] = set()
    for tag in target.tags:
        field = f"values.{tag.name}" if group else "value"
        try:
            route = command_route(target.device, tag)
            owners.add(route.owner)
            result[tag.name] = check_command(tag, values[tag.name], route.binding)
        except BadValue as error:
            faults.append(Fault(field, str(error)))
        except Conflict as error:
            refused.extend(Fault(f"values.{tag.name}" if group else "tag", fault.message) for fault in error.faults)
    if faults:
        raise ConfigError(faults)
    if len(owners) > 1:
        refused.append(Fault("values", f"cannot be set together: they are set by {' and '.join(sorted(owners))}"))
    if refused:
        raise Conflict(refused)
    return result


def _call(target: targets.Target, wait_s: float) -> Response:
    owners = {tag.name: owner for tag in target.tags if (owner := _reader(target, tag))}
    if not owners:
        raise Conflict([Fault("tag", "nothing is read: there is no binding")])
    now_ms = time.time_ns() // 1_000_000
    call = Call(
        uuid.uuid4().hex,
        target.device.name,
        tuple(owners),
        now_ms + round(wait_s * 1000),
        resource.who(),
        resource.who(),
    )
    found = live()
    waiter = found.waiters.place(call.device)
    if isinstance(waiter, str):
        return respond(503, f"{waiter}; try again", headers={"Retry-After": "2"})
    try:
        watch = found.ask(call)
    except LinkError:
        found.waiters.leave(waiter)
        raise
    # Every program that reads some of the tags gives an answer of its own.
    answers = len(set(owners.values()))
    return waits.answer(
        waiter,
        lambda: len(_final(watch.steps)) >= answers,
        wait_s,
        lambda: _called(target, call.id, owners, found.commands.steps(watch), wait_s),
    )


def _called(
    target: targets.Target, call_id: str, owners: Mapping[str, str], steps: Sequence[Step], wait_s: float
) -> Response:
    """What the owners gave."""
    samples = {sample.tag: sample for step in steps for sample in step.samples}
    if not samples:
        failed = [step for step in _final(steps) if step.state is not CommandState.VERIFIED]
        return respond(424, failed[0].reason if failed else f"{SILENT} within {wait_s:g} s")
    items = [
        reading(tag.id, target.device.name, tag.name, samples.get(tag.name, _UNREAD if _is_read(tag) else _UNHEARD))
        for tag in target.tags
        if tag.name in owners or target.named
    ]
    return resource.as_json({"id": call_id, "items": items, "total": len(items)})


def _reader(target: targets.Target, tag: TagConfig) -> str:
    """The program that reads a tag; of one that is only set, and named, who sets it: "" when there is none."""
    if _is_read(tag):
        return next(PROTOCOLS[each.protocol].owner for each in tag.bindings if each.direction is not Direction.OUT)
    if target.named:
        with contextlib.suppress(Conflict):
            return command_route(target.device, tag).owner
    return ""


def _is_read(tag: TagConfig) -> bool:
    return any(each.direction is not Direction.OUT for each in tag.bindings)


def _final(steps: Sequence[Step]) -> list[Step]:
    return [step for step in steps if step.final]


def _exclude(body: Mapping[str, Any], one: str, *others: str) -> None:
    if one in body:
        faults = [Fault(name, f"does not go together with {one}") for name in others if name in body]
        if faults:
            raise ConfigError(faults)


def _document(asked: Command | None, steps: Sequence[Step]) -> dict[str, Any]:
    """A command with its steps; before the first one it is as it was asked for."""
    listed = [{"state": step.state, "time_ms": step.time_ms, "reason": step.reason} for step in steps]
    if steps:
        return {**_last(steps[-1], steps), "steps": listed}
    assert asked is not None
    return {
        "id": asked.id,
        "device": asked.device,
        "tag": asked.tag,
        # This program has accepted it; the owner's own step comes with its time.
        "state": CommandState.ACCEPTED,
        "final": False,
        "value": asked.value,
        "old_value": None,
        "reason": "",
        "by": asked.by,
        "from": asked.origin,
        "time_ms": time.time_ns() // 1_000_000,
        "steps": [],
    }


def _last(step: Step, steps: Sequence[Step] = ()) -> dict[str, Any]:
    known = [each.old_value for each in (*steps, step) if each.old_value is not None]
    return {
        "id": step.id,
        "device": step.device,
        "tag": step.tag,
        "state": step.state,
        "final": step.final,
        "value": step.value,
        "old_value": known[-1] if known else None,
        "reason": step.reason,
        "by": step.by,
        "from": step.origin,
        "time_ms": step.time_ms,
    }

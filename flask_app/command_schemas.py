"""marshmallow schemas of values, links, plans and commands."""

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, fields, validate

from flask_app.messages import QueryFloat, query_schema
from flask_app.record_schemas import StrictFloat, StrictSchema, make_schema, scalar
from scada.commands import MAX_EXPIRY_MS, MAX_GROUP, CommandState
from scada.values import Quality, Reason

MAX_WAIT_S = 30.0
_VALUE: dict[str, Any] = {"type": ["number", "string", "boolean", "null"]}
_ANY_VALUE: dict[str, Any] = {"type": ["number", "string", "boolean", "null", "object"]}
_REFERENCE: dict[str, Any] = {"type": ["string", "integer"]}


class Reference(fields.Raw):
    """An id or a name."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValidationError("Must be an id, an integer, or a name.")
        return value


class ValuesByTag(fields.Dict):
    """Values of several tags, by name."""

    def __init__(self, **more: Any) -> None:
        super().__init__(keys=fields.String(), values=scalar({}), **more)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, Mapping) and not 1 <= len(value) <= MAX_GROUP:
            # Before each of them is looked at, which takes a second with 100,000.
            raise ValidationError(f"Must be 1 to {MAX_GROUP} tags.")
        try:
            return super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]  # marshmallow's Dict has none
        except ValidationError as error:
            messages: Any = error.messages
            if isinstance(messages, dict):  # marshmallow says of each whether its key or its value is wrong
                messages = {name: [*each.get("key", ()), *each.get("value", ())] for name, each in messages.items()}
            raise ValidationError(messages) from error


def _reference(text: str, **more: Any) -> Reference:
    return Reference(metadata={"description": text, **_REFERENCE}, **more)


class ValueSchema(StrictSchema):
    """The last value of a tag."""

    tag = fields.Integer(metadata={"description": "id of the tag"})
    name = fields.String(metadata={"description": "full name, Device@Tag"})
    value = fields.Raw(metadata={"description": "null before the first sample", **_VALUE})
    quality = fields.Enum(Quality, by_value=True, metadata={"description": "good, uncertain or bad"})
    reason = fields.Enum(Reason, by_value=True, metadata={"description": "why it is not good; empty when it is"})
    time_ms = fields.Integer(allow_none=True, metadata={"description": "when it was measured: UTC, milliseconds"})


class ValuesQuerySchema(StrictSchema):
    """Which values are wanted."""

    page = query_schema("Values")().fields["page"]
    page_size = query_schema("Values")().fields["page_size"]
    name = fields.String(
        load_default="*",
        metadata={"description": "full name, Device@Tag, with * and ?; without @ the tag's name, of any device"},
    )


class OwnedLinkSchema(StrictSchema):
    """What one program says about its link to a device."""

    owner = fields.String(metadata={"description": "the program"})
    online = fields.Boolean(metadata={"description": "it reaches the device"})
    since = fields.Integer(metadata={"description": "since when: UTC, milliseconds"})
    error = fields.String(allow_none=True, metadata={"description": "why not"})


class LinkSchema(StrictSchema):
    """Whether a device is reached."""

    device = fields.String(metadata={"description": "name of the device"})
    online = fields.Boolean(metadata={"description": "every program that speaks to it reaches it"})
    since = fields.Integer(allow_none=True, metadata={"description": "since when: UTC, milliseconds"})
    error = fields.String(allow_none=True, metadata={"description": "why it is not reached"})
    owners = fields.List(fields.Nested(OwnedLinkSchema), metadata={"description": "what each program says"})


# Made by a function: a class cannot have a field `load` beside marshmallow's method.
PlanSchema = make_schema(
    "Plan",
    {
        "device": fields.String(metadata={"description": "name of the device"}),
        "owner": fields.String(metadata={"description": "the program that reads it"}),
        "requests": fields.List(
            fields.Dict(), metadata={"description": "text, unit, tags, period_ms, duration_ms of each"}
        ),
        "requests_per_s": fields.Float(metadata={"description": "requests per second"}),
        "load": fields.Float(metadata={"description": "share of time that the link is busy, 0 to 1"}),
        "ceiling": fields.Float(allow_none=True, metadata={"description": "most requests per second that are allowed"}),
        "learned": fields.List(fields.String(), metadata={"description": "what the device has taught, such as gaps"}),
        "tags": fields.Integer(metadata={"description": "tags that are read"}),
        "single_requests_per_s": fields.Float(metadata={"description": "what one request per tag would take"}),
    },
)


class WaitSchema(StrictSchema):
    """How long the answer may take."""

    wait = QueryFloat(
        load_default=0.0,
        validate=validate.Range(0, MAX_WAIT_S),
        metadata={"description": "seconds to wait for the end of the command"},
    )


class CallWaitSchema(StrictSchema):
    """How long the device may take."""

    wait = QueryFloat(
        load_default=5.0,
        validate=validate.Range(0.1, MAX_WAIT_S),
        metadata={"description": "seconds to wait for the device"},
    )


def _expiry() -> StrictFloat:
    return StrictFloat(
        load_default=5.0,
        validate=validate.Range(0.1, MAX_EXPIRY_MS / 1000),
        metadata={"description": "seconds after which the command must not act any more"},
    )


CommandRequestSchema = make_schema(
    "CommandRequest",
    {
        "value": scalar({"required": True, "metadata": {"description": "in the tag's unit"}}),
        "expires_s": _expiry(),
    },
)
DeviceCommandSchema = make_schema(
    "DeviceCommand",
    {
        "device": _reference("id or name of the device"),
        "term": _reference("id or name of a term of the device"),
        "item": _reference("id or name of an item: the tag of the device made from it is meant"),
        "tag": _reference("id or name of the tag, instead of term and item"),
        "value": scalar({"metadata": {"description": "in the tag's unit"}}),
        "values": ValuesByTag(
            metadata={
                "description": "several tags of the device by name, set in one request or not at all",
                "minProperties": 1,
                "maxProperties": MAX_GROUP,
            },
        ),
        "expires_s": _expiry(),
    },
)
DeviceCallSchema = make_schema(
    "DeviceCall",
    {
        "device": _reference("id or name of the device; alone: all its tags"),
        "term": _reference("id or name of a term of the device"),
        "item": _reference("id or name of an item: the tag of the device made from it is meant"),
        "tag": _reference("id or name of a tag"),
        "tags": fields.List(
            fields.String(),
            validate=validate.Length(1, MAX_GROUP),
            metadata={"description": "names of several tags of the device"},
        ),
    },
)


class StepSchema(StrictSchema):
    """One step of a command."""

    state = fields.Enum(CommandState, by_value=True, metadata={"description": "what it came to"})
    time_ms = fields.Integer(metadata={"description": "when: UTC, milliseconds"})
    reason = fields.String(metadata={"description": "why, where that needs a word"})


_COMMAND: dict[str, Any] = {
    "id": fields.String(metadata={"description": "of the command"}),
    "device": fields.String(metadata={"description": "name of the device"}),
    "tag": fields.String(allow_none=True, metadata={"description": "name of the tag; null for a group"}),
    "state": fields.Enum(CommandState, by_value=True, metadata={"description": "where it is"}),
    "final": fields.Boolean(metadata={"description": "nothing will follow"}),
    "value": fields.Raw(metadata={"description": "asked for; an object by tag for a group", **_ANY_VALUE}),
    "old_value": fields.Raw(metadata={"description": "what it was before, null when unknown", **_ANY_VALUE}),
    "reason": fields.String(metadata={"description": "why, where that needs a word"}),
    "by": fields.String(metadata={"description": "who asked"}),
    "from": fields.String(metadata={"description": "from where"}),
    "time_ms": fields.Integer(metadata={"description": "of the last step: UTC, milliseconds"}),
}
ListedCommandSchema = make_schema("ListedCommand", _COMMAND)
CommandSchema = make_schema(
    "Command",
    {**_COMMAND, "steps": fields.List(fields.Nested(StepSchema), metadata={"description": "all steps, in order"})},
)
CommandQuerySchema = query_schema("Command", "device", "tag", "state", "final", "by", "from")


class CallAnswerSchema(StrictSchema):
    """What a device holds just now."""

    id = fields.String(metadata={"description": "of the call"})
    items = fields.List(fields.Nested(ValueSchema), metadata={"description": "the values that were read"})
    total = fields.Integer(metadata={"description": "how many"})

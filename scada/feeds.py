"""Tags that get their value over the bus, and where it goes: to registers, into messages, or both. Pure."""

from dataclasses import dataclass

from scada.config import DeviceConfig, Direction, TagConfig
from scada.modbus.endpoint import Endpoint
from scada.outputs import OutPlan, Publication, compile_out, compile_publication
from scada.setpoints import command_route


@dataclass(frozen=True, slots=True)
class FeedPlan:
    """A tag that is not read from MQTT. `publication` is None where its values are in no message."""

    name: str
    outs: tuple[OutPlan, ...]
    publication: Publication | None


def compile_feed(device: DeviceConfig, tag: TagConfig, endpoint: Endpoint | None) -> FeedPlan | None:
    """What the gateway does with a tag's values that come over the bus; None: nothing. Raises ConfigError.

    The binding by which commands for a setpoint are carried out is left out: its place has the value already.
    """
    done = None
    if all(binding.direction is Direction.OUT for binding in tag.bindings) and tag.bindings:
        done = command_route(device, tag).binding.id
    outs: list[OutPlan] = []
    publication = None
    for binding in tag.bindings:
        if binding.direction is not Direction.OUT or binding.id == done:
            continue
        if binding.protocol == "modbus":
            outs.append(compile_out(device, tag, binding, endpoint))
        elif binding.protocol == "mqtt":
            publication = compile_publication(tag, binding)
    return FeedPlan(tag.name, tuple(outs), publication) if outs or publication is not None else None


def compile_setpoint(device: DeviceConfig, tag: TagConfig) -> Publication | None:
    """The message by which a tag without a source is set; None for every other tag. Raises ConfigError."""
    if not tag.bindings or any(binding.direction is not Direction.OUT for binding in tag.bindings):
        return None
    binding = command_route(device, tag).binding
    return compile_publication(tag, binding) if binding.protocol == "mqtt" else None

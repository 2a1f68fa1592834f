"""Values that would come back to the tag that they left: over a message, another device's tag, and the registers it writes. Pure.

A tag is polled from registers and goes into a message; somebody listens to the message and writes the same registers. With a
scaling or a rounding in between the value would run away, with none it would be written for ever.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from scada.config import Direction
from scada.mapping import DevicePlan
from scada.modbus.limits import Table
from scada.modbus.registers import codec
from scada.outputs import OutPlan
from scada.paths import compile_path
from scada.protocols.modbus import ModbusAddress, ModbusNetwork
from scada.protocols.mqtt import MqttAddress
from scada.topic_index import TopicIndex

Node = tuple[int, str]
"""A tag that is fed from the bus: its device's id and its name."""


class _Place(NamedTuple):
    """Registers (or a coil) of a unit; `where` is the address of the endpoint."""

    where: object
    unit_id: int
    table: Table
    start: int
    end: int

    def overlaps(self, other: "_Place") -> bool:
        return self[:3] == other[:3] and self.start < other.end and other.start < self.end


def find_loops(plans: Iterable[DevicePlan]) -> set[Node]:
    """The tags whose messages lead back to themselves. Registers of our own Modbus server are not seen through."""
    by_id = {plan.device_id: plan for plan in plans}
    listeners: TopicIndex[int] = TopicIndex()
    for plan in by_id.values():
        if plan.topic is not None and any(tag.outs for tag in plan.tags):
            listeners.add(plan.topic, plan.device_id)
    nodes = {
        (plan.device_id, name): (_written(plan, name, listeners, by_id), _source(plan, name))
        for plan in by_id.values()
        for name in plan.feeds
    }
    following = {
        node: [
            other for other, (_, source) in nodes.items() if source and any(source.overlaps(each) for each in written)
        ]
        for node, (written, _) in nodes.items()
        if written
    }
    return {node for node in following if _returns(node, following) and by_id[node[0]].feeds[node[1]].publication}


def may_loop(plans: Iterable[DevicePlan]) -> bool:
    """Whether anybody listens to what is sent: only then `find_loops` has anything to find."""
    listeners: TopicIndex[int] = TopicIndex()
    topics = set()
    for plan in plans:
        if plan.topic is not None:
            listeners.add(plan.topic, plan.device_id)
        if any(feed.publication for feed in plan.feeds.values()):
            topics.add(plan.out_topic)
    return any(listeners.find(topic) for topic in topics)


def _written(plan: DevicePlan, name: str, listeners: TopicIndex[int], by_id: Mapping[int, DevicePlan]) -> list[_Place]:
    """The registers that a value of the tag comes to."""
    feed = plan.feeds[name]
    places = [_place(out) for out in feed.outs]
    if feed.publication is None:
        return places
    for device_id in listeners.find(plan.out_topic):
        listener = by_id[device_id]
        heard = {tag.name for tag in listener.config.tags if _hears(listener, tag.name, feed.publication.keys)}
        places += [_place(out) for tag in listener.tags if tag.name in heard for out in tag.outs]
    return places


def _hears(plan: DevicePlan, name: str, keys: tuple[str, ...]) -> bool:
    """Whether a tag that is read from messages may take the value at `keys`."""
    tag = next(each for each in plan.config.tags if each.name == name)
    for binding in tag.bindings:
        address = binding.address
        if binding.direction is Direction.OUT or not isinstance(address, MqttAddress):
            continue
        paths = address.bits if address.bits is not None else (address.path or "",)
        for path in paths:
            parts = compile_path(path).parts
            common = min(len(parts), len(keys))
            if plan.samples is not None or parts[:common] == keys[:common]:
                return True
    return False


def _source(plan: DevicePlan, name: str) -> _Place | None:
    """The registers that the tag is polled from."""
    network = plan.config.networks.get("modbus")
    tag = next(each for each in plan.config.tags if each.name == name)
    for binding in tag.bindings:
        address = binding.address
        if binding.direction is Direction.OUT or not isinstance(address, ModbusAddress):
            continue
        if not isinstance(network, ModbusNetwork):
            continue
        count = 1
        if not address.table.is_bits:
            count = codec(address.type, address.order, length=address.length, bit=address.bit).registers
        unit = 1 if address.unit_id is None else address.unit_id
        return _Place(network.endpoint.address, unit, address.table, address.register, address.register + count)
    return None


def _place(out: OutPlan) -> _Place:
    return _Place(out.endpoint.address, out.unit_id, out.table, out.address, out.address + out.count)


def _returns(start: Node, following: Mapping[Node, list[Node]]) -> bool:
    seen: set[Node] = set()
    open_nodes = list(following[start])
    while open_nodes:
        node = open_nodes.pop()
        if node == start:
            return True
        if node not in seen:
            seen.add(node)
            open_nodes += following.get(node, [])
    return False

"""In which order messages are acknowledged."""

from typing import Any

from links.mqtt import Delivery
from mqtt_server.gateway import Gateway
from mqtt_server.slots import Ticket
from scada.topics import BusTopics


class Link:
    def __init__(self) -> None:
        self.acknowledged: list[int] = []

    def acknowledge(self, delivery: Delivery) -> None:
        self.acknowledged.append(delivery.mid)


class OpenGateway(Gateway):
    """Every message waits for one value, which the test settles."""

    def __init__(self) -> None:
        super().__init__(None, None, None, BusTopics())  # type: ignore[arg-type]
        self.link = Link()
        self.tickets: dict[int, Ticket] = {}
        self.attach(None, self.link)  # type: ignore[arg-type]

    def _spread(self, topic: str, payload: bytes, retained: bool, ticket: Any) -> None:
        ticket.waiting += 1
        self.tickets[ticket.delivery.mid] = ticket

    def take(self, topic: str, mid: int) -> None:
        self.receive(topic, b"", False, Delivery(1, mid, 1))

    def settle_one(self, mid: int) -> None:
        self.settle((self.tickets[mid],))


def test_messages_of_a_topic_are_acknowledged_in_the_order_they_came() -> None:
    """Else the broker sends the older one again after a crash, and it replaces the newer one."""
    gateway = OpenGateway()
    for mid in (1, 2, 3):
        gateway.take("plant/a", mid)
    gateway.settle_one(3)
    gateway.settle_one(2)
    assert gateway.link.acknowledged == []
    gateway.settle_one(1)
    assert gateway.link.acknowledged == [1, 2, 3]
    gateway.take("plant/a", 4)
    gateway.settle_one(4)
    assert gateway.link.acknowledged == [1, 2, 3, 4]
    assert gateway._last_tickets == {}


def test_topics_do_not_wait_for_one_another() -> None:
    gateway = OpenGateway()
    gateway.take("plant/a", 1)
    gateway.take("plant/b", 2)
    gateway.settle_one(2)
    assert gateway.link.acknowledged == [2]


def test_a_long_row_of_messages_is_settled_without_recursion() -> None:
    gateway = OpenGateway()
    for mid in range(1, 20_001):
        gateway.take("plant/a", mid)
    for mid in range(20_000, 0, -1):
        gateway.settle_one(mid)
    assert gateway.link.acknowledged == list(range(1, 20_001))

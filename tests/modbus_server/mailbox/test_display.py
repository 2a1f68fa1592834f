"""Which sample is shown, and when it is not good any more (row M2)."""

import struct

import pytest

from modbus_server.mailbox.display import Display
from scada.config import LimitsConfig, ScalingConfig, TagConfig
from scada.modbus.limits import Table
from scada.modbus.registers import Order, RegisterType
from scada.protocols.mailbox import NotGood
from scada.values import DataType, Quality, Reason, Sample, Value
from tests.support.bound_tags import bound, laid_out, mailbox_device, shared_image

GOOD, UNCERTAIN, BAD = Quality.GOOD, Quality.UNCERTAIN, Quality.BAD
X = bound(1, "x", 10, "out", fed=True, status=11)


class Screen:
    """A display over one image. `x` and `status` are what clients read of the tag `x`."""

    def __init__(self, *tags: TagConfig, **network: object) -> None:
        self.image, self.images = shared_image()
        self.display = Display(self.images)
        self.now_s = 0.0
        self.configure(*(tags or [X]), **{"not_good": NotGood.EXCEPTION, **network})

    def configure(self, *tags: TagConfig, **network: object) -> set[str]:
        self.layout = laid_out(self.images, mailbox_device(1, "A", *tags, **network))
        return self.display.apply(self.layout.tags, self.now_s)

    def here(self) -> "Screen":
        """We and the owner are on the bus."""
        self.display.bus(True, self.now_s)
        self.display.server("field_server", True, self.now_s)
        return self

    def data(self, value: Value | None, time_ms: int = 1000, quality: Quality = GOOD, **more: object) -> None:
        self._take(value, time_ms, quality, state=False, **more)

    def state(self, value: Value | None, time_ms: int = 1000, quality: Quality = GOOD, **more: object) -> None:
        self._take(value, time_ms, quality, state=True, **more)

    def _take(
        self, value, time_ms, quality, *, state, again=False, late=False, owner="field_server", tag="x", reason=""
    ):  # type: ignore[no-untyped-def]
        sample = Sample(tag, value, quality, time_ms, Reason(reason), late)
        self.display.take(owner, "A", [sample], self.now_s, state=state, again=again)

    def register(self, address: int) -> int:
        return int.from_bytes(self.image.read_registers(Table.HOLDING_REGISTER, address, 1), "big")

    @property
    def x(self) -> int:
        return self.register(10)

    @property
    def status(self) -> int:
        hidden = {tag.name for tag in self.layout.tags if tag in self.display.hidden}
        assert ("x" in hidden) is (self.register(11) == 2)
        return self.register(11)


def test_a_value_is_good_while_it_and_its_owner_and_we_are_there() -> None:
    screen = Screen()
    assert screen.status == 2
    screen.state(5, again=True)
    assert (screen.x, screen.status) == (5, 2)
    screen.display.bus(True, 0)
    assert screen.status == 2
    screen.display.server("field_server", True, 0)
    assert screen.status == 0
    screen.display.bus(False, 0)
    assert (screen.x, screen.status) == (5, 2)


def test_back_on_the_bus_a_value_has_to_be_told_again() -> None:
    screen = Screen().here()
    screen.data(5)
    screen.display.bus(False, 0)
    screen.here()
    assert screen.status == 2
    screen.state(5, again=True)
    assert screen.status == 0


def test_an_owner_that_comes_back_has_to_tell_again() -> None:
    screen = Screen().here()
    screen.data(5)
    screen.display.server("field_server", False, 0)
    assert screen.status == 2
    screen.state(5, again=True)  # a retained one of the run that has ended
    assert screen.status == 2
    screen.display.server("field_server", True, 0)
    assert screen.status == 2
    screen.state(6)
    assert (screen.x, screen.status) == (6, 0)


def test_a_state_that_comes_again_is_not_the_word_of_an_owner_that_came_back() -> None:
    """Asked for again within a second of our start, the state of an owner's last run was shown as good in its next one."""
    screen = Screen()
    screen.display.bus(True, 0)
    screen.display.server("field_server", False, 0)
    screen.state(5, again=True)
    screen.display.server("field_server", True, 0)
    screen.state(5, again=True)
    assert (screen.x, screen.status) == (5, 2)
    screen.configure(bound(1, "x", 20, "out", fed=True, status=11), not_good=NotGood.EXCEPTION)
    screen.state(5, again=True)
    assert (screen.register(20), screen.status) == (5, 2)
    screen.state(5, again=True, time_ms=1001)
    assert screen.status == 0, "a newer one that we missed"
    screen.display.server("field_server", False, 0)
    screen.display.server("field_server", True, 0)
    screen.display.bus(False, 0)
    screen.here()
    screen.state(5, again=True, time_ms=1001)
    assert screen.status == 0, "what became of the owner while we were away is not known"


def test_what_an_owner_took_back_is_not_good() -> None:
    screen = Screen().here()
    screen.data(5)
    screen.display.forget("another", "A", 0)
    assert screen.status == 0
    screen.display.forget("field_server", "A", 0)
    assert screen.status == 2


def test_only_the_owner_of_a_tag_is_believed() -> None:
    screen = Screen().here()
    for stranger in ("mqtt_server", "field_serve", "field_server2", "modbus_server"):
        screen.data(9, owner=stranger)
    assert (screen.x, screen.status) == (0, 2)
    screen.display.server("field_server-2of8", True, 0)
    screen.data(9, owner="field_server-2of8")
    assert (screen.x, screen.status) == (9, 0)
    screen.display.server("field_server", False, 0)
    assert screen.status == 0


@pytest.mark.parametrize(
    ("quality", "reason", "status"),
    [(GOOD, "", 0), (UNCERTAIN, "out_of_range", 1), (UNCERTAIN, "stale", 2), (BAD, "comm_failure", 2)],
)
def test_the_status_follows_the_quality(quality: Quality, reason: str, status: int) -> None:
    screen = Screen().here()
    screen.data(5, quality=quality, reason=reason)
    assert (screen.x, screen.status) == (5, status)


def test_a_value_that_does_not_fit_keeps_the_last_and_is_not_good() -> None:
    screen = Screen().here()
    screen.data(65535)
    for value in (65536, -1, 1.5, "text", True, None):
        screen.data(value)
        assert (screen.x, screen.status) == (65535, 2)
    screen.data(1)
    assert (screen.x, screen.status) == (1, 0)


def test_a_value_that_is_not_told_again_in_time_is_stale() -> None:
    screen = Screen(stale_after_s=10.0).here()
    screen.data(5)
    screen.now_s = 9.9
    screen.display.expire(screen.now_s)
    assert screen.status == 0
    screen.state(5)
    screen.now_s = 19.8
    screen.display.expire(screen.now_s)
    assert screen.status == 0
    screen.data(6, late=True, time_ms=2000)
    screen.now_s = 20.0
    screen.display.expire(screen.now_s)
    assert (screen.x, screen.status) == (6, 2)
    screen.data(6, time_ms=2000)
    assert screen.status == 0


def test_what_comes_late_or_again_never_replaces_what_is_newer() -> None:
    screen = Screen().here()
    screen.state(5, 2000)
    screen.data(4, 1500)  # the state was ahead of the changes
    screen.data(3, 1000, late=True)
    screen.data(2, 1900, again=True)
    screen.state(1, 1900, again=True)
    assert screen.x == 5
    screen.data(6, 2000)
    screen.data(7, 2001, late=True)
    assert screen.x == 7


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    screen = Screen().here()
    screen.data(5, 3_600_000)
    screen.data(6, 1000)
    assert screen.x == 6
    screen.state(7, 500)
    assert screen.x == 7
    screen.data(8, 3_600_000)  # from before, and so the state was ahead of it
    screen.data(9, 1000)
    assert screen.x == 9


def test_every_order_and_table_and_the_scaling_of_the_binding() -> None:
    tags = [
        bound(1, "x", 10, "out", fed=True, status=11, own_scaling=ScalingConfig(0.1, 0)),
        bound(2, "f", 20, "out", fed=True, type=RegisterType.FLOAT32, order=Order.CDAB, table=Table.INPUT_REGISTER),
        bound(3, "d", 9, "out", fed=True, table=Table.DISCRETE_INPUT, type=RegisterType.BOOL, data_type=DataType.BOOL),
        bound(4, "b", 30, "out", fed=True, type=RegisterType.BOOL, bit=4, data_type=DataType.BOOL),
        bound(5, "s", 40, "out", fed=True, type=RegisterType.STRING, length=5, data_type=DataType.STRING),
        bound(6, "i", 50, "out", fed=True, table=Table.INPUT_REGISTER, own_scaling=ScalingConfig(0.1, 0)),
        bound(7, "c", 60, "out", fed=True, own_limits=LimitsConfig(0, 10)),
    ]
    screen = Screen(*tags).here()
    screen.image.write_registers(Table.HOLDING_REGISTER, 30, b"\xa0\x00")
    for tag, value in (("x", 1.26), ("f", -2.5), ("d", True), ("b", True), ("s", "grün"), ("i", 1.26), ("c", 11)):
        screen.data(value, tag=tag)
    assert screen.x == 13
    assert (
        screen.image.read_registers(Table.INPUT_REGISTER, 20, 2)
        == struct.pack(">f", -2.5)[2:] + struct.pack(">f", -2.5)[:2]
    )
    assert screen.image.read_bits(Table.DISCRETE_INPUT, 8, 3) == b"\x02"
    assert screen.register(30) == 0xA010
    assert screen.image.read_registers(Table.HOLDING_REGISTER, 40, 3) == "grün".encode() + b"\0"
    assert screen.image.read_registers(Table.INPUT_REGISTER, 50, 1) == b"\x00\x0d"
    assert screen.register(60) == 0


def test_another_configuration_keeps_what_is_known() -> None:
    screen = Screen().here()
    screen.data(5)
    moved = bound(1, "x", 20, "out", fed=True, status=11)
    assert screen.configure(moved, bound(2, "y", 30, "out", fed=True), not_good=NotGood.EXCEPTION) == {"A"}
    assert (screen.register(20), screen.status) == (5, 0)
    assert screen.configure(moved, not_good=NotGood.EXCEPTION) == set()
    assert len(screen.display.hidden) == 0


def test_the_value_stays_and_is_only_hidden_where_that_is_wanted() -> None:
    screen = Screen(not_good=NotGood.LAST).here()
    screen.data(5)
    screen.display.bus(False, 0)
    assert (screen.x, screen.register(11)) == (5, 2)
    assert not screen.display.hidden

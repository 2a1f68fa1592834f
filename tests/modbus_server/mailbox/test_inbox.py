"""What clients write becomes samples."""

import struct
from collections.abc import Sequence

import pytest

from modbus_server.mailbox.inbox import Inbox
from modbus_server.mailbox.plans import BoundTag
from scada.config import LimitsConfig, ScalingConfig, TagConfig
from scada.modbus.limits import Table
from scada.modbus.registers import Order, RegisterType
from scada.scaling import OutOfLimits
from scada.values import DataType, Quality, Reason, Sample
from tests.support.bound_tags import bound, laid_out, mailbox_device, shared_image

GOOD, UNCERTAIN, BAD = Quality.GOOD, Quality.UNCERTAIN, Quality.BAD
FLOAT = RegisterType.FLOAT32


class Box:
    """An inbox over one image; `news` gives what was told since it was asked last."""

    def __init__(self, *tags: TagConfig, **network: object) -> None:
        self.image, self.images = shared_image()
        self.told: list[tuple[str, Sample]] = []
        self.answered_for: list[object] = []
        self.inbox = Inbox(self.images, self._publish)
        self.now_s = 0.0
        self.configure(*tags, **network)

    def configure(self, *tags: TagConfig, device: str = "A", **network: object) -> None:
        self.tags = {tag.name: tag for tag in laid_out(self.images, mailbox_device(1, device, *tags, **network)).tags}
        self.inbox.apply(self.tags.values(), self.time_ms, self.now_s)

    @property
    def time_ms(self) -> int:
        return 1000 + int(self.now_s * 1000)

    def write(self, address: int, *words: int) -> None:
        self.image.write_registers(Table.HOLDING_REGISTER, address, struct.pack(f">{len(words)}H", *words))
        touched: list[BoundTag] = [
            tag
            for tag in self.tags.values()
            if tag.place.table is Table.HOLDING_REGISTER
            and tag.place.first < address + len(words)
            and address < tag.place.end
        ]
        self.inbox.written(touched, address, len(words), self.time_ms, self.now_s)

    def register(self, address: int) -> int:
        return int.from_bytes(self.image.read_registers(Table.HOLDING_REGISTER, address, 1), "big")

    def news(self) -> list[tuple[object, Quality, str]]:
        found = [(sample.value, sample.quality, str(sample.reason)) for _, sample in self.told]
        self.told.clear()
        return found

    def _publish(self, device: str, samples: Sequence[Sample], written: bool) -> None:
        self.answered_for += [sample.value for sample in samples if written]
        self.told += [(device, sample) for sample in samples]


def test_what_stands_there_at_the_start_is_told_and_uncertain_until_it_is_written_again() -> None:
    box = Box(bound(1, "x", 5, status=6))
    assert box.news() == [(0, UNCERTAIN, "stale")]
    assert box.register(6) == 1
    box.write(5, 0)
    assert box.news() == [(0, GOOD, "")]
    assert box.register(6) == 0
    box.write(5, 0)
    assert box.news() == []


def test_half_a_value_is_never_good() -> None:
    """One half new, the other old: a value that no client ever sent was told as good."""
    box = Box(bound(1, "x", 5, type=FLOAT, order=Order.CDAB, status=9))
    high, low = struct.unpack(">HH", struct.pack(">f", -1.7))
    whole = struct.unpack(">f", struct.pack(">f", -1.7))[0]
    box.write(6, high)
    box.write(5, low)
    assert box.news()[1:] == [
        (struct.unpack(">f", struct.pack(">HH", high, 0))[0], UNCERTAIN, "stale"),
        (whole, GOOD, ""),
    ]
    box.write(5, low)
    assert box.news() == [(whole, UNCERTAIN, "stale")]
    assert box.register(9) == 1
    box.write(5, low)
    box.write(5, low)
    assert box.news() == []
    box.write(6, high)
    assert box.news() == [(whole, GOOD, "")]
    assert box.register(9) == 0
    # One request for all of it is whole, whatever else it writes and whatever was half before.
    box.write(5, low)
    box.news()
    box.write(4, 1, low, high, 1)
    assert box.news() == [(whole, GOOD, "")]


def test_parts_of_a_longer_value_and_what_a_new_configuration_knows_of_them() -> None:
    box = Box(bound(1, "x", 5, type=RegisterType.UINT64))
    for address in (8, 5, 6):
        box.write(address, 0)
    box.configure(bound(1, "x", 5, type=RegisterType.UINT64, scaling=ScalingConfig(2, 0)))
    assert box.news()[-1][1] is UNCERTAIN
    box.write(7, 1)
    assert box.news() == [(2 * 0x10000, GOOD, "")]
    box.write(4, 0, 0)
    assert box.news() == [(2 * 0x10000, UNCERTAIN, "stale")]
    tag = box.tags["x"]
    box.inbox.put([(tag, bytes(8))], box.time_ms, box.now_s)
    assert box.news() == [(0, GOOD, "")]


def test_scaling_limits_and_deadband_are_the_tag_s() -> None:
    limits = LimitsConfig(0, 50, OutOfLimits.CLAMP)
    box = Box(bound(1, "x", 5, type=RegisterType.INT16, scaling=ScalingConfig(0.1, 5), limits=limits, deadband=1))
    box.news()
    for raw in (100, 105, 111, 500, 0xFFFF - 99):
        box.write(5, raw)
    assert box.news() == [
        (15, GOOD, ""),
        (16.1, GOOD, ""),
        (50, UNCERTAIN, "out_of_range"),
        (0, UNCERTAIN, "out_of_range"),
    ]


def test_bytes_that_are_no_value_are_bad_and_keep_the_last() -> None:
    box = Box(bound(1, "x", 5, type=FLOAT, status=9))
    box.write(5, 0x3F80, 0)
    box.news()
    box.write(5, 0x7FC0, 0)
    assert box.news() == [(1.0, BAD, "out_of_range")]
    assert box.register(9) == 2
    box.write(5, 0x3F80, 0)
    assert box.news() == [(1.0, GOOD, "")]


def test_bits_and_coils() -> None:
    box = Box(
        bound(1, "b", 5, type=RegisterType.BOOL, bit=15, data_type=DataType.BOOL),
        bound(2, "n", 5, type=RegisterType.BOOL, bit=0, data_type=DataType.INT),
    )
    box.news()
    box.write(5, 0x8000)
    assert box.news() == [(True, GOOD, ""), (0, GOOD, "")]


def test_a_value_that_is_not_written_again_in_time_is_stale() -> None:
    box = Box(bound(1, "x", 5, status=6), stale_after_s=10.0)
    box.write(5, 7)
    box.news()
    for box.now_s in (5.0, 9.0):
        box.inbox.expire(box.time_ms, box.now_s)
    assert box.news() == []
    box.write(5, 7)
    box.now_s = 18.5
    box.inbox.expire(box.time_ms, box.now_s)
    assert box.news() == []
    box.now_s = 19.0
    box.inbox.expire(box.time_ms, box.now_s)
    box.inbox.expire(box.time_ms, box.now_s)
    assert box.news() == [(7, BAD, "stale")]
    assert box.register(6) == 2
    box.write(5, 7)
    assert box.news() == [(7, GOOD, "")]


def test_a_value_that_was_never_written_is_stale_as_soon() -> None:
    """After a restart it stayed uncertain for ever, though its client was gone for days."""
    box = Box(bound(1, "x", 5, status=6), stale_after_s=10.0)
    assert box.news() == [(0, UNCERTAIN, "stale")]
    box.now_s = 9.0
    box.configure(bound(1, "x", 5, status=6, scaling=ScalingConfig(2, 0)), stale_after_s=10.0)
    box.now_s = 10.5
    box.inbox.expire(box.time_ms, box.now_s)
    assert box.news() == [(0, BAD, "stale")]
    assert box.register(6) == 2
    box.write(5, 0)
    assert box.news() == [(0, GOOD, "")]


def test_what_somebody_was_answered_for_is_known_from_what_nobody_wrote() -> None:
    box = Box(bound(1, "x", 5, "inout"), bound(2, "y", 6), stale_after_s=10.0)
    box.write(5, 1, 2)
    box.inbox.put([(box.tags["x"], b"\0\3")], box.time_ms, box.now_s)
    box.inbox.read("A", {"x"}, box.time_ms, box.now_s)
    box.now_s = 11.0
    box.inbox.expire(box.time_ms, box.now_s)
    assert box.answered_for == [1, 2, 3]


def test_another_configuration_tells_only_what_it_changes() -> None:
    box = Box(bound(1, "x", 5), bound(2, "y", 6))
    box.write(5, 7, 8)
    box.news()
    box.configure(bound(1, "x", 5), bound(2, "y", 6, scaling=ScalingConfig(2, 0)), bound(3, "z", 7))
    assert box.news() == [(16, GOOD, ""), (0, UNCERTAIN, "stale")]
    box.configure(bound(1, "renamed", 5), bound(2, "y", 16))
    assert box.news() == [(7, GOOD, ""), (0, UNCERTAIN, "stale")]
    assert box.inbox.last("A", "x") is None
    assert [sample.tag for sample in box.inbox.read("A", {"renamed", "x", "y"}, 5, 5.0)] == ["renamed", "y"]


def test_what_was_set_or_asked_for_is_told_whatever_the_deadband() -> None:
    """A command within the deadband was verified, and everybody went on seeing the value before it."""
    box = Box(bound(1, "x", 5, deadband=5.0))
    tag = box.tags["x"]
    box.inbox.put([(tag, (10).to_bytes(2, "big"))], box.time_ms, box.now_s)
    box.news()
    box.inbox.put([(tag, (12).to_bytes(2, "big"))], box.time_ms, box.now_s)
    assert [value for value, *_ in box.news()] == [12]
    box.write(5, 13)
    assert box.news() == []
    assert [sample.value for sample in box.inbox.read("A", {"x"}, 5, 5.0)] == [13]


@pytest.mark.parametrize("whose", ["scaling", "own_scaling"])
def test_what_a_command_writes_is_told_too(whose: str) -> None:
    box = Box(bound(1, "x", 5, "inout", type=FLOAT, **{whose: ScalingConfig(2, 1)}))
    box.news()
    tag = box.tags["x"]
    assert tag.encode is not None
    box.inbox.put([(tag, tag.encode(8.0))], box.time_ms, box.now_s)
    assert box.news() == [(8.0, GOOD, "")]
    assert box.inbox.present(tag, 5) == Sample("x", 8.0, GOOD, 5, Reason.NONE)
    assert box.register(5) == 0x4060  # 3.5


def test_a_write_to_a_tag_that_was_taken_out_meanwhile_does_nothing() -> None:
    box = Box(bound(1, "x", 5))
    old = list(box.tags.values())
    box.configure()
    box.news()
    box.inbox.written(old, 5, 1, 1, 1.0)
    assert box.news() == []

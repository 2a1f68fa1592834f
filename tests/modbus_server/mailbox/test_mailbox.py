"""What the mailbox asks the bus for, and what it takes back."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import orjson

from modbus_server.mailbox.journal import Journal
from modbus_server.mailbox.mailbox import LINK_PERIOD_S, MAX_NARROW, Mailbox
from scada.config import DeviceConfig
from scada.modbus.image import Image
from scada.modbus.limits import Table
from scada.protocols.mailbox import NotGood
from scada.topics import BusTopics
from scada.values import Sample
from storage.config_watch import Change
from tests.support.bound_tags import bound, mailbox_device, plans, shared_image


class NoBus:
    """Stands where a bus would, and notes what is asked of it."""

    def __init__(self) -> None:
        self.filters: set[str] = set()
        self.asked: list[tuple[str, frozenset[str]]] = []
        self.links: dict[str, str | None] = {}
        self.links_told = 0
        self.forgotten: list[object] = []
        self.told: list[Sample] = []
        self.handlers: dict[str, Callable[[str, bytes, bool, bool], None]] = {}
        self.watcher: Callable[[bool], None] = lambda _: None

    def watch(self, watcher: Callable[[bool], None]) -> None:
        self.watcher = watcher

    def subscribe(
        self, filters: Iterable[str], handler: Callable[[str, bytes, bool, bool], None], *, retained: bool = False
    ) -> None:
        new = frozenset(filters)
        self.filters |= new
        self.handlers |= dict.fromkeys(new, handler)
        self.asked.append(("subscribe", new))

    def ask_again(self, filters: Iterable[str]) -> None:
        self.asked.append(("ask again", frozenset(filters)))

    def unsubscribe(self, filters: Iterable[str]) -> None:
        old = frozenset(filters)
        self.filters -= old
        self.asked.append(("unsubscribe", old))

    def publish(self, _: str, samples: Sequence[Sample]) -> None:
        self.told += samples

    def link(self, device: str, _: bool, error: str | None) -> None:
        self.links[device] = error
        self.links_told += 1

    def forget(self, device: str, tags: Iterable[str] | None = None) -> None:
        self.forgotten.append(device if tags is None else (device, sorted(tags)))


class Rig:
    """A mailbox over one image and no bus."""

    def __init__(self, folder: Path) -> None:
        self.bus = NoBus()
        self.image, images = shared_image()
        self.seen = images
        self.mailbox = Mailbox(self.bus, BusTopics(), images, self._use, folder, Journal(folder / "journal"))  # type: ignore[arg-type]
        self.revision = 0

    def _use(self, images: Mapping[int, Image]) -> None:
        """What clients see from now on."""
        self.seen = images

    def put(self, *devices: DeviceConfig, removed: Iterable[int] = ()) -> None:
        self.revision += 1
        change = Change(self.revision, plans(*devices), set(removed))
        self.mailbox.apply(change, self.mailbox.lay_out(change))

    def hear(self, topic: str, document: object, retained: bool = False) -> None:
        kind = topic.split("/")[1]
        handler = next(each for name, each in self.bus.handlers.items() if name.split("/")[1] == kind)
        handler(topic, b"" if document is None else orjson.dumps(document), retained, False)

    def register(self, address: int) -> int:
        return int.from_bytes(self.image.read_registers(Table.HOLDING_REGISTER, address, 1), "big")


def shown(number: int, register: int = 0) -> DeviceConfig:
    tag = bound(number, "level", register or number, "out", fed=True, status=40_000 + number)
    return mailbox_device(number, f"d{number}", tag)


ONLINE = {"online": True, "since": 1, "error": None}


async def test_a_value_that_does_not_fit_is_told_where_an_operator_looks(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.put(shown(1, 30))
    rig.bus.watcher(True)
    rig.hear("tagwire/server/field_server", ONLINE)
    data = "tagwire/data/field_server/d1"
    rig.hear(data, [["level", 7, "good", 1000]])
    assert (rig.register(30), rig.register(40_001), rig.bus.links["d1"]) == (7, 0, None)
    rig.hear(data, [["level", 70_000, "good", 2000], ["level", -1, "good", 2001]])
    assert (rig.register(30), rig.register(40_001)) == (7, 2)
    told = "d1@level: its value does not fit unit 1 holding_register 30, which keeps the last one"
    assert rig.bus.links["d1"] is None
    await asyncio.sleep(LINK_PERIOD_S + 0.2)
    assert rig.bus.links["d1"] == told
    rig.put(shown(2))
    assert rig.bus.links["d1"] == told
    for number in range(101):
        rig.hear(data, [["level", 8 if number % 2 == 0 else 70_000, "good", 3000 + number]])
    await asyncio.sleep(LINK_PERIOD_S + 0.2)
    assert (rig.register(30), rig.register(40_001), rig.bus.links["d1"]) == (8, 0, None)
    assert rig.bus.links_told <= 6


def test_an_error_of_many_faults_is_a_message_that_everybody_takes(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.put(mailbox_device(1, "A", *(bound(number, f"t{number}", 5) for number in range(5000))))
    error = rig.bus.links["A"] or ""
    assert error.startswith("A@t1: holding_register 5 belongs to A@t0 already; ")
    assert error.endswith("; and 4979 more")
    assert len(error) < 3000


def test_a_tag_without_the_status_register_that_its_unit_shows_is_remarked(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    tags = [bound(1, "x", 1, "out", fed=True), bound(2, "y", 2, "out", fed=True, status=9), bound(3, "z", 3)]
    rig.put(mailbox_device(1, "A", *tags, not_good=NotGood.STATUS))
    assert rig.bus.links["A"] == "A@x: has no status register: clients of unit 1 see the last value, good or not"
    rig.put(mailbox_device(1, "A", *tags))
    assert rig.bus.links["A"] is None


def test_the_status_of_a_tag_that_is_gone_does_not_say_good_for_ever(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.put(shown(1), mailbox_device(2, "in", bound(2, "x", 2, status=50)))
    rig.bus.watcher(True)
    rig.hear("tagwire/server/field_server", ONLINE)
    rig.hear("tagwire/data/field_server/d1", [["level", 7, "good", 1000]])
    rig.seen[1].write_registers(Table.HOLDING_REGISTER, 2, b"\0\5")
    assert (rig.register(40_001), rig.register(50)) == (0, 0)
    rig.put(removed=[2])
    assert (rig.register(40_001), rig.register(50)) == (0, 2)
    rig.put(removed=[1])
    assert (rig.register(40_001), rig.register(50)) == (2, 2)


def test_it_listens_to_the_devices_that_are_shown(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.put(mailbox_device(1, "in", bound(1, "x", 1)))
    assert rig.bus.filters == set()
    rig.put(shown(2))
    assert rig.bus.filters == {"tagwire/server/+", "tagwire/data/+/d2", "tagwire/state/+/d2"}
    rig.put(removed=[2])
    assert rig.bus.filters == set()


def test_with_many_devices_it_listens_to_everything(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.put(*map(shown, range(1, MAX_NARROW + 1)))
    assert len(rig.bus.filters) == 2 * MAX_NARROW + 1
    rig.put(shown(1000))
    wide = {"tagwire/server/+", "tagwire/data/+/+", "tagwire/state/+/+"}
    assert rig.bus.filters == wide
    rig.put(shown(1001))
    assert rig.bus.filters == wide
    assert rig.bus.asked[-1] == ("ask again", frozenset({"tagwire/state/+/+"})), "retained states have to come again"
    rig.put(removed=[1000, 1001])
    assert len(rig.bus.filters) == 2 * MAX_NARROW + 1


def test_another_tag_of_a_device_brings_its_state_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.put(shown(2))
    rig.bus.watcher(True)
    rig.hear("tagwire/server/field_server", {"online": True}, True)
    rig.hear("tagwire/state/field_server/d2", {"level": [5, "good", 1]}, True)
    rig.bus.asked.clear()
    tags = [*shown(2).tags, bound(3, "more", 90, "out", fed=True)]
    rig.put(mailbox_device(2, "d2", *tags))
    assert ("ask again", frozenset({"tagwire/state/+/d2"})) in rig.bus.asked
    assert "tagwire/state/+/d2" in rig.bus.filters
    assert (rig.register(2), rig.register(40_002)) == (5, 0)


def test_back_on_the_bus_the_pictures_are_asked_for_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.put(shown(2))
    before = set(rig.bus.filters)
    rig.bus.asked.clear()
    rig.bus.watcher(True)
    pictures = frozenset({"tagwire/state/+/d2", "tagwire/server/+"})
    assert rig.bus.asked == [("ask again", pictures)]
    assert rig.bus.filters == before


def test_an_empty_state_takes_the_values_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.put(shown(2))
    rig.bus.watcher(True)
    rig.hear("tagwire/server/field_server", {"online": True})
    rig.hear("tagwire/data/field_server/d2", [["level", 5, "good", 1]])
    assert rig.register(40_002) == 0
    rig.hear("tagwire/state/field_server/d2", None)
    assert rig.register(40_002) == 2


def test_what_was_told_under_names_that_are_gone_is_withdrawn(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.put(mailbox_device(1, "a", bound(1, "x", 1), bound(2, "y", 2)), mailbox_device(2, "b", bound(3, "x", 3)))
    rig.put(mailbox_device(1, "a", bound(1, "x", 1)), mailbox_device(2, "c", bound(3, "x", 3)))
    assert rig.bus.forgotten == [("a", ["y"]), "b"]
    rig.put(removed=[1])
    assert rig.bus.forgotten[-1] == "a"
    assert rig.mailbox.told("a") is None
    assert rig.mailbox.told("c") == {"x"}


def test_a_register_that_becomes_free_goes_to_who_waited_for_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.put(mailbox_device(1, "a", bound(1, "x", 5)), mailbox_device(2, "b", bound(2, "y", 5)))
    assert rig.bus.links["a"] is None
    assert "belongs to a@x already" in str(rig.bus.links["b"])
    assert [sample.tag for sample in rig.bus.told] == ["x"]
    rig.put(removed=[1])
    assert rig.bus.links["b"] is None
    assert [sample.tag for sample in rig.bus.told] == ["x", "y"]

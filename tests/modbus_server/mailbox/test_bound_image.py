"""What clients are answered where registers are tags: every function, planned or not."""

from collections.abc import Sequence

import pytest

from modbus_server.answers import Answers, Right
from modbus_server.mailbox.bound_image import BoundImage
from modbus_server.mailbox.plans import BoundTag
from scada.modbus.image import Image
from scada.modbus.limits import Table
from scada.modbus.mbap import encode_frame
from scada.modbus.registers import RegisterType
from scada.protocols.mailbox import NotGood
from tests.support.bound_tags import bound, laid_out, mailbox_device, names, shared_image

TAGS = [
    bound(1, "in", 10, type=RegisterType.FLOAT32),
    bound(2, "out", 20, "out", fed=True, type=RegisterType.FLOAT32, status=30),
    bound(3, "coil", 10, table=Table.COIL, type=RegisterType.BOOL),
    bound(4, "lamp", 20, "out", fed=True, table=Table.COIL, type=RegisterType.BOOL),
    bound(5, "input", 20, "out", fed=True, table=Table.INPUT_REGISTER),
    bound(6, "discrete", 20, "out", fed=True, table=Table.DISCRETE_INPUT, type=RegisterType.BOOL),
]


class Bound:
    """Answers over an image with TAGS; every request is asked twice, so that a plan would be used."""

    def __init__(self, not_good: NotGood = NotGood.EXCEPTION) -> None:
        self.image, images = shared_image()
        layout = laid_out(images, mailbox_device(1, "A", *TAGS, not_good=not_good))
        self.tags = {tag.name: tag for tag in layout.tags}
        assert len(self.tags) == len(TAGS)
        self.hidden: set[object] = set()
        self.written: list[str] = []
        self.plain = images
        image = BoundImage(self.image, layout.units[self.image], self.hidden, self._on_written)
        self.bound: dict[int, Image] = dict.fromkeys(range(256), image)
        self.answers = Answers(self.bound, {}, Right.WRITE)

    def _on_written(self, tags: Sequence[BoundTag], address: int, count: int) -> None:
        self.written += names(tags)

    def ask(self, text: str) -> str:
        pdu = bytes.fromhex(text)
        frame = encode_frame(1, 3, pdu)
        again = self.answers.repeat(frame)
        response = self.answers(3, pdu) if again is None else again[7:]
        assert response is not None
        return response.hex(" ")


@pytest.mark.parametrize("times", [1, 2, 3])
def test_every_write_of_a_tag_is_told(times: int) -> None:
    server = Bound()
    for text in ("06 00 0A 00 01", "10 00 08 00 03 06 00 01 00 02 00 03", "16 00 0B 00 00 00 07"):
        for _ in range(times):
            server.ask(text)
    assert server.written == ["A@in"] * 3 * times
    server.written.clear()
    for text in ("05 00 0A FF 00", "0F 00 09 00 02 01 03"):
        for _ in range(times):
            server.ask(text)
    assert server.written == ["A@coil"] * 2 * times
    server.written.clear()
    server.ask("17 00 00 00 01 00 0A 00 01 02 00 05")
    assert server.written == ["A@in"]


def test_other_registers_are_written_without_a_word_and_from_plans() -> None:
    server = Bound()
    for _ in range(3):
        server.ask("10 00 0C 00 01 02 00 01")
        server.ask("05 00 0B FF 00")
    assert server.written == []
    assert server.answers.repeat(encode_frame(1, 3, bytes.fromhex("10 00 0C 00 01 02 00 01")))
    assert not server.answers.repeat(encode_frame(1, 3, bytes.fromhex("10 00 0B 00 01 02 00 01")))


WRITES = [
    "06 00 14 00 01",
    "06 00 1E 00 01",
    "10 00 13 00 02 04 00 01 00 02",
    "10 00 15 00 02 04 00 01 00 02",
    "16 00 14 FF FF 00 00",
    "17 00 00 00 01 00 14 00 01 02 00 05",
    "05 00 14 FF 00",
    "0F 00 10 00 08 01 FF",
]


@pytest.mark.parametrize("text", WRITES)
def test_what_is_shown_is_not_for_clients_to_write(text: str) -> None:
    server = Bound()
    before = bytes(server.image.memory[0:400_000])
    refused = f"{0x80 | int(text[:2], 16):02x} 02"
    assert [server.ask(text), server.ask(text)] == [refused, refused]
    assert server.image.memory[0:400_000] == before
    assert server.written == []


READS = ["03 00 14 00 01", "03 00 00 00 7D", "04 00 14 00 01", "01 00 00 00 20", "02 00 14 00 01"]


@pytest.mark.parametrize("text", READS)
def test_a_tag_that_is_not_good_is_refused_as_long_as_it_is(text: str) -> None:
    server = Bound()
    good = server.ask(text)
    assert good.startswith(text[:2])
    server.hidden |= set(server.tags.values())
    refused = f"{0x80 | int(text[:2], 16):02x} 0b"
    assert [server.ask(text), server.ask(text)] == [refused, refused]
    server.hidden.clear()
    assert [server.ask(text), server.ask(text)] == [good, good]


def test_neither_half_of_function_23_happens_when_the_read_is_refused() -> None:
    server = Bound()
    server.hidden |= set(server.tags.values())
    assert server.ask("17 00 14 00 02 00 0A 00 01 02 00 05") == "97 0b"
    assert server.written == []
    assert server.image.read_registers(Table.HOLDING_REGISTER, 10, 1) == b"\0\0"


def test_neighbours_of_a_tag_that_is_not_good_are_read() -> None:
    server = Bound()
    server.hidden |= set(server.tags.values())
    for text in ("03 00 00 00 14", "03 00 16 00 10", "04 00 15 00 01", "01 00 00 00 14"):
        assert not server.ask(text).startswith(("83", "84", "81"))


@pytest.mark.parametrize("not_good", [NotGood.LAST, NotGood.STATUS])
def test_otherwise_reads_have_no_effects_and_get_plans(not_good: NotGood) -> None:
    server = Bound(not_good)
    frame = encode_frame(1, 3, bytes.fromhex("03 00 14 00 02"))
    server.answers(3, frame[7:])
    assert server.answers.repeat(frame)


@pytest.mark.parametrize("text", ["06 00 0A 00 01", *WRITES])
def test_who_may_only_read_writes_no_tag(text: str) -> None:
    """A client whose role is `read`, and everybody where the server is read only."""
    server = Bound()
    server.answers = Answers(server.bound, {}, Right.READ)
    before = bytes(server.image.memory[0:400_000])
    assert server.ask(text) == f"{0x80 | int(text[:2], 16):02x} 01"
    assert server.image.memory[0:400_000] == before
    assert server.written == []


def test_a_new_configuration_forgets_the_plans() -> None:
    server = Bound()
    text = "10 00 0A 00 01 02 00 01"
    server.answers.use(server.plain)
    server.ask(text)
    assert server.answers.repeat(encode_frame(1, 3, bytes.fromhex(text)))
    server.answers.use(server.bound)
    server.ask(text)
    assert server.written == ["A@in"]

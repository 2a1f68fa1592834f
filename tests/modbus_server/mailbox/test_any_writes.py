"""Whatever clients write, with whatever function: what was told last is what stands there, and good only as a whole."""

import struct
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from modbus_server.answers import Answers, Right
from modbus_server.mailbox.bound_image import BoundImage
from modbus_server.mailbox.inbox import Inbox
from scada.modbus.image import Image
from scada.modbus.limits import Table
from scada.modbus.mbap import encode_frame
from scada.modbus.registers import RegisterType
from scada.values import BadValue, DataType, Quality, Sample
from tests.support.bound_tags import bound, laid_out, mailbox_device, shared_image

BIT = {"type": RegisterType.BOOL, "data_type": DataType.BOOL}
TAGS = [
    bound(1, "two", 2, type=RegisterType.UINT32),
    bound(2, "four", 5, type=RegisterType.INT64),
    bound(3, "one", 9),
    bound(4, "b0", 4, bit=0, **BIT),
    bound(5, "b9", 4, bit=9, **BIT),
    bound(6, "shown", 11, "out", fed=True, type=RegisterType.FLOAT32),
    bound(7, "coil", 3, table=Table.COIL, **BIT),
]
ADDRESS = st.integers(0, 13)
WORD = st.integers(0, 0xFFFF)
WORDS = st.lists(WORD, min_size=1, max_size=8)


def _registers(words: Sequence[int]) -> bytes:
    return struct.pack(f">HB{len(words)}H", len(words), 2 * len(words), *words)


REQUESTS = st.one_of(
    st.builds(lambda at, word: struct.pack(">BHH", 6, at, word), ADDRESS, WORD),
    st.builds(lambda at, words: struct.pack(">BH", 16, at) + _registers(words), ADDRESS, WORDS),
    st.builds(lambda at, both: struct.pack(">BHHH", 22, at, *both), ADDRESS, st.tuples(WORD, WORD)),
    st.builds(
        lambda read, at, words: struct.pack(">BHHH", 23, read, 2, at) + _registers(words), ADDRESS, ADDRESS, WORDS
    ),
    st.builds(lambda at, on: struct.pack(">BHH", 5, at, 0xFF00 * on), ADDRESS, st.booleans()),
    st.builds(lambda at, bits: struct.pack(">BHHBB", 15, at, 8, 1, bits), ADDRESS, st.integers(0, 255)),
)


def touched(pdu: bytes) -> tuple[Table, int, int]:
    """What a request writes: table, first address, count."""
    function, at, third = struct.unpack_from(">BHH", pdu)
    if function == 23:
        return Table.HOLDING_REGISTER, *struct.unpack_from(">HH", pdu, 5)
    count = third if function in (15, 16) else 1
    return Table.COIL if function in (5, 15) else Table.HOLDING_REGISTER, at, count


@given(st.lists(REQUESTS, max_size=30))
def test_what_was_told_last_is_what_stands_there(requests: list[bytes]) -> None:
    image, images = shared_image()
    layout = laid_out(images, mailbox_device(1, "A", *TAGS))
    told: dict[str, Sample] = {}

    def publish(_: str, samples: Sequence[Sample], __: bool) -> None:
        told.update({sample.tag: sample for sample in samples})

    inbox = Inbox(images, publish)
    bound_image = BoundImage(
        image, layout.units[image], set(), lambda tags, at, count: inbox.written(tags, at, count, 1, 1.0)
    )
    everywhere: dict[int, Image] = dict.fromkeys(range(256), bound_image)
    answers = Answers(everywhere, {}, Right.WRITE)
    tags = {tag.name: tag for tag in layout.tags if tag.name != "shown"}
    inbox.apply(tags.values(), 0, 0.0)
    missing = {name: set(range(tag.place.first, tag.place.end)) for name, tag in tags.items()}
    for pdu in requests:
        before = image.read_registers(Table.HOLDING_REGISTER, 0, 30)
        response = answers.repeat(encode_frame(1, 1, pdu)) or answers(1, pdu)
        assert response is not None
        table, first, count = touched(pdu)
        if table is Table.HOLDING_REGISTER and first < 13 and first + count > 11:
            assert response == bytes((0x80 | pdu[0], 2))
            assert image.read_registers(Table.HOLDING_REGISTER, 0, 30) == before
            continue
        for name, tag in tags.items():
            own = set(range(tag.place.first, tag.place.end))
            hit = own & set(range(first, first + count))
            if tag.place.table is table and hit:
                # Whole, when this request or those since it was whole wrote all of it.
                left = (missing[name] or own) - hit
                missing[name] = set() if hit == own else left
    for name, tag in tags.items():
        standing = tag.place.read(image)
        assert not isinstance(standing, BadValue)
        assert told[name].value == standing
        assert (told[name].quality is Quality.GOOD) == (not missing[name]), name

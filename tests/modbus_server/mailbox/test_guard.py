"""What a start knows before it has read the configuration."""

from pathlib import Path

import pytest

from modbus_server.mailbox.guard import guarded_images, save_guard
from scada.errors import DeviceRefused
from scada.modbus.image import Image, Span, UnitMap
from scada.modbus.limits import Table
from scada.protocols.mailbox import NotGood
from tests.support.bound_tags import bound, laid_out, mailbox_device, shared_image

HOLDING = Table.HOLDING_REGISTER
TAGS = (bound(1, "in", 5), bound(2, "out", 10, "out", fed=True, status=11), bound(3, "other", 20, status=21))


def test_shown_registers_are_refused_and_status_registers_say_bad(tmp_path: Path) -> None:
    _, images = shared_image()
    save_guard(tmp_path, laid_out(images, mailbox_device(1, "A", *TAGS, not_good=NotGood.EXCEPTION)).tags)
    seen = guarded_images(tmp_path, images)[7]
    with pytest.raises(DeviceRefused) as refused:
        seen.read_registers(HOLDING, 9, 2)
    assert refused.value.code == 0x0B
    assert seen.read_registers(HOLDING, 11, 1) == b"\0\2"
    assert seen.read_registers(HOLDING, 20, 2) == b"\0\0\0\2"


def refused(image: Image, register: int, words: int = 1) -> int:
    """The code with which a write is refused; it has changed nothing."""
    before = image.read_registers(HOLDING, register, words)
    with pytest.raises(DeviceRefused) as error:
        image.write_registers(HOLDING, register, b"\1" * 2 * words)
    assert image.read_registers(HOLDING, register, words) == before
    return error.value.code


def test_nobody_believes_in_a_write_that_is_overwritten_or_not_told(tmp_path: Path) -> None:
    """What shows a tag was for clients to write until the configuration was read, and what they wrote into a tag was not told."""
    image, images = shared_image()
    save_guard(tmp_path, laid_out(images, mailbox_device(1, "A", *TAGS, bound(4, "set", 30, "out"))).tags)
    seen = guarded_images(tmp_path, images)[7]
    assert [refused(seen, register) for register in (10, 11, 21, 30)] == [2, 2, 2, 2]
    assert [refused(seen, 5), refused(seen, 19, 2), refused(seen, 9, 2)] == [6, 6, 2]
    seen.write_registers(HOLDING, 6, b"\0\7")
    assert image.read_registers(HOLDING, 6, 1) == b"\0\7"
    assert seen.has_effects(HOLDING, 5, 1, writing=True)


def test_a_database_that_is_away_keeps_clients_from_their_registers_for_a_while_only(tmp_path: Path) -> None:
    image, images = shared_image()
    save_guard(tmp_path, laid_out(images, mailbox_device(1, "A", *TAGS)).tags)
    seen = guarded_images(tmp_path, images, busy_s=0.0)[7]
    seen.write_registers(HOLDING, 5, b"\0\7")
    assert image.read_registers(HOLDING, 5, 1) == b"\0\7"
    assert refused(seen, 10) == 2


def test_a_file_of_the_version_before_guards_what_it_says(tmp_path: Path) -> None:
    image, images = shared_image()
    image.write_registers(HOLDING, 10, b"\0\7")
    rows = b'[[1, "holding_register", 10, 1, true, 11], [1, "holding_register", 20, 1, false, 21]]'
    (tmp_path / "mailbox.json").write_bytes(b'{"version": 1, "tags": ' + rows + b"}")
    seen = guarded_images(tmp_path, images)[7]
    with pytest.raises(DeviceRefused):
        seen.read_registers(HOLDING, 10, 1)
    assert seen.read_registers(HOLDING, 20, 2) == b"\0\0\0\2"
    assert [refused(seen, 11), refused(seen, 21)] == [2, 2]
    seen.write_registers(HOLDING, 20, b"\0\7")


def test_without_tags_there_is_no_file(tmp_path: Path) -> None:
    _, images = shared_image()
    save_guard(tmp_path, laid_out(images, mailbox_device(1, "A", *TAGS)).tags)
    assert list(tmp_path.iterdir())
    save_guard(tmp_path, laid_out(images, mailbox_device(1, "A")).tags)
    assert not list(tmp_path.iterdir())
    assert guarded_images(tmp_path, images) is images


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 9, "tags": []}',
        b'{"version": 1, "tags": [[1]]}',
        b'{"version": 2, "tags": [[1, "coil", 1, 1, "odd", null]]}',
    ],
)
def test_a_file_that_is_no_guard_is_told_and_nothing_more(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    _, images = shared_image()
    (tmp_path / "mailbox.json").write_bytes(content)
    assert guarded_images(tmp_path, images) is images
    assert "cannot be used" in caplog.text


def test_registers_that_the_map_has_no_more_are_passed_over(tmp_path: Path) -> None:
    image, images = shared_image()
    save_guard(tmp_path, laid_out(images, mailbox_device(1, "A", *TAGS, not_good=NotGood.EXCEPTION)).tags)
    small = {1: Image(image.memory, UnitMap({HOLDING: (Span(0, 3),)}))}
    assert guarded_images(tmp_path, small) is small
    assert guarded_images(tmp_path, {2: image}) == {2: image}


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, images = shared_image()
    (tmp_path / "file").write_text("")
    save_guard(tmp_path / "file", laid_out(images, mailbox_device(1, "A", *TAGS)).tags)
    assert "cannot be written" in caplog.text

"""Which registers belong to which tag, and what collides."""

from pathlib import Path

import pytest

from modbus_server.mailbox.layout import Index
from modbus_server.mailbox.plans import Role
from scada.errors import ConfigError
from scada.modbus.image import Image, Span, UnitMap
from scada.modbus.limits import Table
from scada.modbus.registers import RegisterType
from scada.protocols.mailbox import MailboxAddress, MailboxTerm, NotGood
from scada.values import DataType
from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate
from tests.support.bound_tags import bound, fault_texts, laid_out, mailbox_device, names, shared_image
from tests.support.mailbox import register_tag

FLOAT = RegisterType.FLOAT32


def test_an_index_finds_what_a_request_touches() -> None:
    index = Index([(10, 12, "b"), (5, 6, "a"), (20, 24, "c")])
    assert list(index.find(0, 100)) == ["a", "b", "c"]
    assert list(index.find(11, 1)) == ["b"]
    assert list(index.find(11, 10)) == ["b", "c"]
    for address, count in ((0, 5), (6, 4), (12, 8), (24, 9)):
        assert not index.find(address, count)


def test_who_comes_first_has_the_registers() -> None:
    _, images = shared_image()
    layout = laid_out(
        images,
        mailbox_device(2, "B", bound(3, "x", 11), bound(4, "y", 12)),
        mailbox_device(1, "A", bound(1, "f", 10, type=FLOAT), bound(2, "g", 11, type=FLOAT)),
    )
    assert names(layout.tags) == ["A@f", "B@y"]
    assert fault_texts(layout) == [
        "A@g: holding_register 11 belongs to A@f already",
        "B@x: holding_register 11 belongs to A@f already",
    ]


def test_a_term_s_choice_is_that_of_all_tags_of_its_unit() -> None:
    _, images = shared_image()
    strict = mailbox_device(
        1,
        "A",
        bound(1, "a", 1, "out", fed=True, unit_id=5),
        bound(2, "b", 2, "out", fed=True),
        terms=[MailboxTerm(5, NotGood.EXCEPTION), MailboxTerm(None, None)],
    )
    other = mailbox_device(
        2,
        "B",
        bound(3, "c", 3, "out", fed=True, unit_id=5),
        bound(4, "d", 4, "out", fed=True),
        not_good=NotGood.STATUS,
        terms=[MailboxTerm(5, NotGood.LAST)],
    )
    layout = laid_out(images, strict, other)
    assert [(tag.name, tag.not_good.value, tag.is_guarded) for tag in layout.tags] == [
        ("a", "exception", True),
        ("b", "last", False),
        ("c", "exception", True),
        ("d", "status", False),
    ]
    assert fault_texts(layout) == ["terms: unit 5 shows exception, as a term of A says, and not last"]


def test_without_a_map_the_unit_id_does_not_matter() -> None:
    _, images = shared_image()
    layout = laid_out(images, mailbox_device(1, "A", bound(1, "x", 5), bound(2, "y", 5, unit_id=2)))
    assert fault_texts(layout) == ["A@y: holding_register 5 belongs to A@x already"]


def test_tables_do_not_collide() -> None:
    _, images = shared_image()
    tags = [
        bound(1, "a", 5),
        bound(2, "b", 5, table=Table.COIL, type=RegisterType.BOOL),
        bound(3, "c", 5, "out", table=Table.INPUT_REGISTER),
        bound(4, "d", 5, "out", table=Table.DISCRETE_INPUT, type=RegisterType.BOOL),
    ]
    assert len(laid_out(images, mailbox_device(1, "A", *tags)).tags) == 4


def test_what_is_outside_the_map_is_left_out() -> None:
    memory = shared_image()[0].memory
    images = {1: Image(memory, UnitMap({Table.HOLDING_REGISTER: (Span(0, 9),)}))}
    tags = [
        bound(1, "a", 9),
        bound(2, "b", 9, type=FLOAT),
        bound(3, "c", 0, unit_id=2),
        bound(4, "d", 0, table=Table.COIL, type=RegisterType.BOOL),
        bound(5, "e", 0, "out", fed=True, status=10),
    ]
    layout = laid_out(images, mailbox_device(1, "A", *tags))
    assert names(layout.tags) == ["A@a"]
    assert fault_texts(layout) == [
        "A@b: unit 1 holding_register 9 is not in the server's map",
        "A@c: unit 2 is not in the server's map",
        "A@d: unit 1 coil 0 is not in the server's map",
        "A@e: unit 1 holding_register 10 is not in the server's map",
    ]


def test_bits_share_a_register_when_they_go_the_same_way() -> None:
    _, images = shared_image()

    def bit(number: int, bit: int, direction: str = "in") -> object:
        return bound(number, f"b{number}", 7, direction, type=RegisterType.BOOL, bit=bit, data_type=DataType.BOOL)

    layout = laid_out(
        images, mailbox_device(1, "A", bit(1, 0), bit(2, 3), bit(3, 3), bit(4, 4, "out"), bound(5, "w", 7))
    )  # type: ignore[arg-type]
    assert names(layout.tags) == ["A@b1", "A@b2"]
    assert [text.split(":")[0] for text in fault_texts(layout)] == ["A@b3", "A@b4", "A@w"]
    assert "not both" in fault_texts(layout)[1]


def test_a_status_register_belongs_to_its_tag() -> None:
    _, images = shared_image()
    tags = [
        bound(1, "a", 1, "out", fed=True, status=50),
        bound(2, "b", 2, "out", fed=True, status=50),
        bound(3, "c", 50),
    ]
    layout = laid_out(images, mailbox_device(1, "A", *tags))
    assert names(layout.tags) == ["A@a"]
    assert "belongs to the status of A@a already" in fault_texts(layout)[1]


def test_who_writes_a_tag_s_registers() -> None:
    _, images = shared_image()
    tags = [
        bound(1, "read", 1),
        bound(2, "both", 2, "inout"),
        bound(3, "setpoint", 3, "out"),
        bound(4, "shown", 4, "out", fed=True),
    ]
    layout = laid_out(images, mailbox_device(1, "A", *tags))
    assert [(tag.role, tag.owner) for tag in layout.tags] == [
        (Role.WRITTEN, "modbus_server"),
        (Role.WRITTEN, "modbus_server"),
        (Role.SETPOINT, "modbus_server"),
        (Role.SHOWN, "field_server"),
    ]


@pytest.mark.parametrize("table", [Table.INPUT_REGISTER, Table.DISCRETE_INPUT])
def test_what_clients_cannot_write_is_for_direction_out_only(table: Table) -> None:
    _, images = shared_image()
    kind = RegisterType.BOOL if table.is_bits else RegisterType.UINT16
    layout = laid_out(images, mailbox_device(1, "A", bound(1, "x", 1, "inout", table=table, type=kind)))
    assert fault_texts(layout) == [f"A@x: table: clients cannot write a {table}: direction out only"]


@pytest.mark.parametrize("direction", ["in", "inout"])
def test_the_configuration_refuses_that_at_once(tmp_path: Path, direction: str) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/db.sqlite")
    migrate(engine)
    tag = register_tag("x", 1, direction, table="input_register")
    with pytest.raises(ConfigError) as refused:
        ConfigStore(engine).create_device({"name": "A", "network": {"modbus_server": {}}, "tags": [tag]})
    assert [fault.field for fault in refused.value.faults] == ["tags.0.bindings.0.address.table"]
    engine.dispose()


def test_a_status_inside_the_value_is_refused_in_the_configuration() -> None:
    assert [fault.field for fault in MailboxAddress(5, type=FLOAT, status=6).faults()] == ["status"]
    assert not list(MailboxAddress(5, type=FLOAT, status=7).faults())
    assert not list(MailboxAddress(5, table=Table.COIL, type=RegisterType.BOOL, status=5).faults())

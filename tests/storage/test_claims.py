"""Two tags of our own Modbus server want the same registers, or two terms say different things of one unit."""

from typing import Any

import pytest
from sqlalchemy import Engine, update

from scada.errors import ConfigError
from storage.config_store import ConfigStore
from storage.engine import writing
from storage.shapes import BINDING
from tests.support.mailbox import register_tag

Document = dict[str, Any]


def device(name: str, *tags: Document, **more: Any) -> Document:
    return {"name": name, "network": {"modbus_server": {}}, "tags": list(tags), **more}


def refused(call: Any, *arguments: Any, **more: Any) -> dict[str, str]:
    """The faults by field."""
    with pytest.raises(ConfigError) as error:
        call(*arguments, **more)
    return {fault.field: fault.message for fault in error.value.faults}


REGISTER = "address.register"


def test_two_tags_of_one_document(store: ConfigStore) -> None:
    tags = [
        register_tag("a", 10, type="float32"),
        register_tag("free", 12),
        register_tag("b", 11),
        register_tag("c", 20, "out", status=10),
    ]
    assert refused(store.create_device, device("A", *tags)) == {
        f"tags.2.bindings.0.{REGISTER}": "unit 1: holding_register 11 belongs to A@a already",
        "tags.3.bindings.0.address.status": "unit 1: holding_register 10 belongs to A@a already",
    }
    assert store.list_devices()[1] == 0


def test_tags_of_two_devices_whichever_way_they_come(store: ConfigStore) -> None:
    store.create_device(device("A", register_tag("a", 10, type="float32"), register_tag("s", 100, "out", status=200)))
    other = store.create_device(device("B", register_tag("b", 12)))
    tag = other["tags"][0]
    binding = tag["bindings"][0]
    message = "unit 1: holding_register 11 belongs to A@a already"
    wanted = {"address": {"register": 11}}
    assert refused(store.patch_binding, binding["id"], wanted) == {REGISTER: message}
    assert refused(store.replace_binding, binding["id"], {**binding, **wanted}) == {REGISTER: message}
    anew = register_tag("b", 9, type="int32")
    at_ten = message.replace("11", "10")
    assert refused(store.patch_tag, tag["id"], anew) == {f"bindings.0.{REGISTER}": at_ten}
    assert refused(store.create_tag, other["id"], register_tag("c", 10)) == {f"bindings.0.{REGISTER}": at_ten}
    assert refused(store.create_tags_bulk, [register_tag("c", 10)], device_id=other["id"], dry_run=True) == {
        f"tags.0.bindings.0.{REGISTER}": at_ten
    }
    assert refused(store.import_config, {"devices": [device("C", register_tag("c", 200))]}) == {
        f"devices.0.tags.0.bindings.0.{REGISTER}": "unit 1: holding_register 200 belongs to the status of A@s already"
    }
    assert refused(store.create_device, device("D", register_tag("d", 0, type="string", length=30, data_type="string")))
    assert [each["address"]["register"] for each in store.get_tag(tag["id"])["bindings"]] == [12]


def test_what_may_stand_beside_each_other(store: ConfigStore) -> None:
    bit = {"type": "bool", "data_type": "bool"}
    store.create_device(device("A", register_tag("b0", 5, bit=0, **bit), register_tag("w", 6, "out")))
    store.create_device(
        device(
            "B",
            register_tag("b1", 5, bit=1, **bit),
            register_tag("coil", 5, table="coil", data_type="bool"),
            register_tag("input", 6, "out", table="input_register"),
            register_tag("other_unit", 5, unit_id=2),
        )
    )
    shown = register_tag("b2", 5, "out", bit=2, **bit)
    found = refused(store.create_device, device("C", shown, register_tag("w", 6, "out")))
    assert "its bits are written by clients or read, not both (A@b0)" in found[f"tags.0.bindings.0.{REGISTER}"]
    assert "belongs to A@w already" in found[f"tags.1.bindings.0.{REGISTER}"]


def test_tags_trade_places_within_one_change(store: ConfigStore) -> None:
    made = store.create_device(device("A", register_tag("a", 1), register_tag("b", 2)))
    store.patch_device(made["id"], {"tags": [register_tag("a", 2), register_tag("b", 1)]})
    document = store.export_config()
    document["devices"].append(device("B", register_tag("c", 2)))
    document["devices"][0]["tags"][0]["bindings"][0]["address"]["register"] = 3
    store.import_config(document)
    # And who leaves makes room.
    document["devices"] = [device("C", register_tag("c", 1), register_tag("d", 2), register_tag("e", 3))]
    store.import_config(document, "replace")


def test_a_device_that_is_not_enabled_has_no_registers_until_it_is(store: ConfigStore) -> None:
    store.create_device(device("A", register_tag("a", 1)))
    spare = store.create_device(device("B", register_tag("b", 1), enabled=False))
    assert refused(store.patch_device, spare["id"], {"enabled": True}) == {
        "enabled": "unit 1: holding_register 1 belongs to A@a already"
    }
    store.patch_device(spare["id"], {"description": "spare"})


def test_a_term_takes_its_tags_to_its_unit(store: ConfigStore) -> None:
    terms = [{"name": "m", "settings": {"modbus_server": {"unit_id": 7}}}, {"name": "n", "settings": {}}]
    made = store.create_device(
        device("A", register_tag("a", 1), register_tag("b", 1) | {"term": "m"}, register_tag("c", 2), terms=terms)
    )
    term, other = (each["id"] for each in made["terms"])
    message = "unit 1: holding_register 1 belongs to A@a already"
    assert refused(store.patch_term, term, {"settings": {"modbus_server": {"unit_id": 1}}}) == {
        "settings.modbus_server.unit_id": message
    }
    assert refused(store.patch_tag, made["tags"][1]["id"], {"term": "n"}) == {"term": message}
    store.patch_term(term, {"settings": {"modbus_server": {"unit_id": 8}}})
    store.patch_term(other, {"settings": {"modbus_server": {"unit_id": 8}}})
    store.patch_tag(made["tags"][2]["id"], {"term": "n"})


def test_what_collides_in_an_old_database_can_be_mended_piece_by_piece(store: ConfigStore, engine: Engine) -> None:
    made = store.create_device(device("A", register_tag("a", 1), register_tag("b", 2)))
    first, second = (tag["bindings"][0]["id"] for tag in made["tags"])
    with writing(engine) as connection:
        connection.execute(update(BINDING).where(BINDING.c.id == second).values(address={"register": 1}))
    store.patch_tag(made["tags"][1]["id"], {"description": "as it was"})
    store.patch_binding(second, {"limits": {"low": 0}})
    store.create_tag(made["id"], register_tag("c", 3))
    assert refused(store.create_tag, made["id"], register_tag("d", 1))
    store.patch_binding(second, {"address": {"register": 4}})
    assert refused(store.patch_binding, first, {"address": {"register": 4}})


def choice(name: str, unit_id: int | None, not_good: str | None) -> Document:
    settings = {"unit_id": unit_id, "not_good": not_good}
    return {"name": name, "settings": {"modbus_server": {key: value for key, value in settings.items() if value}}}


def test_two_terms_say_different_things_of_one_unit(store: ConfigStore) -> None:
    terms = [choice("m", 5, "exception"), choice("n", 5, "exception"), choice("o", 6, "status"), choice("p", 5, None)]
    made = store.create_device(device("A", terms=terms))
    field = "settings.modbus_server.not_good"
    both = "unit 5 cannot show both 'last', by term {}, and 'exception', by term 'm' of device 'A'"
    assert refused(store.create_term, made["id"], choice("q", 5, "last")) == {field: both.format("'q' of device 'A'")}
    assert refused(store.create_device, device("B", terms=[choice("q", 5, "last")])) == {
        f"terms.0.{field}": both.format("'q' of device 'B'")
    }
    assert field in refused(store.patch_term, made["terms"][2]["id"], {"settings": {"modbus_server": {"unit_id": 5}}})
    together = [choice("x", None, "last"), choice("y", 1, "status")]
    assert refused(store.create_device, device("C", terms=together)) == {
        f"terms.1.{field}": "unit 1 cannot show both 'status', by term 'y' of device 'C', and 'last', by term 'x' of device 'C'"
    }
    # Both at once may change.
    store.patch_device(made["id"], {"terms": [choice("m", 5, "last"), choice("n", 5, "last")]})
    spare = store.create_device(device("D", terms=[choice("z", 5, "status")], enabled=False))
    assert set(refused(store.patch_device, spare["id"], {"enabled": True})) == {"enabled"}

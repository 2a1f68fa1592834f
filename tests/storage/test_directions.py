"""What a binding may name depends on its direction and on its device's network: contradictions are refused when they are made."""

from typing import Any

import pytest

from scada.errors import ConfigError, Conflict
from storage.config_store import ConfigStore

Document = dict[str, Any]


def simulated(point: str, direction: str = "in", **more: Any) -> Document:
    return {"protocol": "simulated", "direction": direction, "address": {"point": point}, **more}


def device(model: Document, *bindings: Document) -> Document:
    tags = [{"name": f"t{index}", "bindings": [binding]} for index, binding in enumerate(bindings)]
    return {"name": "sim", "network": {"simulated": model}, "tags": tags}


def faults(error: pytest.ExceptionInfo[ConfigError]) -> list[tuple[str, str]]:
    return [(fault.field, fault.message) for fault in error.value.faults]


def test_every_unknown_point_of_a_simulated_device_is_refused(store: ConfigStore) -> None:
    document = device(
        {"model": "tank"}, simulated("level"), simulated("valve"), simulated("p1"), simulated("pump", "inout")
    )
    with pytest.raises(ConfigError) as error:
        store.create_device(document)
    assert faults(error) == [
        ("tags.1.bindings.0.address.point", "the model tank has level, pump, door, not 'valve'"),
        ("tags.2.bindings.0.address.point", "the model tank has level, pump, door, not 'p1'"),
    ]
    assert store.list_devices()[1] == 0


@pytest.mark.parametrize("direction", ["out", "inout"])
def test_a_point_that_cannot_be_written_is_only_read(store: ConfigStore, direction: str) -> None:
    made = store.create_device(device({"model": "tank"}, simulated("pump", direction)))
    with pytest.raises(ConfigError) as error:
        store.create_tag(made["id"], {"name": "level", "bindings": [simulated("level", direction)]})
    assert [field for field, _ in faults(error)] == ["bindings.0.address.point"]


def test_a_stress_device_has_as_many_points_as_its_network_says(store: ConfigStore) -> None:
    made = store.create_device(device({"model": "stress", "points": 3}, simulated("p1"), simulated("p3")))
    for point in ("p0", "p4", "p03", "p", "P1", "p1 ", "p٣"):
        with pytest.raises(ConfigError) as error:
            store.create_tag(made["id"], {"name": "x", "bindings": [simulated(point)]})
        assert "p1 to p3" in faults(error)[0][1]


def test_a_changed_network_must_still_have_the_points_of_its_tags(store: ConfigStore) -> None:
    made = store.create_device(device({"model": "stress", "points": 3}, simulated("p1"), simulated("p3")))
    for document in ({"model": "stress", "points": 2}, {"model": "tank"}):
        with pytest.raises(Conflict) as error:
            store.put_network(made["id"], "simulated", document)
        assert [field for field, _ in faults(error)] == ["simulated"]
        with pytest.raises(Conflict) as error:
            store.patch_device(made["id"], {"network": {"simulated": document}})
        assert [field for field, _ in faults(error)] == ["network.simulated"]
    assert store.get_device(made["id"]) == made
    store.put_network(made["id"], "simulated", {"model": "stress", "points": 4})
    tags = [{"name": "level", "bindings": [simulated("level")]}]
    changed = store.patch_device(made["id"], {"network": {"simulated": {"model": "tank"}}, "tags": tags})
    assert changed["network"]["simulated"]["model"] == "tank"


def test_a_binding_that_turns_out_loses_its_period(store: ConfigStore) -> None:
    made = store.create_device(device({"model": "tank"}, simulated("pump", "inout", period_ms=500)))
    binding = made["tags"][0]["bindings"][0]["id"]
    with pytest.raises(ConfigError) as error:
        store.patch_binding(binding, {"direction": "out"})
    assert [field for field, _ in faults(error)] == ["period_ms"]
    assert store.patch_binding(binding, {"direction": "out", "period_ms": None})["direction"] == "out"


def test_registers_of_our_own_server_go_out_on_every_table(store: ConfigStore) -> None:
    for table in ("input_register", "discrete_input"):
        address = {"register": 1, "table": table, "type": "bool" if table == "discrete_input" else "uint16"}
        binding = {"protocol": "modbus_server", "direction": "out", "address": address}
        tags = [{"name": "t", "bindings": [binding]}]
        store.create_device({"name": table, "network": {"modbus_server": {}}, "tags": tags})


def modbus(register: int, direction: str = "inout", **options: Any) -> Document:
    return {"protocol": "modbus", "direction": direction, "address": {"register": register}, "options": options or None}


def valve(*tags: Document) -> Document:
    networks = {"modbus": {"host": "127.0.0.1"}, "mqtt": {}}
    return {"name": "valve", "network": networks, "tags": [{"name": "target", "bindings": [TARGET]}, *tags]}


TARGET = modbus(0, feedback="position")
POSITION = {"name": "position", "bindings": [modbus(10, "in")]}
FIELD = "bindings.0.options.feedback"


def refused(error: pytest.ExceptionInfo[ConfigError]) -> tuple[str, str]:
    ((field, message),) = faults(error)
    return field, message.partition(":")[0]


def test_a_feedback_tag_that_can_never_verify_is_refused(store: ConfigStore) -> None:
    """It was found out when the first command came."""
    heard = {"protocol": "mqtt", "direction": "in", "address": {"path": "a"}}
    for wrong, reason in (
        ([], "the device has no tag 'position'"),
        ([{"name": "position"}], "the device does not read 'position' over modbus"),
        ([{"name": "position", "bindings": [modbus(10, "out")]}], "the device does not read 'position' over modbus"),
        ([{"name": "position", "bindings": [heard]}], "the device does not read 'position' over modbus"),
        (
            [{"name": "position", "bindings": [heard, modbus(10, "out")]}],
            "the device does not read 'position' over modbus",
        ),
    ):
        with pytest.raises(ConfigError) as error:
            store.create_device(valve(*wrong))
        assert refused(error) == (f"tags.0.{FIELD}", reason)
    made = store.create_device(valve(POSITION))
    with pytest.raises(ConfigError) as error:
        store.create_tag(made["id"], {"name": "other", "bindings": [modbus(1, feedback="nobody")]})
    assert refused(error) == (FIELD, "the device has no tag 'nobody'")
    other = store.create_tag(made["id"], {"name": "other", "bindings": [modbus(1, feedback="position")]})
    with pytest.raises(ConfigError) as error:
        store.patch_binding(other["bindings"][0]["id"], {"options": {"feedback": "nobody"}})
    assert refused(error)[0] == "options.feedback"
    with pytest.raises(ConfigError) as error:
        store.create_tags_bulk([{"device": "valve", "name": "x", "bindings": [modbus(2, feedback="y")]}])
    assert refused(error)[0] == f"tags.0.{FIELD}"
    bulk = [
        {"device": "valve", "name": "x", "bindings": [modbus(2, feedback="y")]},
        {**POSITION, "device": "valve", "name": "y"},
    ]
    assert len(store.create_tags_bulk(bulk)) == 2
    # Another device's tags verify nothing, and what a document takes away is not there any more.
    second = {**valve(), "name": "second"}
    with pytest.raises(ConfigError):
        store.create_device(second)
    with pytest.raises(ConfigError) as error:
        store.patch_device(made["id"], {"tags": valve()["tags"]})
    assert refused(error) == (f"tags.0.{FIELD}", "the device has no tag 'position'")
    with pytest.raises(ConfigError) as error:
        store.import_config({"devices": [valve()]}, mode="replace")
    assert refused(error)[0] == f"devices.0.tags.0.{FIELD}"
    renamed = [{"name": "target", "bindings": [modbus(0, feedback="place")]}, {**POSITION, "name": "place"}]
    assert store.patch_device(made["id"], {"tags": renamed})["tags"][0]["bindings"][0]["options"]["feedback"] == "place"


def test_many_feedback_tags_are_looked_up_in_pieces(store: ConfigStore) -> None:
    count = 1_000
    made = store.create_device(valve(POSITION))
    read = [{"name": f"in{number}", "bindings": [modbus(number, "in")]} for number in range(count)]
    store.create_tags_bulk(read, device_id=made["id"])
    set_ = [{"name": f"out{n}", "bindings": [modbus(n, feedback=f"in{n}")]} for n in range(count)]
    assert len(store.create_tags_bulk(set_, device_id=made["id"])) == count

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from scada.config import Direction, ScalingConfig
from scada.modbus.registers import Order, RegisterType
from scada.protocols.modbus import ModbusAddress, ModbusNetwork
from scada.protocols.mqtt import MqttNetwork
from scada.values import DataType
from storage.config_reader import ConfigReader
from storage.config_store import ConfigStore
from storage.engine import writing

Document = dict[str, Any]
MODBUS = {"protocol": "modbus", "direction": "out", "address": {"register": 5}}


def test_a_device_is_read_as_typed_records(reader: ConfigReader, boiler: Document) -> None:
    (device,) = reader.load_devices()
    assert (device.id, device.name, device.revision, device.faults) == (boiler["id"], "boiler", 1, ())
    assert device.networks == {
        "mqtt": MqttNetwork("plant/boiler"),
        "modbus": ModbusNetwork(host="127.0.0.1", port=8502),
    }
    (tag,) = device.tags
    assert (tag.name, tag.data_type, tag.deadband) == ("temperature", DataType.FLOAT, 0.0)
    assert [binding.direction for binding in tag.bindings] == [Direction.IN, Direction.OUT]
    assert tag.bindings[1].address == ModbusAddress(10, unit_id=1, type=RegisterType.FLOAT32, order=Order.CDAB)


def test_a_tag_inherits_from_its_item_and_its_term(store: ConfigStore, reader: ConfigReader, boiler: Document) -> None:
    store.create_item({"name": "i", "data_type": "int", "scaling": {"gain": 2}, "limits": {"low": 1}, "deadband": 0.5})
    inherited = {"name": "a", "item": "i", "term": "meter", "bindings": [MODBUS]}
    own = {"name": "b", "item": "i", "data_type": "float", "scaling": {}, "deadband": 0,
           "term": "meter", "bindings": [{**MODBUS, "address": {"register": 5, "unit_id": 9}}]}  # fmt: skip
    store.create_tags_bulk([inherited, own], device_id=boiler["id"])
    a, b = reader.load_devices()[0].tags[1:]
    assert (a.data_type, a.scaling, a.limits and a.limits.low, a.deadband) == (
        DataType.INT,
        ScalingConfig(2.0),
        1.0,
        0.5,
    )
    assert (b.data_type, b.scaling, b.deadband) == (DataType.FLOAT, ScalingConfig(), 0.0)
    assert [tag.bindings[0].address.unit_id for tag in (a, b)] == [7, 9]  # type: ignore[attr-defined]


def test_a_device_without_a_topic_has_its_own(store: ConfigStore, reader: ConfigReader) -> None:
    device = store.create_device({"name": "a", "network": {"mqtt": {}}})
    assert reader.load_devices()[0].networks["mqtt"] == MqttNetwork(f"device/{device['id']}")


def test_only_changed_and_enabled_devices_are_loaded(
    store: ConfigStore, reader: ConfigReader, boiler: Document
) -> None:
    other = store.create_device({"name": "other"})
    seen = reader.revision()
    assert reader.load_devices(seen) == []
    store.create_tag(boiler["id"], {"name": "new"})
    assert [device.name for device in reader.load_devices(seen)] == ["boiler"]
    store.patch_device(other["id"], {"enabled": False})
    assert reader.device_ids() == {boiler["id"]}
    assert [device.name for device in reader.load_devices()] == ["boiler"]
    store.delete_device(boiler["id"])
    assert (reader.device_ids(), reader.revision()) == (set(), seen + 3)


@pytest.mark.parametrize(
    ("statement", "field"),
    [
        ("UPDATE binding SET address = '{\"register\": -1}' WHERE protocol = 'modbus'",
         "tags.temperature.bindings.modbus.address.register"),
        ("UPDATE binding SET address = '7' WHERE protocol = 'modbus'", "tags.temperature.bindings.modbus.address"),
        ("UPDATE binding SET protocol = 'smoke' WHERE protocol = 'modbus'",
         "tags.temperature.bindings.smoke.protocol"),
        ("UPDATE binding SET direction = 'up' WHERE protocol = 'modbus'", "tags.temperature.bindings.modbus.direction"),
        ("UPDATE tag SET data_type = 'complex'", "tags.temperature.data_type"),
        ("UPDATE tag SET scaling = '{\"gain\": 0}'", "tags.temperature.gain"),
        ("UPDATE network SET settings = '{}' WHERE protocol = 'modbus'", "network.modbus.host"),
        ("DELETE FROM network WHERE protocol = 'modbus'", "tags.temperature.bindings.modbus.protocol"),
    ],
)  # fmt: skip
def test_a_bad_row_is_left_out_and_reported(
    store: ConfigStore, reader: ConfigReader, engine: Engine, boiler: Document, statement: str, field: str
) -> None:
    store.create_device(
        {"name": "sound", "network": {"modbus": {"host": "h"}}, "tags": [{"name": "t", "bindings": [MODBUS]}]}
    )
    # Only the first device's rows: one tag, two bindings, two networks.
    limit = 1 if " tag " in statement else 2
    with writing(engine) as connection:
        connection.exec_driver_sql(f"{statement} {'AND' if 'WHERE' in statement else 'WHERE'} id <= {limit}")
    broken, sound = reader.load_devices()
    assert field in [fault.field for fault in broken.faults]
    assert (sound.faults, len(sound.tags), len(sound.tags[0].bindings)) == ((), 1, 1)


def test_broken_json_in_a_row_is_a_fault(reader: ConfigReader, engine: Engine, boiler: Document) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL's own JSON type refuses it")
    with writing(engine) as connection:
        connection.execute(text("UPDATE binding SET address = '{' WHERE protocol = 'mqtt'"))
    (device,) = reader.load_devices()
    assert [len(tag.bindings) for tag in device.tags] == [1]
    assert "no JSON" in device.faults[0].message


def test_equal_parts_are_one_object(store: ConfigStore, reader: ConfigReader) -> None:
    tags = [{"name": "t", "scaling": {"gain": 3}, "bindings": [{**MODBUS, "options": {"on_change": True}}]}]
    for name in ("a", "b"):
        store.create_device({"name": name, "network": {"modbus": {"host": "h"}}, "tags": tags})
    a, b = (device.tags[0] for device in reader.load_devices())
    assert a.scaling is b.scaling
    assert a.bindings[0].address is b.bindings[0].address
    assert a.bindings[0].options is b.bindings[0].options


addresses = st.fixed_dictionaries(
    {"register": st.integers(0, 65_000)},
    optional={
        "unit_id": st.integers(0, 255),
        "type": st.sampled_from(["int16", "uint32", "float64"]),
        "order": st.sampled_from([order.value for order in Order]),
    },
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(addresses, max_size=5))
def test_what_is_stored_is_what_is_read(store: ConfigStore, reader: ConfigReader, drawn: list[Document]) -> None:
    tags = [{"name": f"t{index}", "bindings": [{**MODBUS, "address": each}]} for index, each in enumerate(drawn)]
    device = store.create_device({"name": "d", "network": {"modbus": {"host": "h"}}, "tags": tags})
    (read,) = reader.load_devices()
    for tag, given_address in zip(read.tags, drawn, strict=True):
        address = tag.bindings[0].address
        assert isinstance(address, ModbusAddress)
        assert address.register == given_address["register"]
        assert address.unit_id == given_address.get("unit_id", 1)
        assert address.type == given_address.get("type", "uint16")
        assert address.order == given_address.get("order", "ABCD")
    store.delete_device(device["id"])

"""Two devices on one serial line that say different things of it."""

from typing import Any

import pytest

from scada.errors import ConfigError
from storage.config_store import ConfigStore

Document = dict[str, Any]
PORT = "/dev/ttyUSB0"


def device(name: str, serial_port: str = PORT, *, enabled: bool = True, **line: Any) -> Document:
    network = {"transport": "serial", "serial_port": serial_port, **line}
    return {"name": name, "enabled": enabled, "network": {"modbus": network}}


def refused(call: Any, *arguments: Any, **more: Any) -> dict[str, str]:
    """The faults by field."""
    with pytest.raises(ConfigError) as error:
        call(*arguments, **more)
    return {fault.field: fault.message for fault in error.value.faults}


def test_devices_of_one_line_have_one_setting_of_it(store: ConfigStore) -> None:
    store.create_device(device("A", baudrate=19_200, timeout_s=2))
    store.create_device(device("B", baudrate=19_200, timeout_s=5, parity="N"))
    assert refused(store.create_device, device("C", parity="E")) == {
        "network.modbus.baudrate": f"device 'A' has 19200 for the same line, {PORT}",
        "network.modbus.parity": f"device 'A' has 'N' for the same line, {PORT}",
    }
    other = store.create_device(device("C", "/dev/ttyUSB1", parity="E"))
    assert set(refused(store.patch_network, other["id"], "modbus", {"serial_port": PORT})) == {"baudrate", "parity"}
    wanted = device("C", stopbits=2, baudrate=19_200)
    assert set(refused(store.replace_device, other["id"], wanted)) == {"network.modbus.stopbits"}
    assert set(refused(store.import_config, {"devices": [device("D"), device("E", "/dev/ttyUSB1")]})) == {
        "devices.0.network.modbus.baudrate",
        "devices.1.network.modbus.parity",
    }
    store.patch_network(other["id"], "modbus", {"timeout_s": 3})
    store.put_network(other["id"], "modbus", {"host": "192.0.2.1"})


def test_a_line_is_set_anew_for_all_its_devices_at_once(store: ConfigStore) -> None:
    found = [store.create_device(device(name)) for name in ("A", "B")]
    assert refused(store.patch_network, found[0]["id"], "modbus", {"baudrate": 19_200}) == {
        "baudrate": f"device 'B' has 9600 for the same line, {PORT}"
    }
    store.import_config({"devices": [device(name, baudrate=19_200) for name in ("A", "B")]})
    assert [store.get_network(each["id"], "modbus")["baudrate"] for each in found] == [19_200, 19_200]


def test_two_devices_of_one_import_that_contradict_each_other(store: ConfigStore) -> None:
    document = {"devices": [device("A"), device("B", bytesize=7)]}
    assert refused(store.import_config, document) == {
        "devices.1.network.modbus.bytesize": f"device 'A' has 8 for the same line, {PORT}"
    }


def test_a_disabled_device_uses_no_line(store: ConfigStore) -> None:
    store.create_device(device("A"))
    sleeping = store.create_device(device("B", enabled=False, baudrate=19_200))
    message = f"device 'A' has 9600 for the same line, {PORT}"
    assert refused(store.patch_device, sleeping["id"], {"enabled": True}) == {"enabled": message}
    store.patch_device(sleeping["id"], device("B", baudrate=9600))

"""Which devices share a link."""

from typing import Any

from drivers.registry import load_drivers
from field_server.plans import DevicePlan, compile_device
from scada.config import DeviceConfig, ScanClass
from scada.protocols.modbus import ModbusNetwork
from scada.protocols.simulated import Model, SimulatedNetwork

PERIODS_MS = dict.fromkeys(ScanClass, 1000)


def plan(device_id: int, network: dict[str, Any]) -> DevicePlan:
    found = compile_device(DeviceConfig(device_id, f"d{device_id}", 1, network, ()), load_drivers(), PERIODS_MS)
    assert found is not None
    return found


def test_devices_at_one_endpoint_share_a_link() -> None:
    network = {"modbus": ModbusNetwork(host="192.0.2.1")}
    assert plan(1, network).parts[0].key == plan(2, network).parts[0].key
    assert plan(1, network).parts[0].key != plan(1, {"modbus": ModbusNetwork(host="192.0.2.2")}).parts[0].key


def test_two_simulated_tanks_are_two_tanks() -> None:
    network = {"simulated": SimulatedNetwork(Model.TANK)}
    assert plan(1, network).parts[0].key != plan(2, network).parts[0].key
    assert plan(1, network).parts[0].key == plan(1, network).parts[0].key

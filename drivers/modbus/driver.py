"""Modbus as a field protocol."""

from collections.abc import Hashable

from drivers.contract import Driver
from drivers.modbus.link import ModbusLink, unit_of
from scada.config import ModbusNetwork


def _key(network: ModbusNetwork) -> Hashable:
    return network.endpoint.address


def _open(network: ModbusNetwork) -> ModbusLink:
    return ModbusLink(network.endpoint)


DRIVER = Driver(
    protocol="modbus",
    key=_key,
    open=_open,
    unit=unit_of,
    ceiling=lambda network: network.max_requests_per_s,
    retries=lambda network: network.retries,
)

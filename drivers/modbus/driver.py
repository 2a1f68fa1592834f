"""Modbus as a field protocol."""

from collections.abc import Hashable, Sequence
from dataclasses import replace

from drivers.contract import Driver, Refusal
from drivers.modbus.link import ModbusLink, unit_of
from scada.protocols.modbus import ModbusNetwork

_MEANINGS = {
    1: Refusal.CONFIG,
    2: Refusal.CONFIG,
    3: Refusal.CONFIG,
    5: Refusal.BUSY,
    6: Refusal.BUSY,
    10: Refusal.UNREACHABLE,
    11: Refusal.UNREACHABLE,
}
"""MODBUS Application Protocol V1.1b3, section 7; all other codes are failures of the device."""


def _key(network: ModbusNetwork) -> Hashable:
    return network.endpoint.address


def _open(network: ModbusNetwork) -> ModbusLink:
    return ModbusLink(network.endpoint)


def _merge(networks: Sequence[ModbusNetwork]) -> ModbusNetwork:
    """The most patient of them: a device must not be called silent because of its neighbour's timeout."""
    return replace(
        networks[0],
        timeout_s=max(network.timeout_s for network in networks),
        connect_timeout_s=max(network.connect_timeout_s for network in networks),
        gap_ms=max(network.gap_ms for network in networks),
    )


DRIVER = Driver(
    protocol="modbus",
    key=_key,
    open=_open,
    unit=unit_of,
    ceiling=lambda network: network.max_requests_per_s,
    retries=lambda network: network.retries,
    meaning=lambda code: _MEANINGS.get(code, Refusal.DEVICE),
    merge=_merge,
)

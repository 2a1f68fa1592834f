"""The drivers there are, by protocol."""

from collections.abc import Iterable, Mapping

from drivers.contract import Driver
from scada.registry import PROTOCOLS


def register(drivers: Iterable[Driver]) -> Mapping[str, Driver]:
    """`drivers` by protocol; ValueError for two of one protocol, or one that the configuration does not know."""
    found: dict[str, Driver] = {}
    for driver in drivers:
        if driver.protocol in found:
            raise ValueError(f"two drivers for the protocol {driver.protocol!r}")
        if driver.protocol not in PROTOCOLS:
            raise ValueError(f"a driver for the unknown protocol {driver.protocol!r}")
        found[driver.protocol] = driver
    return found


def load_drivers() -> Mapping[str, Driver]:
    """Every driver of this house."""
    from drivers.modbus.driver import DRIVER as MODBUS
    from drivers.simulated.driver import DRIVER as SIMULATED

    return register((MODBUS, SIMULATED))

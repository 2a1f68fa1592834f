"""One driver for each protocol, and none for a protocol that nobody can configure."""

from dataclasses import replace

import pytest

from drivers._blueprint.driver import DRIVER as BLUEPRINT
from drivers.registry import load_drivers, register
from drivers.simulated.driver import DRIVER as SIMULATED
from scada.registry import PROTOCOLS


def test_two_drivers_of_one_protocol_refuse_to_start() -> None:
    with pytest.raises(ValueError, match="two drivers for the protocol 'simulated'"):
        register((SIMULATED, replace(SIMULATED)))


def test_a_driver_of_an_unknown_protocol_refuses_to_start() -> None:
    with pytest.raises(ValueError, match="unknown protocol 'blueprint'"):
        register((SIMULATED, BLUEPRINT))


def test_every_protocol_of_field_server_has_its_driver() -> None:
    drivers = load_drivers()
    assert set(drivers) == {name for name, protocol in PROTOCOLS.items() if protocol.owner == "field_server"}
    assert all(driver.protocol == name for name, driver in drivers.items())

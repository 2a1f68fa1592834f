"""A value from one protocol on its way to a device of another: a PLC's bit runs a simulated pump."""

import asyncio

from tests.support.bus_watch import BusWatch
from tests.support.fault_device import FaultDevice
from tests.support.field_plant import FieldPlant


async def test_a_plc_runs_a_simulated_pump(plant: FieldPlant, watch: BusWatch) -> None:
    async with FaultDevice() as plc:
        wanted = {
            "name": "wanted",
            "data_type": "bool",
            "bindings": [
                {"protocol": "modbus", "direction": "in", "period_ms": 100, "address": {"register": 0}},
                {"protocol": "simulated", "direction": "out", "address": {"point": "pump"}},
            ],
        }
        address = {"point": "pump"}
        shown = {
            "name": "shown",
            "data_type": "bool",
            "bindings": [{"protocol": "simulated", "direction": "in", "period_ms": 100, "address": address}],
        }
        network = {"modbus": {"host": "127.0.0.1", "port": plc.port}, "simulated": {"model": "tank"}}
        plant.store.create_device({"name": "tank", "network": network, "tags": [wanted, shown]})
        await plant.start()
        await plant.wait(lambda: watch.value("tank", "shown") is False, "the pump is off")
        plc.registers[0] = 1
        await plant.wait(lambda: watch.value("tank", "shown") is True, "the pump runs")
        plc.registers[0] = 7  # no truth value: bad, and not written
        await plant.wait(lambda: watch.quality("tank", "wanted") == "bad", "told as bad")
        await asyncio.sleep(0.3)
        assert watch.value("tank", "shown") is True
        plc.registers[0] = 0
        await plant.wait(lambda: watch.value("tank", "shown") is False, "and stops")

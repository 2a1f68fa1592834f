"""A compiled `out` binding for tests of the gateway's parts."""

from typing import Any

from scada.config import BindingConfig, Direction
from scada.modbus.limits import Table
from scada.outputs import OutPlan
from scada.protocols.modbus import ModbusAddress, ModbusNetwork, ModbusOptions


def out_plan(**options: Any) -> OutPlan:
    """Binding 5: the tag boiler@t as uint16 in holding register 10, on an endpoint where nobody listens."""
    network = ModbusNetwork(host="127.0.0.1", port=1)
    config = BindingConfig(5, "modbus", Direction.OUT, ModbusAddress(10), ModbusOptions(**options), None, None)
    return OutPlan(
        binding_id=5,
        device="boiler",
        tag="t",
        endpoint=network.endpoint,
        network=network,
        unit_id=1,
        table=Table.HOLDING_REGISTER,
        address=10,
        count=1,
        bit=None,
        options=ModbusOptions(**options),
        config=config,
        encode=lambda value: int(value).to_bytes(2, "big"),
    )

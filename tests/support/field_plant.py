"""A field server as a real process between a real broker and devices, configured in its own database; and the ledger that
knows every value that ever stood in a register of a device, and when."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.brokers import Broker, Proxy
from tests.support.bus_watch import BusWatch, Heard
from tests.support.configured_program import ConfiguredProgram
from tests.support.fault_device import FaultDevice
from tests.support.processes import Process

TIMEOUT_S = 0.3
PERIOD_MS = 100
SLOW_MACHINE_S = 1.0
"""What a busy machine may add to any time that is judged."""


def tag(name: str, register: int, direction: str = "in", **more: Any) -> dict[str, Any]:
    """A tag of type uint16. `more` goes to the tag (data_type, limits, scaling, deadband), the binding (period_ms, options),
    or the address (table, type, unit_id, bit ...)."""
    own = {key: more.pop(key) for key in ("data_type", "limits", "scaling", "deadband") if key in more}
    binding = {key: more.pop(key) for key in ("period_ms", "options") if key in more}
    if direction != "out":
        binding.setdefault("period_ms", PERIOD_MS)
    address = {"register": register, "type": "uint16", **more}
    if address.get("table") == "coil":
        del address["type"]
    return {
        "name": name,
        "data_type": "float",
        **own,
        "bindings": [{"protocol": "modbus", "direction": direction, "address": address, **binding}],
    }


class FieldPlant(ConfiguredProgram):
    """A field server and what it polls."""

    program = "field_server"

    def device(self, name: str, port: int, *tags: dict[str, Any], **network: Any) -> dict[str, Any]:
        """Configure a Modbus device on a loopback port, with short timeouts."""
        modbus = {"host": "127.0.0.1", "port": port, "timeout_s": TIMEOUT_S, "connect_timeout_s": 0.5, **network}
        return self.store.create_device({"name": name, "network": {"modbus": modbus}, "tags": list(tags)})

    async def start(self) -> Process:
        """Start the plant's field server and wait until it is ready."""
        self.running = self.process()
        await asyncio.to_thread(self.running.wait_ready)
        return self.running

    async def verdict(self, watch: BusWatch, command_id: str, timeout_s: float = 8.0) -> dict[str, Any]:
        """The last word on a command."""
        await self.wait(
            lambda: watch.final(command_id), f"a verdict on {command_id}: {watch.steps(command_id)}", timeout_s
        )
        final = watch.final(command_id)
        assert final is not None
        return final


@asynccontextmanager
async def build_field_plant(
    folder: Path, broker: Broker | Proxy, **settings: str | int | float | Path
) -> AsyncIterator[FieldPlant]:
    """A plant whose field server is ended with the block."""
    plant = FieldPlant(folder, broker, **settings)
    try:
        yield plant
    finally:
        await plant.close()


class Ledger:
    """Counts in registers of a device every `period_s`, each register in numbers of its own, and remembers when.

    So no value ever stands in two registers, and a sample can be judged: good, with a value that was never there at that
    time, is a lie.
    """

    def __init__(self, device: FaultDevice, registers: Iterable[int], period_s: float = 0.02) -> None:
        self._device = device
        self._registers = tuple(registers)
        self._period_s = period_s
        self._changes: dict[int, list[tuple[int, int]]] = {register: [] for register in self._registers}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Ledger":
        self._count(0)
        self._task = asyncio.create_task(self._run(), name="ledger")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    def lies(self, register: int, samples: Iterable[Heard], age_ms: int = 1500) -> list[Heard]:
        """The good samples whose value did not stand in the register within `age_ms` before their own time."""
        changes = self._changes[register]
        spans: dict[int, list[tuple[int, int]]] = {}
        for (begun, value), (ended, _) in zip(changes, [*changes[1:], (1 << 60, 0)], strict=True):
            spans.setdefault(value, []).append((begun, ended))
        return [
            each
            for each in samples
            if each.quality == "good"
            and not any(
                begun <= each.time_ms + 5 and ended >= each.time_ms - age_ms
                for begun, ended in spans.get(each.value, ())
            )
        ]

    async def _run(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(self._period_s)
            number += 1
            self._count(number)

    def _count(self, number: int) -> None:
        time_ms = time.time_ns() // 1_000_000
        for place, register in enumerate(self._registers):
            step = 60_000 // len(self._registers)
            value = 1 + step * place + number % step
            self._device.registers[register] = value
            self._changes[register].append((time_ms, value))

"""One serial line, three programs of ours that ask at the same time, and devices that we did not write."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scada.modbus.endpoint import Transport
from tests.support.brokers import Broker
from tests.support.bus_watch import BusWatch
from tests.support.field_plant import build_field_plant
from tests.support.field_plant import tag as polled
from tests.support.modbus_peer import Peer
from tests.support.plant import build_plant
from tests.support.plant import tag as written
from tests.support.processes import Process, clean_environment
from tests.support.programs import compile_with_libmodbus
from tests.support.serial_line import PacedLine

pytestmark = pytest.mark.system

REGISTERS = (0, 4, 8, 12)
"""One request each, all of the same length: only the values tell whose a reply is."""
STEP = 10_000
LAST = 25
HERS, HER_VALUE = 90, 64_999
"""What the operator reads."""


@dataclass(frozen=True, slots=True)
class Device:
    """What stands on the far end. `history`: the values that a register had, in order."""

    history: Callable[[int], list[int]]


@asynccontextmanager
async def pymodbus_device(line: PacedLine, _: Path) -> AsyncIterator[Device]:
    async with Peer(Transport.SERIAL, serial_port=line.far) as peer:
        yield Device(peer.history)


@asynccontextmanager
async def libmodbus_device(line: PacedLine, folder: Path) -> AsyncIterator[Device]:
    program = compile_with_libmodbus(Path(__file__).with_name("libmodbus_rtu_server.c"), folder)
    process = Process([program, line.far], clean_environment())

    def history(register: int) -> list[int]:
        values = [0]
        for words in re.findall(r"^\d+:((?: [0-9a-f]{4}){16})", process.output, re.MULTILINE):
            value = int(words.split()[register], 16)
            if value != values[-1]:
                values.append(value)
        return values[1:]

    try:
        await asyncio.to_thread(process.wait_output, "serving")
        yield Device(history)
    finally:
        await asyncio.to_thread(process.close)


@pytest.mark.parametrize(("baudrate", "device"), [(115_200, pymodbus_device), (9_600, libmodbus_device)])
async def test_three_programs_ask_and_every_answer_is_the_right_one(
    tmp_path: Path, mosquitto: Broker, watch: BusWatch, baudrate: int, device: Any
) -> None:
    network = {"transport": "serial", "baudrate": baudrate, "timeout_s": 1, "max_gap": 0}
    with PacedLine(tmp_path, baudrate) as line:
        async with (
            device(line, tmp_path) as far,
            build_field_plant(tmp_path, mosquitto) as field,
            build_plant(tmp_path, mosquitto) as gateway,
        ):
            modbus = {"modbus": {**network, "serial_port": line.near}}
            tags = [polled(f"r{register}", register, period_ms=20) for register in REGISTERS]
            field.store.create_device({"name": "polled", "network": modbus, "tags": tags})
            modbus |= {"mqtt": {"topic": "plant/written"}}
            tags = [written(f"r{register}", register, options={"every_value": True}) for register in REGISTERS]
            field.store.create_device({"name": "written", "network": modbus, "tags": tags})
            await operator("write", line, baudrate, str(HER_VALUE))
            await asyncio.gather(field.start(), gateway.start())
            await field.wait(lambda: all(good(watch, register) for register in REGISTERS), "all is polled", 20)
            reads = asyncio.create_task(reads_of_the_operator(line, baudrate))
            for number in range(1, LAST + 1):
                message = {f"r{register}": value(register, number) for register in REGISTERS}
                await gateway.publish([("plant/written", json.dumps(message))])
                await asyncio.sleep(0.1)
            last = {register: value(register, LAST) for register in REGISTERS}
            await field.wait(
                lambda: {each: (far.history(each) or [0])[-1] for each in REGISTERS} == last, "all is written", 20
            )
            await field.wait(lambda: all(good(watch, each)[-1] == last[each] for each in REGISTERS), "all is seen")
            assert set(await reads) == {f"{HERS} {HER_VALUE}"}
            for register in REGISTERS:
                sent = [value(register, number) for number in range(1, LAST + 1)]
                assert far.history(register) == sent
                assert all(sample.quality == "good" for sample in watch.of("polled", f"r{register}"))
                seen = good(watch, register)
                assert set(seen) <= {0, *sent}
                assert all(sooner <= later for sooner, later in pairwise(seen)), seen
            assert gateway.rejects() == []
            for output in (field.output, gateway.output):
                assert "offline" not in output
                assert "no answer" not in output


def value(register: int, number: int) -> int:
    """No two registers ever have the same."""
    return STEP * (1 + REGISTERS.index(register)) + number


def good(watch: BusWatch, register: int) -> list[Any]:
    return [sample.value for sample in watch.of("polled", f"r{register}") if sample.quality == "good"]


async def operator(action: str, line: PacedLine, baudrate: int, *more: str) -> str:
    """`tagwire registers`: what it prints. It must succeed."""
    where = ("--transport", "serial", "--endpoint", line.near, "--baudrate", str(baudrate))
    command = (sys.executable, "-m", "tagwire", "registers", action, str(HERS), *more, *where)
    process = await asyncio.create_subprocess_exec(
        *command, env=clean_environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(20):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode().strip()


async def reads_of_the_operator(line: PacedLine, baudrate: int) -> list[str]:
    return [await operator("read", line, baudrate) for _ in range(3)]

"""A PLC is polled by the field server, and stands in our registers; both are real programs, and so are broker, PLC and client."""

import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyModbusTCP.client import ModbusClient

from tests.support.brokers import start_nats
from tests.support.mailbox import bus_ear, mailbox_plant, register_tag
from tests.support.processes import CHECKOUT, Process, clean_environment, free_port, start, start_program, wait_until

pytestmark = pytest.mark.system


@contextmanager
def plc(port: int) -> Iterator[Process]:
    """A pymodbus server."""
    with start(
        [sys.executable, CHECKOUT / "bench/peers/pymodbus_server.py", str(port)], clean_environment()
    ) as process:
        process.wait_output(str(port))
        yield process


def test_from_a_plc_to_our_registers_and_back(tmp_path: Path) -> None:
    port = free_port()
    polled = {"protocol": "modbus", "direction": "inout", "period_ms": 50, "address": {"register": 4, "type": "int16"}}
    tags = [register_tag("speed", 500, "out", type="float32", status=502, data_type="float", source=polled)]
    field = ModbusClient("127.0.0.1", port, timeout=5)
    with start_nats(tmp_path) as broker, mailbox_plant(tmp_path, broker) as plant, bus_ear(broker) as ear:
        client = ModbusClient("127.0.0.1", plant.port, timeout=5)

        def shown() -> list[int] | None:
            found: list[int] | None = client.read_holding_registers(500, 3)
            return found

        network = {"host": "127.0.0.1", "port": port, "timeout_s": 0.5, "retries": 0}
        plant.device("plc", tags, modbus=network, modbus_server={"not_good": "status"})
        with plant.server(), start_program("field_server", **plant.settings) as field_server:
            field_server.wait_ready()
            with plc(port):
                assert field.write_single_register(4, 0xFFFE)
                wait_until(lambda: shown() == [0xC000, 0, 0], 20, "-2.0, good")
                took: list[float] = []
                for value in range(20):
                    assert field.write_single_register(4, value)
                    begun = time.monotonic()
                    wait_until(lambda value=value: as_float(shown()) == value, 10, f"{value} is shown")
                    took.append(time.monotonic() - begun)
                assert sorted(took)[10] < 1.0
                ear.publish("tagwire/set/plc", {"tag": "speed", "value": 77, "by": "test"})
                wait_until(lambda: as_float(shown()) == 77, 10, "the command's value")
                assert field.read_holding_registers(4) == [77]
            field.close()
            wait_until(lambda: shown() == [0x429A, 0, 2], 20, "the PLC is gone: the last value, bad")
            with plc(port):
                assert field.write_single_register(4, 5)
                wait_until(lambda: as_float(shown()) == 5 and shown()[2] == 0, 20, "good again")
                field_server.kill()
                wait_until(lambda: (shown() or [0, 0, 0])[2] == 2, 10, "the field server is gone")
        client.close()
        field.close()


def as_float(registers: list[int] | None) -> float | None:
    """Two registers, high word first."""
    return None if registers is None else float(struct.unpack(">f", struct.pack(">HH", *registers[:2]))[0])

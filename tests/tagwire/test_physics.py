"""The demo's machines: steppable with any clock, the same for the same seed, and within what a plant can be."""

import json
import random

import pytest

from scada.modbus.registers import RegisterType, codec
from tagwire.fleet import REGISTERS_PER_DEVICE, device_document, make_fleet
from tagwire.physics import Boiler, Meter, Pump, Tank

FLEET = make_fleet()


def test_the_fleet_is_twenty_devices_of_five_tags_on_registers_of_their_own() -> None:
    assert len(FLEET) == 20
    used: set[int] = set()
    for unit in FLEET:
        tags = device_document(unit, "127.0.0.1", 8502)["tags"]
        assert len(tags) == 5
        for tag in tags:
            address = tag["bindings"][1]["address"]
            width = codec(RegisterType(address["type"])).registers
            taken = set(range(address["register"], address["register"] + width))
            assert unit.register <= min(taken)
            assert max(taken) < unit.register + REGISTERS_PER_DEVICE
            assert not taken & used
            used |= taken


def test_every_reading_of_an_hour_fits_its_register_and_keeps_its_type() -> None:
    for unit in make_fleet(seed=3):
        forms = {
            tag["name"]: codec(RegisterType(tag["bindings"][1]["address"]["type"]))
            for tag in device_document(unit, "127.0.0.1", 8502)["tags"]
        }
        for _ in range(7200):
            for name, value in unit.machine.step(0.5).items():
                forms[name].encode(value)


def test_the_same_seed_gives_the_same_day() -> None:
    def day() -> list[str]:
        return [json.dumps(unit.machine.step(0.5)) for _ in range(50) for unit in make_fleet(seed=5)]

    assert day() == day()


def test_a_tank_stays_between_its_valves_levels() -> None:
    tank = Tank(random.Random(1))
    levels = []
    for _ in range(20_000):
        levels.append(tank.step(1.0)["level"])
    assert 25 < min(levels) < 35
    assert 80 < max(levels) < 90


def test_a_boiler_swings_around_its_setpoint() -> None:
    boiler = Boiler(random.Random(1))
    for _ in range(1000):
        boiler.step(1.0)
    temperatures = [boiler.step(1.0)["temperature"] for _ in range(3000)]
    assert 68 < min(temperatures) < 71
    assert 73 < max(temperatures) < 76


def test_a_pump_runs_two_thirds_of_the_time() -> None:
    pump = Pump(random.Random(1))
    running = [pump.step(1.0)["running"] for _ in range(9000)]
    assert sum(running) / len(running) == pytest.approx(2 / 3, abs=0.01)


def test_energy_only_grows() -> None:
    meter = Meter(random.Random(1))
    energy = [meter.step(10.0)["energy"] for _ in range(1000)]
    assert energy == sorted(energy)
    assert energy[-1] > energy[0]

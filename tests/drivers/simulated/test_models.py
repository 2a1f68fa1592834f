"""The physics, stepped by hand: what each model does, and that how the time is cut changes nothing that matters."""

import random
from collections.abc import Callable

import pytest

from drivers.simulated.boiler import Boiler
from drivers.simulated.machine import Machine
from drivers.simulated.stress import Stress
from drivers.simulated.tank import Tank
from drivers.simulated.train import LENGTH_M, STATIONS, Train
from drivers.simulated.waveforms import Waveforms
from scada.protocols.simulated import POINTS, Model
from scada.values import DataType

MODELS: dict[Model, Callable[[], Machine]] = {
    Model.TANK: Tank,
    Model.BOILER: Boiler,
    Model.TRAIN: Train,
    Model.STRESS: lambda: Stress(10),
    Model.WAVEFORMS: lambda: Waveforms(random.Random(1)),
}
TYPES = {DataType.FLOAT: float, DataType.INT: int, DataType.BOOL: bool, DataType.STRING: str}


def run(machine: Machine, seconds: float, step_s: float = 0.1) -> None:
    for _ in range(round(seconds / step_s)):
        machine.step(step_s)


@pytest.mark.parametrize("model", Model)
def test_every_point_has_its_type_and_stays_in_its_range_whatever_is_commanded(model: Model) -> None:
    rng = random.Random(7)
    machine = MODELS[model]()
    writable = [point for point in POINTS[model] if point.writable]
    for _ in range(3000):
        point = rng.choice(writable)
        if point.low is not None and point.high is not None:
            value = rng.uniform(point.low, point.high)
            values = {point.name: value if point.data_type is DataType.FLOAT else round(value)}
        else:
            values = {point.name: rng.random() < 0.5}
        if not machine.objection(values):
            machine.write(values)
            assert {name: machine.read(name) for name in values} == values
        machine.step(rng.choice((0.01, 0.1, 1, 60, 100_000)))
        for each in POINTS[model]:
            found = machine.read(each.name)
            assert type(found) is TYPES[each.data_type], each.name
            if each.low is not None and each.high is not None:
                assert each.low <= float(found) <= each.high, each.name


def test_a_tank_fills_by_one_and_empties_by_two_per_second_and_stops_at_both_ends() -> None:
    tank = Tank(level=50.0)
    run(tank, 10)
    assert tank.level == 50
    tank.pump = True
    run(tank, 10)
    assert tank.level == pytest.approx(60)
    tank.door = True
    run(tank, 10)
    assert tank.level == pytest.approx(50)
    tank.pump = False
    run(tank, 10)
    assert tank.level == pytest.approx(30)
    run(tank, 60)
    assert tank.level == 0
    tank.pump, tank.door = True, False
    tank.step(1000)
    assert tank.level == 100


def test_a_boiler_heats_builds_up_pressure_and_lets_it_off() -> None:
    boiler = Boiler()
    run(boiler, 60)
    assert (boiler.temperature, boiler.pressure) == (100, 0)
    boiler.heater = True
    run(boiler, 60)
    assert 125 < boiler.temperature < 135
    assert 50 < boiler.pressure < 130
    run(boiler, 1000)
    assert boiler.temperature == pytest.approx(150, abs=0.1)
    assert boiler.pressure == pytest.approx(200, abs=0.5)
    boiler.valve = True
    run(boiler, 30)
    assert boiler.pressure < 1
    boiler.valve = boiler.heater = False
    run(boiler, 1000)
    assert boiler.temperature == pytest.approx(100, abs=0.1)


def test_a_train_goes_to_the_end_of_the_line_and_back() -> None:
    train = Train()
    assert train.station == "Airport"
    train.throttle = 100.0
    run(train, 60)
    assert train.speed == pytest.approx(40, abs=0.1)
    assert train.station == ""
    run(train, 600)
    assert (train.position, train.speed, train.station) == (LENGTH_M, 0, "Lakeside")
    train.direction = -1
    run(train, 30)
    assert train.speed == pytest.approx(-24, abs=0.5)
    train.brake = True
    run(train, 30)
    assert train.speed == 0
    assert train.station in ("", *STATIONS)


def test_a_train_in_motion_opens_no_door_and_keeps_its_direction() -> None:
    train = Train(throttle=50.0)
    assert train.objection({"door": True}) == ""
    run(train, 5)
    assert "rest" in train.objection({"door": True})
    assert "rest" in train.objection({"direction": -1})
    assert train.objection({"door": False, "direction": 1, "throttle": 0.0}) == ""


def test_an_open_door_holds_a_train() -> None:
    train = Train(throttle=100.0, door=True)
    run(train, 60)
    assert train.position == 0


def test_every_stress_point_toggles_once_a_period_and_they_take_turns() -> None:
    stress = Stress(100, toggle_s=2.0)
    names = [f"p{number}" for number in range(1, 101)]
    before = [stress.read(name) for name in names]
    changes = [0] * 100
    for _ in range(200):
        stress.step(0.1)
        now = [stress.read(name) for name in names]
        changed = [a != b for a, b in zip(before, now, strict=True)]
        assert sum(changed) <= 6  # 5 a step, evenly
        changes = [count + one for count, one in zip(changes, changed, strict=True)]
        before = now
    assert set(changes) <= {9, 10, 11}
    stress.write({"running": False})
    run(stress, 10)
    assert [stress.read(name) for name in names] == before


def test_waveforms_have_their_period_and_amplitude() -> None:
    waves = Waveforms(random.Random(1), period_s=10.0, amplitude=5.0)
    sines, ramps, squares = [], [], []
    for _ in range(100):
        waves.step(0.1)
        sines.append(waves.sine)
        ramps.append(waves.ramp)
        squares.append(waves.square)
    assert max(sines) == pytest.approx(5, abs=0.02)
    assert min(sines) == pytest.approx(-5, abs=0.02)
    assert sines[24] == pytest.approx(5, abs=0.02)
    assert ramps[:99] == sorted(ramps[:99])
    assert max(ramps) == pytest.approx(4.95)
    assert sum(value == 5 for value in squares) == pytest.approx(50, abs=1)


def test_a_changed_period_goes_on_from_the_same_phase() -> None:
    waves = Waveforms(random.Random(1), period_s=10.0)
    run(waves, 2.5)
    waves.write({"period_s": 1000.0})
    waves.step(0.1)
    assert waves.sine == pytest.approx(100, abs=0.1)


def test_the_same_seed_walks_the_same_way() -> None:
    def walk(seed: int) -> list[float]:
        waves = Waveforms(random.Random(seed))
        found = []
        for _ in range(100):
            waves.step(1)
            found.append(waves.random_walk)
        return found

    assert walk(3) == walk(3)
    assert walk(3) != walk(4)
    assert len(set(walk(3))) > 50

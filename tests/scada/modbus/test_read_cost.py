"""What a read costs is learned from how long reads took, and disturbances do not move it far."""

import random

import pytest

from scada.modbus.endpoint import Endpoint, Transport
from scada.modbus.read_cost import CostModel, first_guess


def test_the_first_guess_knows_the_line() -> None:
    # Serial at 9,600 baud, 11 bits a character: a register is two characters, a request some twenty and a pause.
    slow = first_guess(Endpoint(Transport.SERIAL, serial_port="x", baudrate=9600, parity="E"))
    assert slow.per_register_s == pytest.approx(2 * 11 / 9600)
    assert 20 * 11 / 9600 <= slow.per_request_s <= 40 * 11 / 9600
    fast = first_guess(Endpoint(host="x"))
    assert fast.per_request_s / fast.per_register_s == pytest.approx(100)
    assert first_guess(Endpoint(host="x", gap_ms=50)).per_request_s == pytest.approx(fast.per_request_s + 0.05)


def test_learns_a_device_that_is_slow_by_the_register() -> None:
    model, dice = CostModel(first_guess(Endpoint(host="x"))), random.Random(1)
    for _ in range(300):
        registers = dice.randint(1, 125)
        model.observe(registers, 2e-3 + 1e-4 * registers + dice.uniform(0, 2e-4))
    assert model.is_measured
    # Twice as much, or half as much, is the same to a plan.
    assert 10 <= model.worth <= 42


def test_requests_all_alike_teach_nothing() -> None:
    model = CostModel(first_guess(Endpoint(host="x")))
    for _ in range(300):
        model.observe(125, 5e-3)
    assert not model.is_measured
    assert model.worth == 100


def test_one_long_pause_of_the_machine_changes_no_plan() -> None:
    model, dice = CostModel(first_guess(Endpoint(host="x"))), random.Random(2)
    for _ in range(300):
        registers = dice.choice([10, 60, 125])
        model.observe(registers, 1e-3 + 1e-5 * registers)
    worth = model.worth
    assert model.is_measured
    for registers in (10, 125):
        model.observe(registers, 3.0)
    for _ in range(40):
        registers = dice.choice([10, 60, 125])
        model.observe(registers, 1e-3 + 1e-5 * registers)
    assert model.worth == worth

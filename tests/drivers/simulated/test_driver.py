"""The simulated driver with a clock of the test's own: time passes only when somebody looks, and never costs too much."""

import pytest

from drivers.contract import Point, Refusal
from drivers.simulated.driver import DRIVER, MAX_POINTS, MAX_STEPS, Code, SimulatedLink
from drivers.simulated.tank import Tank
from scada.errors import ConfigError, DeviceRefused
from scada.protocols.simulated import POINTS, Model, SimulatedAddress, SimulatedNetwork
from scada.values import BadValue, RejectCode, Value


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def connected(network: SimulatedNetwork, clock: Clock) -> SimulatedLink:
    link = SimulatedLink(network, clock)
    await link.connect()
    return link


def point(name: str) -> Point:
    return Point(1, name, 0, None, SimulatedAddress(name), None)


async def read(link: SimulatedLink, *names: str) -> list[Value | BadValue]:
    (request,) = link.plan([point(name) for name in names])
    return list(await link.read(request))


async def write(link: SimulatedLink, **values: Value) -> None:
    await link.write([(point(name), value) for name, value in values.items()])


async def test_a_command_acts_from_when_it_was_given(clock: Clock) -> None:
    link = await connected(SimulatedNetwork(Model.TANK), clock)
    clock.now_s += 10
    await write(link, pump=True)
    clock.now_s += 10
    assert await read(link, "level", "pump") == [pytest.approx(60), True]


async def test_between_two_steps_nothing_changes(clock: Clock) -> None:
    link = await connected(SimulatedNetwork(Model.TANK, step_ms=1000), clock)
    await write(link, pump=True)
    for seconds, level in ((0.9, 50), (0.2, 51), (0.8, 51), (0.2, 52)):
        clock.now_s += seconds
        assert await read(link, "level") == [level]


async def test_the_machine_goes_on_while_nobody_is_connected(clock: Clock) -> None:
    link = await connected(SimulatedNetwork(Model.TANK), clock)
    await write(link, pump=True)
    await link.close()
    clock.now_s += 20
    await link.connect()
    assert await read(link, "level") == [pytest.approx(70)]


@pytest.mark.parametrize("seconds", [1, 1e3, 1e6, 1e9])
async def test_a_long_pause_costs_no_more_steps_than_a_short_one(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    steps: list[float] = []
    once = Tank.step

    def step(self: Tank, dt_s: float) -> None:
        steps.append(dt_s)
        once(self, dt_s)

    monkeypatch.setattr(Tank, "step", step)
    link = await connected(SimulatedNetwork(Model.TANK, step_ms=10), clock)
    clock.now_s += seconds
    await read(link, "level")
    assert len(steps) <= MAX_STEPS
    assert sum(steps) == pytest.approx(seconds, abs=0.02)


@pytest.mark.parametrize("model", Model)
async def test_every_point_of_every_model_is_read(clock: Clock, model: Model) -> None:
    link = await connected(SimulatedNetwork(model), clock)
    names = [each.name for each in POINTS[model]]
    assert not any(isinstance(value, BadValue) for value in await read(link, *names))


async def test_a_stress_device_has_its_points_and_no_more(clock: Clock) -> None:
    link = await connected(SimulatedNetwork(Model.STRESS, points=3), clock)
    values = await read(link, "p0", "p1", "p3", "p4", "p03", "running", "level")
    assert [isinstance(value, BadValue) for value in values] == [True, False, False, True, True, False, True]
    assert isinstance(values[0], BadValue)
    assert values[0].code is RejectCode.BAD_CONFIG


async def test_many_points_are_read_in_requests_of_bounded_size(clock: Clock) -> None:
    link = await connected(SimulatedNetwork(Model.STRESS, points=100_000), clock)
    requests = link.plan([point(f"p{number}") for number in range(1, 2 * MAX_POINTS + 2)])
    assert [len(request.points) for request in requests] == [MAX_POINTS, MAX_POINTS, 1]
    assert requests[0].text == "1000 points, p1 to p1000"


@pytest.mark.parametrize(
    ("model", "values", "code", "meaning"),
    [
        (Model.TANK, {"level": 10.0}, Code.READ_ONLY, Refusal.CONFIG),
        (Model.STRESS, {"p1": True}, Code.READ_ONLY, Refusal.CONFIG),
        (Model.TRAIN, {"throttle": 100.1}, Code.OUT_OF_RANGE, Refusal.DEVICE),
        (Model.TRAIN, {"throttle": -1}, Code.OUT_OF_RANGE, Refusal.DEVICE),
        (Model.WAVEFORMS, {"period_s": 0.0}, Code.OUT_OF_RANGE, Refusal.DEVICE),
        (Model.WAVEFORMS, {"amplitude": 1.0, "period_s": 0.0}, Code.OUT_OF_RANGE, Refusal.DEVICE),
    ],
)
async def test_what_the_device_does_not_do_it_refuses_whole(
    clock: Clock, model: Model, values: dict[str, Value], code: Code, meaning: Refusal
) -> None:
    link = await connected(SimulatedNetwork(model), clock)
    before = await read(link, *values)
    with pytest.raises(DeviceRefused) as refused:
        await write(link, **values)
    assert refused.value.code == code
    assert DRIVER.meaning(refused.value.code) is meaning
    assert await read(link, *values) == before


async def test_a_train_in_motion_refuses_to_open_its_door_for_now(clock: Clock) -> None:
    link = await connected(SimulatedNetwork(Model.TRAIN), clock)
    await write(link, throttle=50, direction=1.0)
    clock.now_s += 5
    with pytest.raises(DeviceRefused) as refused:
        await write(link, door=1, throttle=0)
    assert refused.value.code == Code.NOT_NOW
    assert DRIVER.meaning(refused.value.code) is Refusal.BUSY
    assert await read(link, "throttle", "direction", "door") == [50.0, 1, False]
    await write(link, brake=True, throttle=0)
    clock.now_s += 60
    await write(link, door=1)
    assert await read(link, "door", "speed") == [True, 0.0]


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("throttle", "50", RejectCode.WRONG_TYPE),
        ("throttle", True, RejectCode.WRONG_TYPE),
        ("throttle", float("inf"), RejectCode.OUT_OF_RANGE),
        ("throttle", float("nan"), RejectCode.OUT_OF_RANGE),
        ("throttle", 10**400, RejectCode.OUT_OF_RANGE),
        ("direction", 0.5, RejectCode.NOT_INTEGER),
        ("brake", 2, RejectCode.WRONG_TYPE),
        ("brake", "on", RejectCode.WRONG_TYPE),
    ],
)
async def test_a_value_of_another_kind_is_not_sent(clock: Clock, name: str, value: Value, code: RejectCode) -> None:
    link = await connected(SimulatedNetwork(Model.TRAIN), clock)
    with pytest.raises(BadValue) as bad:
        await write(link, **{name: value})
    assert bad.value.code is code


async def test_an_unknown_point_cannot_be_written(clock: Clock) -> None:
    link = await connected(SimulatedNetwork(Model.TANK), clock)
    with pytest.raises(ConfigError) as error:
        await write(link, pump=True, valve=True)
    assert [fault.field for fault in error.value.faults] == ["valve"]
    assert await read(link, "pump") == [False]


def test_every_device_has_a_link_of_its_own() -> None:
    assert not DRIVER.shared

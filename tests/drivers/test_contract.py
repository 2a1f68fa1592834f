"""What drivers/contract.py promises, of every driver, against something real (tests/support/driver_rigs.py)."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import pytest

from drivers.contract import Link, Point, Request
from scada.errors import ConfigError, DeviceRefused, LinkError, ProtocolError, Side
from scada.values import BadValue, Value
from tests.support.driver_rigs import RIGS, TIMEOUT_S, Control, Rig, open_sockets

# What a wait that ends by itself may take beyond its own deadline on a machine that is busy.
SLACK_S = 5.0
WITH_PEER = [name for name, maker in RIGS.items() if maker.has_peer]
WRONG = [(name, mode) for name, maker in RIGS.items() for mode in maker.wrong]
Outcome = Value | BadValue | DeviceRefused


@pytest.fixture
async def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
async def rig(name: str) -> AsyncIterator[Rig]:
    """A rig; after the test nothing of it is left, and nothing went wrong behind its back."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    tasks, sockets = other_tasks(), open_sockets()
    async with RIGS[name].make() as rig:
        yield rig
        for link in rig.links:
            await link.close()
    for _ in range(200):  # what was told to end has a moment to do so
        if other_tasks() <= tasks and open_sockets() <= sockets:
            break
        await asyncio.sleep(0.01)
    assert other_tasks() - tasks == set()
    assert open_sockets() - sockets == set()
    assert not complaints


def other_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


every_rig = pytest.mark.parametrize("name", RIGS, indirect=True)
with_peer = pytest.mark.parametrize("name", WITH_PEER, indirect=True)


def controlled(rig: Rig) -> Control:
    assert rig.control is not None
    return rig.control


def all_points(rig: Rig) -> list[Point]:
    return [*rig.writable, rig.read_only, rig.unknown, *([rig.silent] if rig.silent else [])]


async def read_all(link: Link, points: Sequence[Point]) -> tuple[dict[str, Outcome], int]:
    """Every point's value or refusal, as a program asks for it: a refused request is divided. And how many were refused."""
    found: dict[str, Outcome] = {}
    todo: list[Request] = list(link.plan(points))
    refusals = 0
    while todo:
        request = todo.pop()
        try:
            values: Sequence[Outcome] = await link.read(request)
        except DeviceRefused as error:
            refusals += 1
            finer = link.refused(request, error.code)
            if finer is not None:
                assert sorted(p.name for each in finer for p in each.points) == sorted(p.name for p in request.points)
                assert len(finer) > 1
                todo += finer
                continue
            values = [error] * len(request.points)
        assert len(values) == len(request.points)
        found |= {point.name: value for point, value in zip(request.points, values, strict=True)}
    return found, refusals


async def values_of(link: Link, points: Sequence[Point]) -> list[Outcome]:
    found, _ = await read_all(link, points)
    return [found[point.name] for point in points]


async def written(link: Link, rig: Rig, values: Sequence[Value]) -> None:
    await link.write(list(zip(rig.writable, values, strict=True)))


async def filled(rig: Rig) -> Link:
    """A link that is connected, to a device that holds `rig.first`."""
    link = await rig.connected()
    await written(link, rig, rig.first)
    return link


async def begun(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task that waits for an answer by now."""
    task = asyncio.create_task(work)
    await asyncio.sleep(TIMEOUT_S / 10)
    return task


def exactly(values: Sequence[Outcome], expected: Sequence[Value]) -> bool:
    """Equal, and of equal types: 1 is not True."""
    return [(type(value), value) for value in values] == [(type(value), value) for value in expected]


async def holds(link: Link, rig: Rig, values: Sequence[Value]) -> bool:
    return exactly(await values_of(link, rig.writable), values)


@every_rig
async def test_a_link_connects_once_and_says_so(rig: Rig) -> None:
    link = rig.open()
    assert not link.connected
    await link.connect()
    assert link.connected
    await link.connect()
    assert link.connected
    await written(link, rig, rig.first)


@every_rig
async def test_a_link_that_is_not_connected_carries_nothing(rig: Rig) -> None:
    link = rig.open()
    (request, *_) = link.plan(rig.writable)
    with pytest.raises(LinkError):
        await link.read(request)
    with pytest.raises(LinkError):
        await written(link, rig, rig.first)


@every_rig
async def test_a_plan_has_every_point_in_exactly_one_request(rig: Rig) -> None:
    link = rig.open()
    assert list(link.plan([])) == []
    points = all_points(rig)
    for order in (points, points[::-1]):
        requests = link.plan(order)
        planned = [point for request in requests for point in request.points]
        assert sorted(map(id, planned)) == sorted(map(id, points))
        assert all(request.text and request.points for request in requests)
        assert all(point.unit == request.unit for request in requests for point in request.points)
    assert len(link.plan(rig.writable)) == 1


@every_rig
async def test_what_was_written_is_read_back(rig: Rig) -> None:
    link = await rig.connected()
    for values in (rig.first, rig.second, rig.first):
        for point, value in zip(rig.writable, values, strict=True):
            link.can_write([point])
            await link.write([(point, value)])
        assert await holds(link, rig, values)


@every_rig
async def test_several_points_are_written_at_once(rig: Rig) -> None:
    link = await rig.connected()
    link.can_write(rig.writable)
    for values in (rig.first, rig.second):
        await written(link, rig, values)
        assert await holds(link, rig, values)


@every_rig
async def test_of_several_points_all_are_written_or_none(rig: Rig) -> None:
    link = await filled(rig)
    changed = list(zip(rig.writable[1:], rig.second[1:], strict=True))
    with pytest.raises(BadValue):
        await link.write([*changed, (rig.writable[0], rig.misfit)])
    with pytest.raises((ConfigError, DeviceRefused)):
        await link.write([*changed, (rig.read_only, 1)])
    if rig.silent is not None:
        with pytest.raises(ConfigError):
            link.can_write([*rig.writable, rig.silent])
        with pytest.raises(ConfigError):
            await link.write([*changed, (rig.silent, 1)])
    assert await holds(link, rig, rig.first)
    assert link.connected


@every_rig
async def test_one_point_takes_no_two_values(rig: Rig) -> None:
    link = await filled(rig)
    point = rig.writable[0]
    with pytest.raises(ConfigError):
        link.can_write([point, point])
    with pytest.raises(ConfigError):
        await link.write([(point, rig.first[0]), (point, rig.second[0])])
    assert await holds(link, rig, rig.first)


@every_rig
async def test_a_point_that_cannot_be_written_is_still_read(rig: Rig) -> None:
    link = await rig.connected()
    (before,) = await values_of(link, [rig.read_only])
    assert not isinstance(before, BadValue | DeviceRefused)
    with pytest.raises((ConfigError, DeviceRefused)):
        await link.write([(rig.read_only, 1)])
    (after,) = await values_of(link, [rig.read_only])
    assert type(after) is type(before)
    assert link.connected


@every_rig
async def test_a_point_that_the_device_does_not_know_spoils_no_other(rig: Rig) -> None:
    link = await filled(rig)
    points = [rig.writable[0], rig.unknown, *rig.writable[1:]]
    found, refusals = await read_all(link, points)
    assert isinstance(found[rig.unknown.name], BadValue | DeviceRefused)
    assert exactly([found[point.name] for point in rig.writable], rig.first)
    found, again = await read_all(link, points)
    assert isinstance(found[rig.unknown.name], BadValue | DeviceRefused)
    assert exactly([found[point.name] for point in rig.writable], rig.first)
    # What was learned is planned around: no request for a good point is refused a second time.
    assert again <= min(refusals, 1)
    if refusals:
        assert link.learned
        assert rig.driver.meaning(2)


@every_rig
async def test_a_link_closes_as_often_as_it_is_told_to(rig: Rig) -> None:
    link = rig.open()
    await link.close()
    await link.connect()
    await written(link, rig, rig.first)
    for _ in range(2):
        await link.close()
        assert not link.connected
    (request, *_) = link.plan(rig.writable)
    with pytest.raises(LinkError):
        await link.read(request)
    await link.connect()
    assert await holds(link, rig, rig.first)


@every_rig
async def test_keys_and_limits_are_those_of_the_network(rig: Rig) -> None:
    driver = rig.driver
    assert driver.key(rig.network) == driver.key(rig.network)
    assert hash(driver.key(rig.network)) == hash(driver.key(rig.network))
    assert driver.key(rig.network) != driver.key(rig.other_network)
    assert driver.ceiling(rig.network) == 0
    assert driver.retries(rig.network) >= 0
    assert driver.unit(rig.writable[0].address) == rig.writable[0].unit


@with_peer
async def test_without_a_peer_nothing_connects(rig: Rig) -> None:
    await controlled(rig).lose()
    link = rig.open()
    for _ in range(2):
        with pytest.raises(LinkError):
            await asyncio.wait_for(link.connect(), SLACK_S)
        assert not link.connected


@with_peer
async def test_a_peer_that_is_lost_is_noticed_and_one_that_comes_back_answers(rig: Rig) -> None:
    control = controlled(rig)
    link = await filled(rig)
    for _ in range(2):
        await control.lose()
        with pytest.raises(LinkError):
            await asyncio.wait_for(read_all(link, rig.writable), TIMEOUT_S + SLACK_S)
        with pytest.raises(LinkError):
            await asyncio.wait_for(written(link, rig, rig.second), TIMEOUT_S + SLACK_S)
        with pytest.raises(LinkError):
            await asyncio.wait_for(link.connect(), SLACK_S)
        assert not link.connected
        await control.come_back()
        await link.connect()
        assert await holds(link, rig, rig.first)


@with_peer
async def test_silence_ends_in_time_and_the_link_goes_on(rig: Rig) -> None:
    control = controlled(rig)
    link = await filled(rig)
    await control.answer("silent")
    (request,) = link.plan(rig.writable)
    with pytest.raises(LinkError):
        await asyncio.wait_for(link.read(request), TIMEOUT_S + SLACK_S)
    with pytest.raises(LinkError):
        await asyncio.wait_for(written(link, rig, rig.first), TIMEOUT_S + SLACK_S)
    await control.answer("good")
    await link.connect()
    assert await holds(link, rig, rig.first)


@with_peer
async def test_a_silent_unit_is_not_its_neighbours_fault(rig: Rig) -> None:
    link = await filled(rig)
    assert rig.silent is not None
    for _ in range(2):
        (request,) = link.plan([rig.silent])
        with pytest.raises(LinkError):
            await link.read(request)
        await link.connect()
        assert await holds(link, rig, rig.first)


@pytest.mark.parametrize(("name", "mode"), WRONG, indirect=["name"])
async def test_a_wrong_answer_is_never_a_value(rig: Rig, mode: str) -> None:
    control = controlled(rig)
    link = await filled(rig)
    await control.answer(mode)
    for _ in range(2):
        (request,) = link.plan(rig.writable)
        (outcome,) = await asyncio.gather(
            asyncio.wait_for(link.read(request), TIMEOUT_S + SLACK_S), return_exceptions=True
        )
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, LinkError | DeviceRefused | ProtocolError)
            assert getattr(outcome, "side", Side.REMOTE) is Side.REMOTE
        else:
            assert len(outcome) == len(request.points)
            assert all(isinstance(value, BadValue) for value in outcome)
        await link.connect()
    await control.answer("good")
    await link.close()
    await link.connect()
    assert await holds(link, rig, rig.first)


@with_peer
@pytest.mark.parametrize("then", ["good", "late"])
async def test_a_read_that_is_cancelled_leaves_the_link_usable(rig: Rig, then: str) -> None:
    """Nor is its answer, where that still comes, taken for the next one's."""
    control = controlled(rig)
    link = await filled(rig)
    (request,) = link.plan(rig.writable)
    for _ in range(3):
        await control.answer("silent")
        waiting = await begun(link.read(request))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await control.answer(then)
        await link.connect()
        assert await holds(link, rig, rig.first)


@with_peer
async def test_a_connection_that_ends_while_nobody_asks_is_noticed(rig: Rig) -> None:
    control = controlled(rig)
    link = await filled(rig)
    await control.lose()
    await control.come_back()
    await asyncio.sleep(TIMEOUT_S / 5)
    await link.connect()
    assert await holds(link, rig, rig.first)


@with_peer
async def test_a_write_that_is_cancelled_leaves_the_link_usable(rig: Rig) -> None:
    control = controlled(rig)
    link = await rig.connected()
    await control.answer("silent")
    waiting = await begun(written(link, rig, rig.second))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await control.answer("good")
    await link.connect()
    await written(link, rig, rig.first)
    assert await holds(link, rig, rig.first)


@with_peer
async def test_closing_ends_a_read_that_waits(rig: Rig) -> None:
    link = await rig.connected()
    await controlled(rig).answer("silent")
    (request,) = link.plan(rig.writable)
    waiting = await begun(link.read(request))
    await link.close()
    with pytest.raises(LinkError):
        await asyncio.wait_for(waiting, TIMEOUT_S + SLACK_S)
    assert not link.connected

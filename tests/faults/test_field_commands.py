"""Commands under fault: what stands on feedback is what became of the device, and nothing is written twice or too late."""

import asyncio
import json
import time
from itertools import pairwise
from pathlib import Path

import pytest

from links.command_desk import BACKLOG_S
from scada.commands import CommandState
from storage.command_store import CommandLog
from tests.support.brokers import start_mosquitto
from tests.support.bus_watch import BusWatch, now_ms, watch_bus
from tests.support.fault_device import FaultDevice
from tests.support.field_plant import FieldPlant, build_field_plant, tag
from tests.support.soak import rounds

VERIFIED = ["accepted", "sent", "acknowledged", "verified"]


def writes(device: FaultDevice, register: int) -> list[int]:
    """What requests wrote into one register, in order, whether or not the device took it."""
    found = []
    for seen in device.seen:
        function, offset = seen.pdu[0], register - int.from_bytes(seen.pdu[1:3], "big")
        values = {6: seen.pdu[3:5], 16: seen.pdu[6:]}.get(function, b"")
        if 0 <= offset < len(values) // 2:
            found.append(int.from_bytes(values[2 * offset : 2 * offset + 2], "big"))
    return found


async def ready(plant: FieldPlant, watch: BusWatch, device: FaultDevice, **network: object) -> None:
    """A boiler with three tags next to each other, one elsewhere, and two bits of a register, all of them read."""
    plant.device(
        "boiler",
        device.port,
        *(tag(name, register, "inout") for name, register in {"a": 0, "b": 1, "c": 2, "far": 90}.items()),
        *(tag(f"bit{bit}", 50, "inout", type="bool", bit=bit, data_type="bool") for bit in (3, 9)),
        tag("setpoint", 60, "out"),
        tag("fixed", 70),
        **network,
    )
    await plant.start()
    await plant.wait(lambda: watch.quality("boiler", "far") == watch.quality("boiler", "bit9") == "good", "read")


async def test_a_command_reaches_the_device_and_comes_back_verified(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    await ready(plant, watch, device)
    device.registers[0] = 3
    await plant.wait(lambda: watch.value("boiler", "a") == 3, "the old value")
    command = watch.set("boiler", "a", 5, by="operator")
    final = await plant.verdict(watch, command)
    assert watch.steps(command) == VERIFIED
    assert (final["old_value"], final["value"], final["by"], final["reason"]) == (3, 5, "operator", "")
    assert writes(device, 0) == [5]
    await plant.wait(lambda: watch.value("boiler", "a") == 5, "the tag shows it")
    await plant.wait(lambda: len(CommandLog(plant.engine).steps(command)) == 4, "stored")
    setpoint = watch.set("boiler", "setpoint", 8)
    assert (await plant.verdict(watch, setpoint))["state"] == "verified"
    await plant.wait(lambda: watch.value("boiler", "setpoint") == 8, "a tag that is never read shows what was set")


async def test_a_device_that_confirms_and_forgets(plant: FieldPlant, watch: BusWatch, device: FaultDevice) -> None:
    """Failed, with what the device shows instead; and nobody is told that the setpoint was reached."""
    await ready(plant, watch, device)
    device.forgetful = True
    device.registers[60] = 33
    commands = [watch.set("boiler", name, 5, expires_ms=now_ms() + 1500) for name in ("a", "setpoint")]
    verdicts = [await plant.verdict(watch, command) for command in commands]
    assert [verdict["state"] for verdict in verdicts] == ["failed", "failed"]
    assert "a shows 0" in verdicts[0]["reason"]
    assert "setpoint shows 33" in verdicts[1]["reason"]
    assert [watch.steps(command)[:3] for command in commands] == [VERIFIED[:3]] * 2
    assert writes(device, 0) == writes(device, 60) == [5]
    await asyncio.sleep(0.3)
    assert watch.of("boiler", "setpoint") == []
    assert watch.value("boiler", "a") == 0


@pytest.mark.parametrize("does_it", [True, False])
async def test_a_write_that_is_never_answered_is_written_once(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice, does_it: bool
) -> None:
    """Reading back decides: whether the device took it, nobody else can know."""
    await ready(plant, watch, device)
    answer = device.answer

    def silent(seen):  # type: ignore[no-untyped-def]
        if seen.pdu[0] != 6:
            return answer(seen)
        if does_it:
            device.execute(seen.pdu)
        device.seen.append(seen)
        return iter(())

    device.answer = silent  # type: ignore[method-assign]  # of this one alone
    final = await plant.verdict(watch, command := watch.set("boiler", "a", 5, expires_ms=now_ms() + 2500))
    if does_it:
        assert watch.steps(command) == VERIFIED
        assert "no answer to the write" in watch.feedback[command][2]["reason"]
    else:
        assert final["state"] == "failed"
        assert "no answer to the write" in final["reason"]
        assert "a shows 0" in final["reason"]
    assert writes(device, 0) == [5]


async def test_a_write_that_is_answered_late(plant: FieldPlant, watch: BusWatch, device: FaultDevice) -> None:
    await ready(plant, watch, device)
    answer = device.answer

    def late(seen):  # type: ignore[no-untyped-def]
        if seen.pdu[0] == 6:
            yield 0.5
        yield from answer(seen)

    device.answer = late  # type: ignore[method-assign]  # of this one alone
    final = await plant.verdict(watch, watch.set("boiler", "a", 5))
    assert final["state"] in ("verified", "failed")
    await asyncio.sleep(1.0)
    assert writes(device, 0) in ([5], []), "the connection may have ended before the device looked at it"
    assert (final["state"] == "verified") == (device.registers[0] == 5)


async def test_a_device_that_refuses(plant: FieldPlant, watch: BusWatch, device: FaultDevice) -> None:
    await ready(plant, watch, device)
    device.missing |= {6, 16}
    final = await plant.verdict(watch, watch.set("boiler", "a", 5))
    assert final["state"] == "failed"
    assert "exception 1" in final["reason"]
    device.missing.clear()
    device.illegal.add(60)
    final = await plant.verdict(watch, watch.set("boiler", "setpoint", 5))
    assert (final["state"], "exception 2" in final["reason"]) == ("failed", True)
    assert watch.quality("boiler", "a") == "good"


async def test_a_command_while_the_device_is_away_expires_and_is_not_done_later(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    await ready(plant, watch, device)
    await device.set_mode("refuse")
    await plant.wait(lambda: watch.quality("boiler", "a") == "bad", "away")
    begun = time.monotonic()
    command = watch.set("boiler", "a", 5, expires_ms=now_ms() + 1000)
    final = await plant.verdict(watch, command)
    assert watch.steps(command) == ["accepted", "expired"]
    assert 0.8 < final["at_s"] - begun < 2.5
    await device.set_mode("good")
    await plant.wait(lambda: watch.quality("boiler", "a") == "good", "back")
    await asyncio.sleep(0.5)
    assert writes(device, 0) == []


async def test_newer_commands_end_older_ones(plant: FieldPlant, watch: BusWatch, device: FaultDevice) -> None:
    """Two clients set one tag again and again: each command has one verdict, and the last one is what the device has."""
    await ready(plant, watch, device)
    await device.set_mode("delay", 0.05)
    with watch_bus(plant.broker.port) as other:
        commands = []
        for number in range(1, 21):
            client = other if number % 2 else watch
            commands.append(client.set("boiler", "a", number, id=f"{number}"))
            await asyncio.sleep(0.02)
        await plant.wait(lambda: all(watch.final(command) for command in commands), "verdicts")
    arrived = sorted(commands, key=lambda command: watch.feedback[command][0]["at_s"])
    verdicts = {command: watch.feedback[command][-1]["state"] for command in arrived}
    assert verdicts[arrived[-1]] == "verified"
    assert device.registers[0] == int(arrived[-1])
    assert set(verdicts.values()) <= {"superseded", "verified"}
    assert "superseded" in verdicts.values()
    for command in commands:
        assert sum(each["final"] for each in watch.feedback[command]) == 1
    sent = [int(command) for command in arrived if "sent" in watch.steps(command)]
    assert writes(device, 0) == sent, "what was superseded before it was sent was not written"


async def test_retained_replayed_and_expired_commands_are_refused(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    await ready(plant, watch, device)
    first = watch.set("boiler", "a", 5)
    assert (await plant.verdict(watch, first))["state"] == "verified"
    watch.set("boiler", "a", 6, id=first)
    expired = watch.set("boiler", "a", 7, expires_ms=now_ms() - 1)
    assert (await plant.verdict(watch, expired))["state"] == "expired"
    watch.set("boiler", "a", 8, id="kept", retain=True)  # live at its first coming, retained at the next connection
    assert (await plant.verdict(watch, "kept"))["state"] == "verified"
    assert plant.running is not None
    await asyncio.to_thread(plant.running.terminate)
    device.registers[0] = 1
    await plant.start()
    await plant.wait(lambda: watch.value("boiler", "a") == 1, "read")
    watch.set("boiler", "a", 9, id=first)
    await plant.wait(lambda: plant.output.count("refused") >= 2, "both are refused")
    await asyncio.sleep(0.3)
    assert writes(device, 0) == [5, 8]
    assert "it is retained" in plant.output
    assert "replayed" in plant.output
    assert sum(each["final"] for each in watch.feedback[first]) == 1


async def test_a_command_that_waited_at_the_broker_is_not_done_long_after(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    """The broker keeps what comes for a session whose program is away; without a time of expiry nobody can say how long."""
    await ready(plant, watch, device)
    assert plant.running is not None
    await asyncio.to_thread(plant.running.kill)
    old = [watch.set("boiler", "a", 5, id="old", expires_ms=None)]
    old += [watch.set("boiler", "far", number, id=f"old{number}", expires_ms=None) for number in range(1, 51)]
    await asyncio.sleep(0.5)
    await plant.start()
    verdicts = [await plant.verdict(watch, command) for command in old]
    assert {verdict["state"] for verdict in verdicts} == {"failed"}
    assert "expires_ms" in verdicts[0]["reason"]
    await plant.wait(lambda: watch.quality("boiler", "a") == "good", "read")
    await asyncio.sleep(1.5)
    assert (await plant.verdict(watch, watch.set("boiler", "b", 6, id="new", expires_ms=None)))["state"] == "verified"
    assert writes(device, 0) == writes(device, 90) == []


async def test_a_group_is_written_in_one_request_or_not_at_all(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    await ready(plant, watch, device)
    command = watch.set("boiler", values={"a": 1, "b": 2, "c": 3})
    assert (await plant.verdict(watch, command))["state"] == "verified"
    assert device.registers[:3] == [1, 2, 3]
    assert [seen.pdu[0] for seen in device.seen if seen.pdu[0] in (6, 16)] == [16]
    for values in ({"a": 7, "far": 7}, {"a": 7, "fixed": 7}, {"a": 7, "b": "x"}, {"a": 7, "bit3": True}):
        final = await plant.verdict(watch, watch.set("boiler", values=values))
        assert final["state"] == "failed", values
        assert "sent" not in [each["state"] for each in watch.feedback[final["id"]]]
    device.illegal.add(1)
    final = await plant.verdict(watch, watch.set("boiler", values={"a": 7, "b": 7, "c": 7}))
    assert (final["state"], "exception 2" in final["reason"]) == ("failed", True)
    assert device.registers[:3] == [1, 2, 3]


async def test_bits_without_function_22(plant: FieldPlant, watch: BusWatch, device: FaultDevice) -> None:
    """Read, changed and written back, and the bits beside it stay as they are."""
    device.missing.add(22)
    device.registers[50] = 0x8001
    await ready(plant, watch, device)
    commands = [watch.set("boiler", f"bit{bit}", True) for bit in (3, 9)]
    assert [(await plant.verdict(watch, command))["state"] for command in commands] == ["verified"] * 2
    assert device.registers[50] == 0x8001 | 1 << 3 | 1 << 9
    assert [seen.pdu[0] for seen in device.seen].count(22) == 1, "learned at once"
    device.missing.clear()


async def test_an_answer_that_was_asked_for_before_the_write_does_not_overwrite_it(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    await ready(plant, watch, device)
    await device.set_mode("delay", 0.15)
    for number in range(1, rounds(5, 30)):
        await asyncio.sleep(0.03 * number)
        begun = len(watch.of("boiler", "a"))
        assert (await plant.verdict(watch, watch.set("boiler", "a", number)))["state"] == "verified"
        await plant.wait(lambda number=number: watch.value("boiler", "a") == number, "the new value")
        assert {each.value for each in watch.of("boiler", "a")[begun:]} == {number}


def beat_times(device: FaultDevice) -> list[float]:
    """When register 2000 was read."""
    return [seen.time_s for seen in device.seen if seen.pdu[:3] == bytes.fromhex("0307d0")]


async def test_a_burst_of_a_thousand_commands(plant: FieldPlant, watch: BusWatch, device: FaultDevice) -> None:
    """A thousand tags at once; what is read meanwhile stays fresh."""
    tags = [tag(f"t{number}", number, "inout", period_ms=1000) for number in range(1000)]
    plant.device("boiler", device.port, *tags, tag("beat", 2000, period_ms=100))
    await plant.start()
    await plant.wait(lambda: watch.quality("boiler", "beat") == watch.quality("boiler", "t999") == "good", "read")
    begun = time.monotonic()
    commands = [watch.set("boiler", f"t{number}", number + 1, expires_ms=now_ms() + 60_000) for number in range(1000)]
    for command in commands:
        await plant.verdict(watch, command, 60)
    print(f"1,000 commands: {time.monotonic() - begun:.2f} s")
    assert {watch.steps(command)[-1] for command in commands} == {"verified"}
    assert device.registers[:1000] == list(range(1, 1001))
    await device.set_mode("delay", 0.02)
    begun = time.monotonic()
    more = [watch.set("boiler", f"t{number}", number, expires_ms=now_ms() + 60_000) for number in range(80)]
    for command in more:
        await plant.verdict(watch, command, 60)
    assert time.monotonic() - begun > 3.0, "the device was busy"
    beats = [begun, *(at for at in beat_times(device) if at > begun)]
    longest_s = max(after - before for before, after in pairwise(beats))
    print(f"longest pause between reads: {longest_s:.2f} s")
    assert longest_s < 2.0
    await plant.wait(
        lambda: sum(len(CommandLog(plant.engine).steps(command)) for command in commands[::100]) == 40, "stored"
    )


async def test_a_feedback_tag_decides(plant: FieldPlant, watch: BusWatch, device: FaultDevice) -> None:
    """A valve that is told where to go and takes its time; then one that jams."""
    plant.device("valve", device.port, tag("target", 0, "inout", options={"feedback": "position"}), tag("position", 10))
    await plant.start()
    await plant.wait(lambda: watch.quality("valve", "position") == "good", "read")
    command = watch.set("valve", "target", 40)
    await plant.wait(lambda: "acknowledged" in watch.steps(command), "written")
    await asyncio.sleep(0.7)
    assert watch.final(command) is None
    device.registers[10] = 40
    assert (await plant.verdict(watch, command))["state"] == "verified"
    final = await plant.verdict(watch, watch.set("valve", "target", 60, expires_ms=now_ms() + 1200))
    assert final["state"] == "failed"
    assert "position shows 40" in final["reason"]


async def test_poison_on_the_command_topics(plant: FieldPlant, watch: BusWatch, device: FaultDevice) -> None:
    """Nothing is written, nothing ends, who can be told is told; and the next good command is carried out."""
    await ready(plant, watch, device)
    await asyncio.sleep(BACKLOG_S)
    poison: list[bytes | str] = [
        b"", b"\xff\xfe", b"5", b"[]", b"[" * 5000, b'{"tag": "a"}', b'{"tag": "a", "value": NaN}', b'{"value": 5}',
        '{"id": "p1", "tag": "a", "value": 100000000000000000000000000}', '{"id": "p2", "tag": "a", "value": 1e999}',
        '{"id": "p3", "tag": "a", "value": null}', '{"id": "p4", "tag": "a", "value": {"deep": [1]}}',
        '{"id": "p5", "tag": "\\ud800", "value": 1}', '{"id": "p6", "tag": "nobody", "value": 1}',
        '{"id": "p7", "tag": "fixed", "value": 1}', '{"id": "p8", "tag": "a", "value": 70000}',
        '{"id": "p9", "tag": "a", "value": 1.5}', '{"id": "p10", "tag": "a", "value": true}',
        '{"id": "p11", "values": {}}', '{"id": "p12", "tag": "a", "value": 1, "expires_ms": "soon"}',
        '{"id": "p13", "tag": "a", "value": 1, "expires_ms": 99999999999999}', '{"id": 7, "tag": "a", "value": 1}',
        '{"id": "p14", "tag": "a", "value": "' + "x" * 300_000 + '"}',
        '{"id": "p15", "values": {"a": 18446744073709551616, "b": -1}}', '{"id": "p16", "tag": "b", "value": 7, "tag": "a"}',
        '{"id": "p17", "values": {"a": 7, "a": 8}}',
    ]  # fmt: skip
    for payload in poison:
        watch.publish("set/boiler", payload)
    for payload in poison[:8]:
        watch.publish("call/boiler", payload)
    for topic in ("set/x/y", "set/", "set/nobody", "call/nobody"):
        watch.publish(topic, json.dumps({"id": topic, "tag": "a", "value": 1}))
    assert (await plant.verdict(watch, watch.set("boiler", "a", 5)))["state"] == "verified"
    assert writes(device, 0) == [5]
    for number in (1, 3, 4, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17):
        assert watch.steps(f"p{number}")[-1:] == ["failed"], number
    assert (await plant.verdict(watch, "set/nobody"))["state"] == "failed"
    assert "Traceback" not in plant.output
    assert plant.running is not None
    assert plant.running.popen.poll() is None


async def test_a_device_taken_out_while_its_command_waits(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    """Its command fails at once and says why, and so does a call."""
    await ready(plant, watch, device)
    await device.set_mode("refuse")
    await plant.wait(lambda: watch.quality("boiler", "a") == "bad", "away")
    command = watch.set("boiler", "a", 5, expires_ms=now_ms() + 60_000)
    watch.publish("call/boiler", json.dumps({"id": "call", "tags": ["a"], "expires_ms": now_ms() + 60_000}))
    await plant.wait(lambda: watch.steps(command) == ["accepted"], "waits")
    plant.store.delete_device(plant.store.list_devices()[0][0]["id"])
    final = await plant.verdict(watch, command, 4)
    assert final["state"] == "failed"
    assert "configuration" in final["reason"]
    assert (await plant.verdict(watch, "call", 4))["state"] == "failed"


async def test_verdicts_of_commands_under_way_when_the_program_ends_are_told(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    await ready(plant, watch, device)
    await device.set_mode("never")
    command = watch.set("boiler", "a", 5, expires_ms=now_ms() + 60_000)
    await plant.wait(lambda: "sent" in watch.steps(command), "on its way")
    assert plant.running is not None
    begun = time.monotonic()
    assert await asyncio.to_thread(plant.running.terminate) == 0
    assert time.monotonic() - begun < 5.0
    final = await plant.verdict(watch, command)
    assert (final["state"], final["reason"]) == ("failed", "the program that carried it out was stopped")
    assert CommandLog(plant.engine).steps(command)[-1].state is CommandState.FAILED


async def test_feedback_outlives_a_broker_that_is_restarted(tmp_path: Path, device: FaultDevice) -> None:
    with start_mosquitto(tmp_path / "broker") as broker, watch_bus(broker.port, session=True) as watch:
        async with build_field_plant(tmp_path, broker) as plant:
            await ready(plant, watch, device)
            await device.set_mode("delay", 0.1)
            command = watch.set("boiler", "a", 5, expires_ms=now_ms() + 60_000)
            await plant.wait(lambda: "accepted" in watch.steps(command), "taken")
            await asyncio.to_thread(broker.restart)
            final = await plant.verdict(watch, command, 15)
            assert final["state"] == "verified"
            assert writes(device, 0) == [5]


async def test_a_command_within_the_deadband_is_verified_by_what_was_read(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    """The sample told last was looked at, which the deadband had held back: failed, although the device had taken it."""
    plant.device("boiler", device.port, tag("t", 0, "inout", deadband=5.0))
    await plant.start()
    await watch_until(plant, watch, "boiler", "t", 0)
    for value in (10, 12):
        verdict = await plant.verdict(watch, watch.set("boiler", "t", value))
        assert verdict["state"] == "verified", verdict
    assert device.registers[0] == 12
    assert watch.value("boiler", "t") == 12, "somebody asked, so it is told"


async def test_a_setpoint_is_still_known_after_a_restart(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    plant.device("boiler", device.port, tag("a", 0), tag("setpoint", 60, "out"))
    server = await plant.start()
    await watch_until(plant, watch, "boiler", "a", 0)
    assert (await plant.verdict(watch, watch.set("boiler", "setpoint", 77)))["state"] == "verified"
    await plant.wait(lambda: watch.states.get("boiler", {}).get("setpoint", [None])[0] == 77, "retained", 5)
    server.kill()
    plant.running = None
    await plant.start()
    await plant.wait(lambda: watch.online("boiler")[-1:] == [True], "online")
    await asyncio.sleep(2.5)
    assert watch.states["boiler"]["setpoint"][:2] == [77, "good"]
    assert watch.states["boiler"]["a"][:2] == [0, "good"]


async def test_one_refused_tag_does_not_spoil_the_answer_of_a_call(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    device.illegal.add(500)
    plant.device("boiler", device.port, tag("a", 0), tag("gone", 500))
    await plant.start()
    await watch_until(plant, watch, "boiler", "a", 0)
    device.registers[0] = 5
    watch.publish("call/boiler", json.dumps({"id": "call-1", "tags": []}))
    await plant.wait(lambda: watch.final("call-1"), "answered")
    answer = watch.final("call-1")
    assert answer is not None
    assert answer["state"] == "verified", answer
    assert answer["values"]["a"][:2] == [5, "good"]
    assert answer["values"]["gone"][1] == "bad"


async def test_a_call_reads_the_place_of_a_setpoint_when_it_is_named(
    plant: FieldPlant, watch: BusWatch, device: FaultDevice
) -> None:
    """It was refused: a tag that is only set was read by nobody."""
    percent = {"scaling": {"gain": 0.1, "offset": 0}, "data_type": "float"}
    setpoints = (tag("sp", 60, "out", **percent), tag("next", 61, "out"), tag("dark", 500, "out"))
    plant.device("boiler", device.port, tag("a", 0), *setpoints)
    await plant.start()
    await watch_until(plant, watch, "boiler", "a", 0)
    device.registers[60:62] = [305, 7]
    before = len(device.seen)

    async def call(name: str, *tags: str) -> dict[str, object]:
        watch.publish("call/boiler", json.dumps({"id": name, "tags": tags}))
        await plant.wait(lambda: watch.final(name), "answered")
        answer = watch.final(name)
        assert answer is not None
        return answer

    answer = await call("1", "sp", "next", "a")
    assert answer["state"] == "verified", answer
    values = answer["values"]
    assert isinstance(values, dict)
    assert {name: row[:2] for name, row in values.items()} == {
        "sp": [30.5, "good"],
        "next": [7, "good"],
        "a": [0, "good"],
    }
    assert (0x03, 60, 2) in [(seen.pdu[0], seen.pdu[2], seen.pdu[4]) for seen in device.seen[before:]], "one request"
    # It is told to nobody else, and a call for the whole device does not ask for it.
    answer = await call("2")
    assert list(answer["values"]) == ["a"]  # type: ignore[call-overload]
    assert watch.value("boiler", "sp") is None
    # Where the device does not let it be read, the answer is what was set last.
    device.illegal.add(500)
    answer = await call("3", "dark")
    assert answer["state"] == "failed", answer
    device.illegal.clear()
    assert (await plant.verdict(watch, watch.set("boiler", "dark", 9)))["state"] == "verified"
    device.registers[500] = 10
    device.illegal.add(500)
    answer = await call("4", "dark")
    assert answer["values"]["dark"][:2] == [9, "good"]  # type: ignore[index]


async def watch_until(plant: FieldPlant, watch: BusWatch, device: str, name: str, value: object) -> None:
    await plant.wait(lambda: watch.value(device, name) == value, f"{device}@{name} is read")

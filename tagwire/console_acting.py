"""The console's commands that ask an owner for something: set and read, with the verdict."""

import asyncio
import contextlib
import time
import uuid

from scada.command_messages import decode_feedback, encode_call, encode_set
from scada.commands import DEFAULT_EXPIRY_MS, MAX_ID_CHARACTERS, Call, Command, CommandState, Step
from scada.errors import ConfigError
from scada.topics import check_name
from scada.values import BadValue
from tagwire.console_reading import show
from tagwire.console_session import ORIGIN, Failed, Session, Usage
from tagwire.console_values import parse_value, printable, shown_time, shown_value

GRACE_S = 1.5
"""An owner ends what it could not do in time by itself; its word gets this much longer."""
OTHERS_S = 0.3
"""Several programs may read a device; after the first answer those of the others get so long."""


async def set_tag(session: Session, rest: str) -> None:
    """Set a tag, and say what becomes of it."""
    name, _, text = rest.partition(" ")
    device, tag = _split(name, "set")
    if not text.strip():
        raise Usage("set needs a value: set Device@Tag VALUE")
    try:
        value = parse_value(text.strip())
    except ValueError as error:
        raise Usage(f"set: {error}") from error
    command = Command(_new_id(), device, {tag: value}, _expiry(), session.user, ORIGIN)
    topic, told = session.topics.set(device), list[Step]()
    async with session.hearing(name) as heard:
        (last,) = await _ask(session, device, command.id, topic, encode_set(command, _now_ms()), told=told)
        if last.state is not CommandState.VERIFIED and not (last.state is CommandState.ACKNOWLEDGED and last.final):
            raise Failed(
                f"{printable(name)} was not set: {last.state}{f', {printable(last.reason)}' if last.reason else ''}"
            )
        # What was measured before it was sent is the old value.
        await heard(next((step.time_ms for step in told if step.state is CommandState.SENT), last.time_ms))


async def read(session: Session, rest: str) -> None:
    """Read tags from the device now."""
    words = rest.split()
    if len(words) != 1:
        raise Usage("read needs a device or a tag: read Device, read Device@Tag")
    device, at, tag = words[0].partition("@")
    if at and tag != "*":
        device, tag = _split(words[0], "read")
    else:
        tag = ""
        _check(device, "read")
    call = Call(_new_id(), device, (tag,) if tag else (), _expiry(), session.user, ORIGIN)
    topic, others_s = session.topics.call(device), 0.0 if tag else OTHERS_S
    answers = await _ask(session, device, call.id, topic, encode_call(call, _now_ms()), others_s=others_s)
    samples = {f"{device}@{sample.tag}": sample for step in answers for sample in step.samples}
    failed = [step for step in answers if step.state is not CommandState.VERIFIED]
    if samples or not failed:
        show(session, samples)
    if failed:
        first = failed[0]
        raise Failed(
            f"{printable(words[0])} was not read{' by all its programs' if samples else ''}: "
            f"{first.state}{f', {printable(first.reason)}' if first.reason else ''}"
        )


async def _ask(
    session: Session,
    device: str,
    number: str,
    topic: str,
    payload: bytes,
    *,
    told: list[Step] | None = None,
    others_s: float = 0.0,
) -> list[Step]:
    """Publish, and follow what becomes of it; the last step, and those that other programs give in the next `others_s`.

    Into `told` goes each step as it comes, and it is printed.
    """
    session.check_online()
    steps: asyncio.Queue[Step] = asyncio.Queue()

    def take(topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        try:
            step = decode_feedback(payload, device)
        except BadValue:
            return  # another program's, and not ours to judge
        if step.id == number and not retained:
            steps.put_nowait(step)

    feedback = [session.topics.feedback(device)]
    session.visit.follow(feedback, take, qos=1)
    seen: set[CommandState] = set()
    begun_ms = time.time_ns() // 1_000_000
    begun = time.perf_counter()
    try:
        # The subscription stands when this is back: no step can be missed.
        await session.visit.round_trip()
        await session.visit.send(topic, payload)
        async with asyncio.timeout(DEFAULT_EXPIRY_MS / 1000 + GRACE_S):
            while True:
                step = await steps.get()
                if step.state in seen:
                    continue  # a repetition of the broker's
                seen.add(step.state)
                if told is not None:
                    told.append(step)
                    session.output.say(_told(step, begun_ms, session.output.terminal))
                if step.final:
                    break
        return [step, *await _others(steps, step, others_s)]
    except TimeoutError as error:
        waited = time.perf_counter() - begun
        if seen:
            raise Failed(f"no verdict within {waited:.1f} s: the last word was {', '.join(seen)}") from error
        raise Failed(
            f"nobody answered within {waited:.1f} s: is {device!r} a device, and does its program run? (links, servers)"
        ) from error
    finally:
        session.visit.unfollow(feedback)


async def _others(steps: "asyncio.Queue[Step]", first: Step, seconds: float) -> list[Step]:
    found: list[Step] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while seconds:
                step = await steps.get()
                if step.final and step != first and step not in found:  # else a repetition of the broker's
                    found.append(step)
    return found


def _told(step: Step, begun_ms: int, terminal: bool) -> str:
    row = [shown_time(step.time_ms, terminal), str(step.state)]
    if terminal:
        row.append(f"+{max(0, step.time_ms - begun_ms)} ms")
        text = f"{row[0]}  {row[1]:12}  {row[2]:>9}"
        if step.final and step.state is CommandState.VERIFIED:
            text += f"  {shown_value(step.value)}" + (
                f" (was {shown_value(step.old_value)})" if step.old_value is not None else ""
            )
        return text + (f"  {printable(step.reason)}" if step.reason else "")
    return "\t".join([*row, shown_value(step.value), printable(step.reason)])


def _split(name: str, command: str) -> tuple[str, str]:
    device, at, tag = name.partition("@")
    if not at or not device or not tag:
        raise Usage(f"{command} needs the full name of a tag: Device@Tag")
    _check(device, command)
    _check(tag, command)
    return device, tag


def _check(name: str, command: str) -> None:
    try:
        check_name(name)
    except ConfigError as error:
        raise Usage(f"{command}: {name!r}: {error}") from error


def _new_id() -> str:
    return f"console-{uuid.uuid4().hex}"[:MAX_ID_CHARACTERS]


def _expiry() -> int:
    return _now_ms() + DEFAULT_EXPIRY_MS


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

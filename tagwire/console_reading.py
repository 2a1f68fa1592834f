"""The console's commands that look: list, get, sub, unsub, wait, links, servers, plan."""

from collections.abc import Mapping
from typing import Any

from scada.bus_messages import decode_link
from scada.payload import decode_payload
from scada.values import BadValue, Sample
from tagwire.console_session import Failed, Session, Usage
from tagwire.console_values import Pattern, cells, line, printable, shown_time, shown_value, widths_of

MOST = 200
"""Lines of `list` without --all."""
_MAX_WAIT_S = 86_400.0
_PLAN_NUMBERS = ("tags", "requests_per_s", "single_requests_per_s", "load", "ceiling")


def show(session: Session, found: Mapping[str, Sample]) -> None:
    """A line for each tag."""
    terminal = session.output.terminal
    rows = [cells(name, sample, terminal) for name, sample in found.items()]
    widths = widths_of(rows) if terminal and rows else None
    session.output.say(*(line(row, widths) for row in rows))


async def list_tags(session: Session, rest: str) -> None:
    """Tags with value, quality and time; all of them, or those that match."""
    words = rest.split()
    everything = bool({"-a", "--all"}.intersection(words))
    words = [word for word in words if word not in ("-a", "--all")]
    if len(words) > 1:
        raise Usage("list takes one pattern")
    pattern = Pattern(words[0] if words else "*")
    samples = await session.samples([pattern])
    names = pattern.find(samples)
    if words and not names:
        raise Failed(f"no tag matches {words[0]!r} ({len(samples):,} tags are known)")
    shown = names if everything else names[:MOST]
    show(session, {name: samples[name] for name in shown})
    if len(shown) < len(names):
        left = len(names) - len(shown)
        session.output.complain(
            f"... {left:,} more, {len(names):,} in all: list PATTERN, or list --all {rest}".rstrip()
        )
    elif not names:
        session.output.complain("no program has published a tag yet (servers, links)")


async def get(session: Session, rest: str) -> None:
    """Tags by name or glob."""
    patterns = [Pattern(word, exact=True) for word in rest.split()]
    if not patterns:
        raise Usage("get needs a name: Device@Tag, or with * and ?")
    samples = await session.samples(patterns)
    missing = []
    for pattern in patterns:
        names = pattern.find(samples)
        if not names:
            missing.append(pattern.text)
        show(session, {name: samples[name] for name in names})
    if missing:
        hint = "" if all("@" in text for text in missing) else ": write Device@Tag"
        raise Failed(f"no tag {', '.join(missing)}{hint}")


async def sub(session: Session, rest: str) -> None:
    """Print changes of tags that match."""
    words = rest.split()
    if not words:
        if not session.patterns:
            session.output.complain("nothing is subscribed to; sub PATTERN: a part of the name, or all with * and ?")
        session.output.say(*session.patterns)
        return
    session.check_online()
    for word in words:
        if word not in session.patterns:
            session.listen(Pattern(word), session.print_change)
            session.patterns.append(word)
    await session.visit.round_trip()  # from now on nothing is missed


async def unsub(session: Session, rest: str) -> None:
    """And no longer."""
    words = rest.split()
    if not words:
        raise Usage("unsub needs a pattern, as it was given to sub; * is all")
    chosen = list(session.patterns) if words == ["*"] and "*" not in session.patterns else words
    for word in chosen:
        if word not in session.patterns:
            raise Failed(f"{word!r} is not subscribed to: {', '.join(session.patterns) or 'nothing is'}")
        session.patterns.remove(word)
        session.unlisten(Pattern(word), session.print_change)


async def wait(session: Session, rest: str) -> None:
    """Print what is subscribed to for some seconds."""
    try:
        seconds = float(rest)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MAX_WAIT_S:
        raise Usage("wait needs seconds")
    await session.wait(seconds)


async def links(session: Session, rest: str) -> None:
    """Whether programs reach their devices."""
    pattern = Pattern(rest or "*")
    session.check_online()
    messages = await session.visit.retained([session.topics.link("+", "+")])
    rows: list[tuple[str, ...]] = []
    for topic, payload in sorted(messages.items()):
        parts = session.topics.split(topic)
        if parts is None or not pattern.find((parts.device,)):
            continue
        try:
            report = decode_link(payload)
        except BadValue as error:
            rows.append((printable(parts.device), parts.owner, "not understood", "", str(error)))
            continue
        since = shown_time(report.since_ms, session.output.terminal)
        state = "online" if report.online else "offline"
        rows.append((printable(parts.device), parts.owner, state, since, printable(report.error or "")))
    _table(session, rows, "no program has told of a device" if not rest else f"no device matches {rest!r}", bool(rest))


async def servers(session: Session, rest: str) -> None:
    """Which programs are there."""
    if rest:
        raise Usage("servers takes nothing")
    session.check_online()
    messages = await session.visit.retained([session.topics.server("+")])
    rows: list[tuple[str, ...]] = []
    for topic, payload in sorted(messages.items()):
        parts = session.topics.split(topic)
        document = document_of(payload)
        since = document.get("since")
        started = shown_time(since, session.output.terminal) if type(since) is int else ""
        rows.append(
            (parts.owner if parts else topic, "online" if document.get("online") is True else "offline", started)
        )
    _table(session, rows, "no program has said that it is there", False)


async def plan(session: Session, rest: str) -> None:
    """How a device is read."""
    if len(rest.split()) != 1 or not {"*", "?", "+", "#", "/"}.isdisjoint(rest):
        raise Usage("plan needs the name of a device")
    session.check_online()
    messages = await session.visit.retained([session.topics.plan("+", rest)])
    if not messages:
        raise Failed(f"nobody has told how {rest!r} is read (only field_server reads devices)")
    for topic, payload in sorted(messages.items()):
        document = document_of(payload)
        parts = session.topics.split(topic)
        told = (f"{name} {shown_value(document[name])}" for name in _PLAN_NUMBERS if name in document)
        session.output.say(f"{parts.owner if parts else topic}: {', '.join(told)}")
        requests = [each for each in document.get("requests", []) if isinstance(each, dict)]
        columns = ("text", "unit", "tags", "period_ms", "duration_ms")
        rows = [tuple(shown_value(each.get(column)) for column in columns) for each in requests]
        if rows:
            _table(session, [columns, *rows], "", False)
        session.output.say(*(f"learned: {printable(str(each))}" for each in document.get("learned", [])))


def document_of(payload: bytes) -> dict[str, Any]:
    """The object in a message; an empty one when there is none."""
    try:
        document = decode_payload(payload, max_bytes=16 * 1024 * 1024)
    except BadValue:
        return {}
    return document if isinstance(document, dict) else {}


def _table(session: Session, rows: list[tuple[str, ...]], nothing: str, is_failure: bool) -> None:
    if not rows:
        if is_failure:
            raise Failed(nothing)
        session.output.complain(nothing)
        return
    widths = widths_of(rows) if session.output.terminal else None
    session.output.say(*(line(row, widths) for row in rows))

"""The console's commands by name, and how one line is carried out."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from scada.errors import LinkError
from tagwire.console_acting import read, set_tag
from tagwire.console_reading import get, links, list_tags, plan, servers, sub, unsub, wait
from tagwire.console_session import Failed, Session, Usage
from tagwire.console_watch import watch

_BYTES = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes that are no UTF-8."""
EXIT_FAILED = 1
EXIT_USAGE = 2


@dataclass(frozen=True, slots=True)
class ConsoleCommand:
    """`usage` and `summary` are for `help`; `lasts`: alone on a command line it goes on until Ctrl-C."""

    usage: str
    summary: str
    run: Callable[[Session, str], Awaitable[None]]
    lasts: bool = False


async def _help(session: Session, rest: str) -> None:
    chosen = {rest: COMMANDS[rest]} if rest in COMMANDS else COMMANDS
    session.output.say(*(f"{each.usage:30}  {each.summary}" for each in chosen.values()))


async def _quit(session: Session, rest: str) -> None:
    """The end is the prompt's matter; in a file of commands it says where to stop."""


COMMANDS: Mapping[str, ConsoleCommand] = MappingProxyType(
    {
        "list": ConsoleCommand(
            "list [--all] [PATTERN]",
            "tags with value, quality, time; a pattern is a part, or a glob with * ?",
            list_tags,
        ),
        "get": ConsoleCommand("get NAME...", "tags by full name, Device@Tag, or glob", get),
        "set": ConsoleCommand("set DEVICE@TAG VALUE", "set a tag and wait for the verdict", set_tag),
        "read": ConsoleCommand("read DEVICE[@TAG]", "have it read from the device now", read),
        "sub": ConsoleCommand("sub [PATTERN...]", "print changes of tags that match, as they come", sub, lasts=True),
        "unsub": ConsoleCommand("unsub PATTERN...", "and no longer; unsub * ends all", unsub),
        "watch": ConsoleCommand("watch PATTERN", "a table that follows the changes; Ctrl-C ends it", watch, lasts=True),
        "wait": ConsoleCommand("wait SECONDS", "let subscribed changes come (for scripts)", wait),
        "links": ConsoleCommand("links [PATTERN]", "whether programs reach their devices", links),
        "servers": ConsoleCommand("servers", "which programs are there", servers),
        "plan": ConsoleCommand("plan DEVICE", "how a device is read, and how busy that keeps it", plan),
        "help": ConsoleCommand("help [COMMAND]", "this", _help),
        "quit": ConsoleCommand("quit", "leave; so does Ctrl-D", _quit),
    }
)


async def carry_out(session: Session, text: str) -> int:
    """One line of the console: the exit code that it alone would end with. What is wrong has been told."""
    name, _, rest = text.strip().partition(" ")
    command = COMMANDS.get("quit" if name == "exit" else name)
    try:
        if not text.isascii() and _BYTES.search(text):
            raise Usage("this line is not UTF-8")
        if command is None:
            raise Usage(f"there is no command {name!r}; there are {', '.join(COMMANDS)}")
        await command.run(session, rest.strip())
    except Usage as error:
        session.output.complain(f"{error}")
        return EXIT_USAGE
    except (Failed, LinkError) as error:
        session.output.complain(f"{error}")
        return EXIT_FAILED
    return 0


async def carry_out_alone(session: Session, text: str) -> int:
    """As `carry_out`, for the one command of a command line: what it subscribed to is printed until Ctrl-C."""
    code = await carry_out(session, text)
    if not code and session.patterns:
        await session.wait(None)
    return code

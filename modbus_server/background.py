"""Starts the mailbox when there is a configuration; the registers are served meanwhile, and whatever becomes of it."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from modbus_server.settings import MailboxSettings
from scada.errors import ConfigError
from scada.modbus.image import Image

logger = logging.getLogger(__name__)

LOOK_S = 0.5
_SQLITE_FILE = re.compile(r"sqlite(?:\+\w+)?:///(?!:memory:|file:)([^?]+)")
_IN_MEMORY = re.compile(r"sqlite(?:\+\w+)?:(?!///[^:?]+)")


async def keep_mailbox(
    settings: MailboxSettings,
    images: Mapping[int, Image],
    use: Callable[[Mapping[int, Image]], None],
    stop: asyncio.Event,
) -> None:
    """Run the mailbox until `stop`; never raises. See `modbus_server.mailbox.service.run_mailbox`.

    A database file that does not exist is waited for and not made: this server runs alone as well.
    """
    try:
        if not await _wait_for(settings.owner.database_uri, stop):
            return
        # Imported here, in a thread: it takes half a second, which a server without configuration does not need to spend.
        run_mailbox = await asyncio.to_thread(_load)
        await run_mailbox(settings, images, use, stop)
    except ConfigError as error:
        logger.error("no register is bound to a tag: %s", error)
    except Exception:  # the top of this task: clients are served without it
        logger.exception("the mailbox ended by a fault in the program: tags in registers are not kept up any more")


async def _wait_for(uri: str, stop: asyncio.Event) -> bool:
    """Wait until there can be a configuration; False when `stop` comes first, or when there never can be one."""
    if _IN_MEMORY.match(uri):
        return False
    found = _SQLITE_FILE.match(uri)
    while found is not None and not _is_there(found[1]):
        try:
            async with asyncio.timeout(LOOK_S):
                await stop.wait()
            return False
        except TimeoutError:
            continue
    return True


def _is_there(path: str) -> bool:
    return Path(path).exists()  # microseconds: a thread would cost clients more


def _load() -> Callable[..., Awaitable[None]]:
    from modbus_server.mailbox.service import run_mailbox

    return run_mailbox

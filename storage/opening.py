"""Opening the database for a program that runs whether or not it answers."""

import asyncio
import logging
import threading

from sqlalchemy import Engine

from scada.errors import LinkError
from storage.damage import set_aside
from storage.engine import BUSY_TIMEOUT_S, WaitOn, open_engine
from storage.migrate import migrate

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 10.0


class Patience:
    """How long a program's writers wait for another one's lock: as long as SQLite itself would, until they are called off.

    A thread that waits cannot be cancelled, and Python waits for it at the end.
    """

    def __init__(self) -> None:
        self._ended = threading.Event()

    def __call__(self, waited_s: float) -> bool:
        """Whether to wait on."""
        return waited_s < BUSY_TIMEOUT_S and not self._ended.is_set()

    def end(self) -> None:
        """The program ends: nobody waits any longer."""
        self._ended.set()


async def open_database(uri: str, wait_on: WaitOn) -> Engine:
    """The database, migrated; tried again while it does not answer. Raises ConfigError for a URL that can never work."""
    pause_s = FIRST_PAUSE_S
    told = ""
    while True:
        try:
            return await asyncio.to_thread(_open, uri, wait_on)
        except LinkError as error:
            if str(error) != told:
                log.error("database: %s", error)
                told = str(error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)


def _open(uri: str, wait_on: WaitOn) -> Engine:
    engine = open_engine(uri, wait_on)
    try:
        migrate(engine)
        moved = set_aside(engine)
        if moved:
            # With an empty configuration every message that the broker has kept would be acknowledged and dropped.
            raise LinkError(
                f"{moved[-1]} was damaged and moved aside: nothing is read or written until the configuration is "
                "restored and that file is moved elsewhere"
            )
    except BaseException:
        engine.dispose()
        raise
    return engine

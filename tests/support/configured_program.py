"""A program of ours as a real process between a real broker and devices, configured in a database of its own."""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate
from tests.support.brokers import Broker, Proxy
from tests.support.processes import Process, clean_environment


class ConfiguredProgram:
    """`folder` holds the data of the program, and the database unless a setting names another one.

    `settings` are further ones for it; `running` is the process that was started last.
    """

    program: ClassVar[str]

    def __init__(self, folder: Path, broker: Broker | Proxy, **settings: str | int | float | Path) -> None:
        self.folder = folder
        self.uri = str(settings.get("SQLALCHEMY_DATABASE_URI", f"sqlite:///{folder}/plant.sqlite"))
        self.engine = open_engine(self.uri)
        migrate(self.engine)
        self.store = ConfigStore(self.engine)
        self.broker = broker
        self.settings = settings
        self.running: Process | None = None
        self.before: list[str] = []
        """What stands before the program's command: a program that runs it."""

    def process(self) -> Process:
        """Start one; the caller ends it."""
        defaults: dict[str, Any] = {
            "MQTT_HOST": "127.0.0.1",
            "MQTT_PORT": self.broker.port,
            "SQLALCHEMY_DATABASE_URI": self.uri,
            "TAGWIRE_DATA_DIR": self.folder,
        }
        return Process(
            [*self.before, sys.executable, "-m", self.program], clean_environment(**(defaults | self.settings))
        )

    @property
    def output(self) -> str:
        """What the program has printed."""
        assert self.running is not None
        return self.running.output

    async def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = 10.0) -> float:
        """Until `condition()` is true; how long that took, in seconds."""
        begun = time.monotonic()
        while not condition():
            late = time.monotonic() - begun > timeout_s
            assert not late, f"not within {timeout_s} s: {what}\n{self.running and self.output}"
            await asyncio.sleep(0.01)
        return time.monotonic() - begun

    async def close(self) -> None:
        """End it."""
        if self.running is not None:
            await asyncio.to_thread(self.running.close)
        self.engine.dispose()

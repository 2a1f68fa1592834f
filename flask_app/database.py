"""The application's database: flask-sqlalchemy holds the engine, `storage` opens it and speaks to it."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from flask import Flask, current_app, has_request_context, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, create_engine

from flask_app.turns import CLAIM, PATIENCE_S, Claim
from scada.errors import ConfigError, LinkError
from storage.config_store import ConfigStore
from storage.damage import set_aside
from storage.engine import BUSY_TIMEOUT_S, open_engine
from storage.event_store import RejectLog
from storage.migrate import migrate
from storage.outbox import Outbox

_NAME = "tagwire"


@dataclass(frozen=True, slots=True)
class Stores:
    """What the views read and write."""

    config: ConfigStore
    rejects: RejectLog
    outbox: Outbox
    engine: Engine

    def set_aside(self) -> list[Path]:
        """Damaged files that this database replaces and nobody has taken away yet."""
        return set_aside(self.engine)


class Database(SQLAlchemy):
    """One per application. It is opened, and brought up to date, when it is first asked for.

    A database that does not answer at start is no reason not to start: requests get 503 until it does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._opening = threading.Lock()
        self.opened: Stores | None = None
        self._failure: tuple[float, LinkError] | None = None

    def init_app(self, app: Flask) -> None:
        super().init_app(app)
        app.extensions[_NAME] = self

    def open(self, app: Flask) -> Stores:
        """The stores; raises LinkError while the database does not answer, ConfigError when it is not ours."""
        if self.opened is None:
            asked_at = time.monotonic()
            with self._opening, app.app_context():
                if self.opened is None:
                    # Who waited for another's attempt shares its end: in turn they would wait for minutes.
                    if self._failure is not None and self._failure[0] > asked_at:
                        raise self._failure[1]
                    try:
                        self.opened = self._open(app)
                    except LinkError as error:
                        self._failure = time.monotonic(), error
                        raise
        return self.opened

    def _open(self, app: Flask) -> Stores:
        engine = open_engine(app.config["SQLALCHEMY_DATABASE_URI"], self._wait_on)
        try:
            migrate(engine)
        except BaseException:
            engine.dispose()
            raise
        # From here flask-sqlalchemy's sessions use the engine with our settings too.
        cast(dict[str | None, Engine], self.engines)[None] = engine
        return Stores(ConfigStore(engine, app.config["BUS_ROOT"]), RejectLog(engine), Outbox(engine), engine)

    def _wait_on(self, waited_s: float) -> bool:
        """A change waits for the database's lock while its claim holds; whoever opens the database keeps others waiting."""
        if self.opened is None or not has_request_context():
            return waited_s < BUSY_TIMEOUT_S
        claim: Claim | None = request.environ.get(CLAIM)
        # Without the bridge, as under `flask run`, nobody has made one.
        return waited_s < PATIENCE_S if claim is None else claim.wait_on()

    def _make_engine(self, bind_key: str | None, options: dict[str, Any], app: Flask) -> Engine:
        # Connects to nothing yet; `open` puts the real one in its place.
        return create_engine("sqlite://")


def opened() -> Stores | None:
    """The current application's stores, if its database has been opened already."""
    database: Database = current_app.extensions[_NAME]
    return database.opened


def stores() -> Stores:
    """The current application's stores."""
    database: Database = current_app.extensions[_NAME]
    try:
        return database.open(current_app)
    except ConfigError as error:
        # A request is not to blame for what the operator's database is.
        raise LinkError(str(error)) from error


def config() -> ConfigStore:
    """The current application's configuration."""
    return stores().config

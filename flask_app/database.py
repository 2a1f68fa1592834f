"""The application's database: flask-sqlalchemy holds the engine, `storage` opens it and speaks to it."""

import threading
from dataclasses import dataclass
from typing import Any, cast

from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, create_engine

from scada.errors import ConfigError, LinkError
from storage.config_store import ConfigStore
from storage.engine import open_engine
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


class Database(SQLAlchemy):
    """One per application. It is opened, and brought up to date, when it is first asked for.

    A database that does not answer at start is no reason not to start: requests get 503 until it does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._opening = threading.Lock()
        self._stores: Stores | None = None

    def init_app(self, app: Flask) -> None:
        super().init_app(app)
        app.extensions[_NAME] = self

    def open(self, app: Flask) -> Stores:
        """The stores; raises LinkError while the database does not answer, ConfigError when it is not ours."""
        if self._stores is None:
            with self._opening, app.app_context():
                if self._stores is None:
                    engine = open_engine(app.config["SQLALCHEMY_DATABASE_URI"])
                    migrate(engine)
                    # From here flask-sqlalchemy's sessions use the engine with our settings too.
                    cast(dict[str | None, Engine], self.engines)[None] = engine
                    self._stores = Stores(ConfigStore(engine), RejectLog(engine), Outbox(engine))
        return self._stores

    def _make_engine(self, bind_key: str | None, options: dict[str, Any], app: Flask) -> Engine:
        # Connects to nothing yet; `open` puts the real one in its place.
        return create_engine("sqlite://")


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

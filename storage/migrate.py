"""Bringing the database to this program's tables, once, whoever starts first. `python -m storage.migrate` does only that."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from scada.errors import ConfigError, TagwireError
from storage.engine import open_engine, reading, writing
from storage.faults import storage_errors

if TYPE_CHECKING:
    from alembic.config import Config

# The newest file under migrations/versions. They are numbered, so text order is their order.
HEAD = "0004"
FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x7A_67_77_01  # PostgreSQL advisory lock: a number that nobody else is likely to use


def migrate(engine: Engine) -> None:
    """Upgrade the tables to HEAD; quick when they are there. All steps are one transaction: a killed upgrade changes nothing.

    Raises ConfigError when the database was written by a newer program or holds other tables, LinkError when it fails.
    """
    with reading(engine) as connection:
        if current_version(connection) == HEAD:
            return
    with writing(engine, _LOCK) as connection:
        # Another program may have done it while this one waited for the lock.
        if current_version(connection) != HEAD:
            _upgrade(connection)


def alembic_config(connection: Connection | None = None) -> "Config":
    """Alembic's configuration, made here instead of in an alembic.ini. `connection` has a transaction begun."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def current_version(connection: Connection) -> str | None:
    """The stored version, None in a new database; ConfigError when this program cannot know it."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if version is not None and version > HEAD:
        raise ConfigError(
            f"the database is of a newer program (its version {version}, ours {HEAD}): update the program"
        )
    return version


def _upgrade(connection: Connection) -> None:
    # Imported here: Alembic costs 0.1 s and nearly every start has nothing to do.
    from alembic import command

    if current_version(connection) is None:
        foreign = {"device", "tag"} & set(inspect(connection).get_table_names())
        if foreign:
            raise ConfigError(f"the database holds tables of another program: {', '.join(sorted(foreign))}")
    command.upgrade(alembic_config(connection), "head")


def main() -> int:
    """Upgrade the database that SQLALCHEMY_DATABASE_URI names, else the default one. Exit code 2 when it cannot be done."""
    from environs import Env

    env = Env()
    env.read_env()
    try:
        with storage_errors():
            engine = open_engine(env.str("SQLALCHEMY_DATABASE_URI", "sqlite:///db.sqlite"))
            migrate(engine)
    except TagwireError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{engine.url.render_as_string(hide_password=True)}: version {HEAD}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

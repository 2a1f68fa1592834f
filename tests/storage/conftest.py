"""Every test of the store runs on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from storage.config_reader import ConfigReader
from storage.config_store import ConfigStore
from storage.engine import open_engine, writing
from storage.migrate import migrate
from storage.models import Base
from tests.support.postgres import PostgresServer, postgres_server, programs


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    if programs() is None:
        pytest.skip("PostgreSQL's wheel is not installed")
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/db.sqlite"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.uri()


@pytest.fixture(scope="session")
def shared(postgres: PostgresServer) -> Iterator[Engine]:
    """One database with our tables, emptied for each test: quicker than a new one."""
    engine = open_engine(postgres.uri())
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "postgresql":
        engine = request.getfixturevalue("shared")
        tables = ", ".join(Base.metadata.tables)
        with writing(engine) as connection:
            connection.exec_driver_sql(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
        yield engine
        return
    engine = open_engine(f"sqlite:///{tmp_path}/db.sqlite")
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> ConfigStore:
    return ConfigStore(engine)


@pytest.fixture
def reader(engine: Engine) -> ConfigReader:
    return ConfigReader(engine)


@pytest.fixture
def boiler(store: ConfigStore) -> dict[str, Any]:
    return store.create_device(
        {
            "name": "boiler",
            "network": {"mqtt": {"topic": "plant/boiler"}, "modbus": {"host": "127.0.0.1", "port": 8502}},
            "terms": [{"name": "meter", "settings": {"modbus": {"unit_id": 7}}}],
            "tags": [
                {
                    "name": "temperature",
                    "unit": "°C",
                    "bindings": [
                        {"protocol": "mqtt", "direction": "in", "address": {"path": "temperature"}},
                        {
                            "protocol": "modbus",
                            "direction": "out",
                            "address": {"register": 10, "type": "float32", "order": "CDAB"},
                        },
                    ],
                }
            ],
        }
    )

"""Row S7 of the faults, as far as it concerns the configuration database: PostgreSQL that fails and comes back."""

import contextlib
import signal
from collections.abc import Iterator

import psycopg
import pytest

from scada.errors import LinkError
from storage.config_reader import ConfigReader
from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate
from tests.support.postgres import PostgresServer, postgres_server, programs


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    if programs() is None:
        pytest.skip("PostgreSQL's wheel is not installed")
    with postgres_server() as server:
        yield server


@pytest.fixture
def store(server: PostgresServer) -> Iterator[ConfigStore]:
    engine = open_engine(server.uri())
    migrate(engine)
    yield ConfigStore(engine)
    engine.dispose()


def test_s7_after_a_crash_what_was_acknowledged_is_there(server: PostgresServer, store: ConfigStore) -> None:
    names = [store.create_device({"name": f"d{index}"})["name"] for index in range(20)]
    server.stop(signal.SIGKILL)
    for use in (store.list_devices, ConfigReader(store.engine).revision, lambda: store.create_device({"name": "x"})):
        with pytest.raises(LinkError):
            use()
    server.start()
    assert [device["name"] for device in store.list_devices()[0]] == names
    assert store.create_device({"name": "x"})["revision"] == 21


def test_s7_a_connection_ended_by_the_server_is_replaced(server: PostgresServer, store: ConfigStore) -> None:
    store.create_device({"name": "a"})
    with server.connect("postgres") as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test%'")
    assert store.list_devices()[1] == 1


def test_s7_when_no_connection_is_left_the_error_is_clear(server: PostgresServer, store: ConfigStore) -> None:
    store.create_device({"name": "a"})
    store.engine.dispose()
    taken = []
    try:
        with contextlib.suppress(psycopg.OperationalError):
            # Also those kept for a superuser, until nothing is left for the store.
            while len(taken) < 60:
                taken.append(server.connect("postgres"))
        with pytest.raises(LinkError, match=r"slots|too many"):
            store.list_devices()
    finally:
        for connection in taken:
            connection.close()
    assert store.list_devices()[1] == 1

from collections.abc import Iterator

import pytest

from tests.support.modbus_wire import modbus_server


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server with its defaults, shared by the tests of a module."""
    with modbus_server(tmp_path_factory.mktemp("data")) as (_, port):
        yield port

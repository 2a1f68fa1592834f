"""A plant for the doctor, one for all tests of a module."""

from collections.abc import Iterator

import pytest

from tests.support.doctor_plant import Plant, doctor_plant


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    with doctor_plant(tmp_path_factory.mktemp("plant")) as running:
        yield running

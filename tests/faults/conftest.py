"""What is watched while a fault lasts."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest


@pytest.fixture
async def nothing_escapes() -> AsyncIterator[None]:
    """No exception may leave a protocol callback, and none may be left for the garbage collector to find."""
    escaped: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert escaped == []

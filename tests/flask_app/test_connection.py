"""A client that asks for much and reads nothing."""

import asyncio
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from flask_app.connection import GuardedConnection


class Impatient(GuardedConnection):
    """Waits less long than the real one."""

    write_timeout_s = 0.3


async def answer_much(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100000000")]})
    for _ in range(100):
        await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def test_a_client_that_never_reads_is_dropped_and_one_that_reads_is_served() -> None:
    config = Config(answer_much, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Impatient(config, state, {}), "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        # A reader with a small limit stops taking from its socket by itself.
        _, silent = await asyncio.open_connection(host, port, limit=1024)
        silent.write(request)
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        taken = 0
        while taken < 100_000_000:
            taken += len(await reader.read(2**20))
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while len(state.connections) > 1:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.05)
        assert not writer.is_closing()
        writer.close()
        silent.close()
        async with asyncio.timeout(5):
            while state.connections or state.tasks:  # noqa: ASYNC110 - they have no event for it
                await asyncio.sleep(0.05)

"""The production server: one process, one event loop for the connections, a pool of threads for Flask."""

import logging
import os
import resource
import signal
import socket
from collections.abc import Callable

from uvicorn import Config, Server

from flask_app.bridge import Limits, OnRefused, WsgiApp, WsgiBridge
from flask_app.connection import KEEP_ALIVE_S, GuardedConnection
from links.notify import notify_ready, notify_stopping

_log = logging.getLogger(__name__)
_BACKLOG = 1024
# What is still being answered this long after SIGTERM is given up.
_GRACE_S = 3
# Changes that wait for the database's lock are refused then, and their clients told.
_HURRY_S = 2.0
_LAST_S = 0.5
_OTHER_FILES = 48


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError when the port is taken or the address is not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def serve(
    app: WsgiApp,
    sock: socket.socket,
    limits: Limits,
    on_refused: OnRefused = lambda status: None,
    *,
    ending: Callable[[], None] = lambda: None,
    ended: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT; then answer what was asked, close the connections and return.

    `on_refused` is called with the status of each request that is refused before `app` sees it, `ending` when the end has
    begun (whoever waits is to be let go), `ended` when nothing is served any more.
    """
    bridge = WsgiBridge(app, limits, on_refused)
    members = {"max_connections": _max_connections(), "on_refused": staticmethod(on_refused)}
    config = Config(
        bridge,
        http=type("Connection", (GuardedConnection,), members),
        ws="none",
        # uvloop's where it is installed.
        loop="auto",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=limits.head,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        backlog=_BACKLOG,
    )
    host, port = sock.getsockname()[:2]

    def hurry() -> None:
        bridge.hurry(_HURRY_S)
        ending()

    server = _NotifyingServer(config, lambda: notify_ready(f"REST on http://{host}:{port}"), hurry)
    # uvicorn raises the signal again once it has ended, for a parent that wants to know; our exit code is 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server.run(sockets=[sock])
    all_answered = bridge.close(_LAST_S)
    ended()
    if not all_answered:
        # A thread cannot be stopped, and Python would wait for it. What it was doing was not acknowledged to anybody.
        _log.warning("ended in the middle of requests")
        logging.shutdown()
        os._exit(0)


def _max_connections() -> int:
    """As many as there are file descriptors for, after raising the soft limit; some stay for the database and its files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = GuardedConnection.max_connections + _OTHER_FILES
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(limit - _OTHER_FILES, 1)


class _NotifyingServer(Server):
    def __init__(self, config: Config, ready: Callable[[], None], ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._ending = ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        notify_stopping()
        self._ending()
        await super().shutdown(sockets)

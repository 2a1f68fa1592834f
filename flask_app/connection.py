"""HTTP/1.1 connections with limits: deadlines for a head, a bounded number, refusals in our error shape.

h11 and uvicorn parse and write; this file adds what makes the server bear hostile clients without a proxy in front of it.
"""

import asyncio
import itertools
import sys
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from flask_app.bridge import OnRefused
from flask_app.problems import MEDIA_TYPE, problem_bytes

HEAD_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 30


class GuardedConnection(H11Protocol):
    """One connection. Without a complete head in time it is answered with 408 and closed; silent ones just close."""

    max_connections = 2000
    write_timeout_s = 30.0
    on_refused: OnRefused
    _arrivals = itertools.count()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a TCP transport is all that ever comes
        super().connection_made(transport)
        self._arrival = next(self._arrivals)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._heard = False
        self._arm()
        if len(self.connections) > self.max_connections:
            self._shed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._moving()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._disarm()
        else:
            self._heard = True
            if self._head_timer is None and not self.transport.is_closing():
                self._arm()

    def on_response_complete(self) -> None:
        self._heard = False
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not take what it asked for; it has some time to go on."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client goes on."""
        self._moving()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what could not be parsed; h11 knows the better status, such as 431 for a head that is too long."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._refuse(status, str(error) if error is not None else msg)

    @property
    def idle(self) -> bool:
        """Whether no request is being received or answered."""
        return self.conn.our_state is h11.IDLE

    def _moving(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _arm(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_late)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._heard:
            self._refuse(408, f"the request's head did not arrive within {HEAD_TIMEOUT_S:g} s")
        else:
            self.transport.close()

    def _shed(self) -> None:
        """Make room: the connection that has been idle for longest goes."""
        others: list[Any] = [each for each in self.connections if each is not self and getattr(each, "idle", False)]
        oldest = min(others, key=lambda each: each._arrival, default=self)
        oldest.transport.close()

    def _refuse(self, status: int, detail: str) -> None:
        body = problem_bytes(status, detail)
        try:
            output = self.conn.send(
                h11.Response(
                    status_code=status,
                    headers=[
                        (b"content-type", MEDIA_TYPE.encode()),
                        (b"content-length", str(len(body)).encode()),
                        (b"connection", b"close"),
                    ],
                    reason=HTTPStatus(status).phrase.encode(),
                )
            )
            output += self.conn.send(h11.Data(data=body)) + self.conn.send(h11.EndOfMessage())
        except h11.LocalProtocolError:
            # Half an answer is already on its way: there is no place for another.
            output = b""
        if output:
            self.on_refused(status)
            self.transport.write(output)
        self.transport.close()

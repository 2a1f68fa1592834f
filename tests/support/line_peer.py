"""A device that speaks the blueprint driver's JSON lines, well or badly; on bare sockets and the standard library's JSON."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Self

READ_ONLY = 3
NO_SUCH_POINT = 2


class LinePeer:
    """Units of points, all writable but those in `read_only`; other units are silent. `mode` says how it answers."""

    MODES = (
        "garbage",
        "future_id",
        "no_id",
        "fewer_values",
        "values_no_list",
        "strange_refusal",
        "endless",
        "half",
        "fin",
    )

    def __init__(self, units: Mapping[int, dict[str, Any]], read_only: tuple[str, ...] = ()) -> None:
        self.units, self.read_only = units, read_only
        self.mode = "good"
        self.port = 0
        self.requests: list[dict[str, Any]] = []
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, in the same place as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Drop every connection and listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task, writer in self._tasks.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = writer
        try:
            while line := await reader.readline():
                request = json.loads(line)
                self.requests.append(request)
                if self.mode == "fin":
                    return
                writer.write(self._answer(request))
        except (OSError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            del self._tasks[task]
            writer.close()

    def _answer(self, request: dict[str, Any]) -> bytes:
        identity = request["id"]
        bad = {
            "silent": b"",
            "garbage": b"\x00\xffhello\n",
            "future_id": json.dumps({"id": identity + 7, "values": [7.0] * 100}).encode() + b"\n",
            "no_id": b'{"values": [7.0]}\n',
            "fewer_values": json.dumps({"id": identity, "values": []}).encode() + b"\n",
            "values_no_list": json.dumps({"id": identity, "values": 7.0}).encode() + b"\n",
            "strange_refusal": json.dumps({"id": identity, "refused": "no"}).encode() + b"\n",
            "endless": b"7" * 200_000,
            "half": b'{"id": ' + str(identity).encode(),
        }
        if self.mode in bad:
            return bad[self.mode]
        late = json.dumps({"id": identity - 1, "values": [7.0] * len(request.get("read", ()))}).encode() + b"\n"
        return (late if self.mode == "late" else b"") + self._good(request)

    def _good(self, request: dict[str, Any]) -> bytes:
        unit = self.units.get(request["unit"])
        if unit is None:
            return b""
        return json.dumps({"id": request["id"], **self._execute(unit, request)}).encode() + b"\n"

    def _execute(self, unit: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        names = request.get("read") or request["write"]
        unknown = [name for name in names if name not in unit]
        if unknown:
            return {"refused": NO_SUCH_POINT, "text": f"no point {unknown[0]}"}
        if "read" in request:
            return {"values": [unit[name] for name in names]}
        if any(name in self.read_only for name in names):
            return {"refused": READ_ONLY, "text": "read only"}
        unit.update(request["write"])
        return {}

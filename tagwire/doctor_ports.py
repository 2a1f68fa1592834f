"""The doctor on our ports: who listens there, and whether it is ours."""

import asyncio
import json
import os
from pathlib import Path

from scada.errors import LinkError, ProtocolError
from scada.modbus.identification import Access, decode_identification, encode_identification_request
from scada.modbus.mbap import FrameReader, encode_frame
from tagwire.bus_visit import reach
from tagwire.doctor_findings import Finding, fault, ok, warning
from tagwire.listeners import Listener

CHECK = "ports"
VENDOR = b"Tagwire"
_ANSWER_S = 3.0
_MOST = 65_536
_LISTEN = "0A"  # state of /proc/net/tcp, proc(5)


async def check_port(listener: Listener) -> Finding:
    """Whether the program that belongs there listens and answers."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.host, listener.host)
    where = f"{listener} ({listener.setting})"
    try:
        await reach(host, listener.port)
    except LinkError as error:
        return warning(CHECK, where, f"{error}: {listener.program} does not run here")
    ask = _ask_rest if listener.program == "flask_app" else _ask_modbus
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(host, listener.port)
            try:
                stranger, note = await ask(reader, writer, host)
            finally:
                writer.close()
    except TimeoutError:
        stranger, note = True, f"no answer within {_ANSWER_S:g} s"
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        stranger, note = True, f"no answer that could be understood ({error})"
    except ProtocolError as error:
        stranger, note = True, str(error)
    if stranger:
        message = f"is taken by a program that is not our {listener.program}: {note}{listening(listener.port)}"
        return fault(CHECK, where, message, f"End that program, or set {listener.setting} to another port")
    if note:
        return fault(CHECK, where, f"{listener.program}: {note}")
    return ok(CHECK, where, f"{listener.program} answers")


async def _ask_rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> tuple[bool, str]:
    """GET /healthz: whether it is a stranger, and what there is to say."""
    writer.write(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    data = await reader.read(_MOST)
    while chunk := await reader.read(_MOST):
        data += chunk
        if len(data) > _MOST:
            break
    head, _, body = data.partition(b"\r\n\r\n")
    first = head.partition(b"\r\n")[0].decode(errors="replace")
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if " 200 " not in f"{first} " or not isinstance(document, dict) or document.get("status") not in ("ok", "degraded"):
        return True, f"GET /healthz answers {first[:60]!r}"
    return False, str(document.get("detail", "")) if document["status"] == "degraded" else ""


async def _ask_modbus(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> tuple[bool, str]:
    """Read Device Identification (43/14), which every unit of ours answers."""
    writer.write(encode_frame(1, 1, encode_identification_request(Access.BASIC)))
    frames = FrameReader()
    while (frame := frames.next_frame()) is None:
        data = await reader.read(_MOST)
        if not data:
            return True, "it closes the connection when it is asked who it is (Modbus 43/14)"
        frames.feed(data)
    if frame.pdu[0] & 0x80:
        return True, f"a Modbus server that does not say who it is (exception {frame.pdu[1]} to 43/14)"
    vendor = decode_identification(frame.pdu).objects.get(0, b"")
    return vendor != VENDOR, "" if vendor == VENDOR else f"a Modbus server of {vendor.decode(errors='replace')!r}"


def listening(port: int) -> str:
    """Which process listens, in brackets, as far as this user may know (Linux); else nothing."""
    nodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                nodes.add(f"socket:[{fields[9]}]")
    if not nodes:
        return ""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) in nodes for link in (folder / "fd").iterdir()):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return f" (process {folder.name}: {words[:80]})"
        except OSError:
            continue  # another user's, or gone
    return ""

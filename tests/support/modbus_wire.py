"""Raw Modbus TCP from a test: bytes over a socket, and a Modbus server started as a process."""

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scada.modbus.mbap import encode_frame
from tests.support.certificates import Authority
from tests.support.processes import Process, free_port, start_program


class Wire:
    """One raw connection. Answers are `unit id + PDU` behind the transaction identifier."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, timeout_s: float = 10.0) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = tls.wrap_socket(plain, server_hostname="127.0.0.1") if tls else plain
        self._transaction = 0

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def receive(self, size: int) -> bytes:
        """`size` bytes; less where the server closes before."""
        data = b""
        while len(data) < size:
            part = self.sock.recv(size - len(data))
            if not part:
                break
            data += part
        return data

    def answer(self) -> tuple[int, int, bytes]:
        """The next frame: transaction, unit id, PDU. EOFError when the server closes."""
        head = self.receive(7)
        if len(head) < 7:
            raise EOFError
        transaction, protocol, length, unit_id = struct.unpack(">HHHB", head)
        assert protocol == 0
        return transaction, unit_id, self.receive(length - 1)

    def ask(self, pdu: str | bytes, unit_id: int = 1) -> bytes:
        """One request, its response PDU; transaction and unit id of the answer are checked."""
        self._transaction = self._transaction % 0xFFFF + 1
        self.send(encode_frame(self._transaction, unit_id, bytes.fromhex(pdu) if isinstance(pdu, str) else pdu))
        transaction, answered_by, response = self.answer()
        assert (transaction, answered_by) == (self._transaction, unit_id)
        return response

    def is_closed(self, timeout_s: float = 5.0) -> bool:
        """The server says FIN or RST within the time; whatever else it says is thrown away."""
        self.sock.settimeout(timeout_s)
        try:
            while self.sock.recv(4096):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True


@contextmanager
def modbus_server(folder: Path, **settings: str | int | Path) -> Iterator[tuple[Process, int]]:
    """A real Modbus server that is ready, and its port. Settings are named without MODBUS_SERVER_."""
    port = int(settings.pop("PORT", 0)) or free_port()
    names = {f"MODBUS_SERVER_{name}": value for name, value in settings.items()}
    with start_program("modbus_server", TAGWIRE_DATA_DIR=folder, MODBUS_SERVER_PORT=port, **names) as process:
        process.wait_ready()
        yield process, port


def tls_settings(authority: Authority, port: int, roles: str) -> dict[str, str | int | Path]:
    """For `modbus_server`: TLS on `port`, with a certificate of the authority, whose clients have `roles`."""
    certificate, key = authority.issue("server")
    return {
        "TLS": "true",
        "TLS_PORT": port,
        "TLS_CERT": certificate,
        "TLS_KEY": key,
        "TLS_CA": authority.path,
        "TLS_ROLES": roles,
    }

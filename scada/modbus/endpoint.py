"""Where a Modbus server is reached: one endpoint is one link, whatever number of units stands behind it."""

from dataclasses import dataclass
from enum import StrEnum


class Transport(StrEnum):
    """How Modbus frames travel to an endpoint."""

    TCP = "tcp"
    TLS = "tls"
    UDP = "udp"
    RTU_OVER_TCP = "rtu_over_tcp"
    SERIAL = "serial"

    @property
    def has_transaction_ids(self) -> bool:
        """True where a reply names its request (MBAP), so that a late one can be told from the right one."""
        return self in (Transport.TCP, Transport.TLS, Transport.UDP)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address to connect to, and how; endpoints with equal `address` share one link.

    `host` and `port` are used by all transports but serial, `serial_port` (a device file) and the line settings by serial.
    `tls_ca`, `tls_cert` and `tls_key` are files: whom TLS trusts (empty: whom the system trusts), and who we are, if
    anybody. `timeout_s` is one deadline for a whole request, `connect_timeout_s` one for a whole connect; `gap_ms` is the
    silence kept between the end of one request and the start of the next.
    """

    transport: Transport = Transport.TCP
    host: str = ""
    port: int = 502
    serial_port: str = ""
    baudrate: int = 9600
    parity: str = "N"
    stopbits: int = 1
    bytesize: int = 8
    timeout_s: float = 1.0
    connect_timeout_s: float = 3.0
    gap_ms: int = 0
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""

    @property
    def address(self) -> tuple[str, str, int]:
        """What the link is known by. Times and line settings are no part of it: one device is never called twice at once.

        Our certificate is part of it: to another one a device may grant other rights.
        """
        if self.transport is Transport.SERIAL:
            return self.transport, self.serial_port, 0
        return f"{self.transport} {self.tls_cert}".rstrip(), self.host.lower(), self.port

    @property
    def line_wait_s(self) -> float:
        """How long to wait for a serial line that another program is using: its request to a dead unit, and a connect."""
        return self.timeout_s + self.connect_timeout_s

    def __str__(self) -> str:
        if self.transport is Transport.SERIAL:
            return f"serial {self.serial_port} {self.baudrate} {self.bytesize}{self.parity}{self.stopbits}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport} {host}:{self.port}"

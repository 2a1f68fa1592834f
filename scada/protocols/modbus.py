"""What the configuration of a Modbus device may say."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address

from scada.config import Direction
from scada.errors import ConfigError, Fault
from scada.modbus.endpoint import Endpoint, Transport
from scada.modbus.limits import TCP_PORT, TLS_PORT, Table
from scada.modbus.registers import Order, RegisterType, codec
from scada.schema import spec
from scada.topics import check_name


def _host_fault(host: str) -> str:
    """Why this is no host name and no address; "" when it can be one."""
    if any(char.isspace() or ord(char) < 33 for char in host):
        return "must not contain spaces or control characters"
    if not any(char in "/:@[]?#" for char in host):
        return ""
    try:
        IPv6Address(host)
    except ValueError:
        return f"must be a host name or an address alone (the port has a field of its own), not {host!r:.80}"
    return ""


@dataclass(frozen=True, slots=True)
class ModbusNetwork:
    """One Modbus endpoint: a TCP server, a gateway, a serial line."""

    transport: Transport = spec("tcp, tls, udp, rtu_over_tcp or serial", Transport.TCP)
    host: str | None = spec("host name or address (all but serial)", None, max_length=253)
    port: int | None = spec("port of the server; 502, for tls 802, when left out", None, minimum=1, maximum=65535)
    tls_ca: str | None = spec(
        "file of the certificates to trust, PEM (tls); those of the system when left out", None, max_length=1000
    )
    tls_cert: str | None = spec("file of our certificate, PEM (tls)", None, max_length=1000)
    tls_key: str | None = spec("file of our private key, PEM without a password (tls)", None, max_length=1000)
    serial_port: str | None = spec("device file of the serial line, for example /dev/ttyUSB0", None, max_length=253)
    baudrate: int = spec("bits per second on the serial line", 9600, minimum=300, maximum=4_000_000)
    parity: str = spec("N, E or O", "N", max_length=1)
    stopbits: int = spec("stop bits", 1, minimum=1, maximum=2)
    bytesize: int = spec("data bits", 8, minimum=7, maximum=8)
    timeout_s: float = spec("time for one whole answer", 1.0, minimum=0.02, maximum=60)
    connect_timeout_s: float = spec("time for connecting", 3.0, minimum=0.1, maximum=60)
    gap_ms: int = spec("silence between two requests", 0, minimum=0, maximum=10_000)
    retries: int = spec("further attempts after a request without an answer, for reading", 1, minimum=0, maximum=10)
    max_read_registers: int = spec("most registers in one read", 125, minimum=1, maximum=125)
    max_read_bits: int = spec("most coils or discrete inputs in one read", 2000, minimum=1, maximum=2000)
    max_gap: int | None = spec(
        "most unused addresses that a read may bridge; left out: as many as cost less than one more request",
        None,
        minimum=0,
        maximum=2000,
    )
    max_requests_per_s: float = spec(
        "ceiling on requests per second to the device, which protects it; 0 is none", 0.0, minimum=0, maximum=100_000
    )
    max_write_registers: int = spec("most registers in one write", 123, minimum=1, maximum=123)
    max_write_coils: int = spec("most coils in one write", 1968, minimum=1, maximum=1968)

    def faults(self) -> Iterator[Fault]:
        if self.transport is Transport.SERIAL:
            if not self.serial_port:
                yield Fault("serial_port", "is required for serial")
        elif not self.host:
            yield Fault("host", f"is required for {self.transport}")
        elif fault := _host_fault(self.host):
            yield Fault("host", fault)
        if self.transport is not Transport.TLS:
            for name in ("tls_ca", "tls_cert", "tls_key"):
                if getattr(self, name) is not None:
                    yield Fault(name, f"belongs to transport tls, not to {self.transport}")
        elif (self.tls_cert is None) != (self.tls_key is None):
            yield Fault("tls_cert", "goes together with tls_key")
        if self.parity not in ("N", "E", "O"):
            yield Fault("parity", f"must be one of N, E, O, not {self.parity!r}")

    def misplaced(self, address: "ModbusAddress", direction: Direction) -> Iterator[Fault]:
        """What is wrong with an address in a binding of this direction behind this network."""
        if address.unit_id == 0 and not self.transport.has_transaction_ids:
            yield Fault("unit_id", f"0 is the broadcast on {self.transport}: no unit answers it")

    @property
    def endpoint(self) -> Endpoint:
        """What identifies the link: devices with equal endpoints share one connection."""
        serial = self.transport is Transport.SERIAL
        port = TLS_PORT if self.transport is Transport.TLS else TCP_PORT
        return Endpoint(
            transport=self.transport,
            host="" if serial else self.host or "",
            port=0 if serial else self.port or port,
            serial_port=self.serial_port or "" if serial else "",
            baudrate=self.baudrate,
            parity=self.parity,
            stopbits=self.stopbits,
            bytesize=self.bytesize,
            timeout_s=self.timeout_s,
            connect_timeout_s=self.connect_timeout_s,
            gap_ms=self.gap_ms,
            tls_ca=self.tls_ca or "",
            tls_cert=self.tls_cert or "",
            tls_key=self.tls_key or "",
        )


@dataclass(frozen=True, slots=True)
class ModbusTerm:
    """What a term says about Modbus: where the unit behind the device answers."""

    unit_id: int | None = spec("address of the unit; 1 when left out", None, minimum=0, maximum=255)


@dataclass(frozen=True, slots=True)
class ModbusAddress:
    """Where in a Modbus device a tag's value stands."""

    register: int = spec("protocol address, counted from 0", minimum=0, maximum=65535)
    unit_id: int | None = spec("address of the unit; the term's, else 1, when left out", None, minimum=0, maximum=255)
    table: Table = spec("coil, discrete_input, input_register or holding_register", Table.HOLDING_REGISTER)
    type: RegisterType = spec("how the value is coded", RegisterType.UINT16)
    order: Order = spec("byte order; for 64 bit the same pattern over four registers", Order.ABCD)
    bit: int | None = spec("bit of the register, 0 is the lowest; only with type bool", None, minimum=0, maximum=15)
    length: int | None = spec("bytes of text; only with type string", None, minimum=1, maximum=250)

    def faults(self) -> Iterator[Fault]:
        if self.table in (Table.COIL, Table.DISCRETE_INPUT):
            if self.type not in (RegisterType.BOOL, RegisterType.UINT16) or self.bit is not None:
                yield Fault("type", f"a {self.table} holds one bit: type bool, no bit number")
            return
        try:
            count = codec(self.type, self.order, length=self.length, bit=self.bit).registers
        except ConfigError as error:
            yield from error.faults
            return
        if self.register + count > 65536:
            yield Fault("register", f"{count} registers from {self.register} go past 65535")

    def directed(self, direction: Direction) -> Iterator[Fault]:
        """What is wrong with it in a binding of this direction, of a device: two tables are read only there."""
        if direction is not Direction.IN and self.table in (Table.DISCRETE_INPUT, Table.INPUT_REGISTER):
            yield Fault("table", f"a {self.table} of a device cannot be written: direction in only")


@dataclass(frozen=True, slots=True)
class Failsafe:
    """What happens when the source has been silent for too long: a value is written, a flag is raised, or both."""

    after_s: float = spec("silence of the source", minimum=0.1, maximum=86_400)
    value: object | None = spec("engineering value to write; left out: the last value stays", None)
    flag: int | None = spec(
        "holding register of the same unit that is 1 while the source is silent, else 0", None, minimum=0, maximum=65535
    )

    def faults(self) -> Iterator[Fault]:
        if self.value is None and self.flag is None:
            yield Fault("", "needs a value, a flag, or both")


@dataclass(frozen=True, slots=True)
class ModbusOptions:
    """How and when a tag is written to a Modbus device."""

    on_change: bool = spec("write only a value whose registers differ from the last written", False)
    deadband: float = spec(
        "write only when the engineering value moved by more than this since the last write", 0.0, minimum=0
    )
    min_interval_s: float = spec(
        "shortest time between two writes; the latest value is kept meanwhile", 0.0, minimum=0, maximum=86_400
    )
    rewrite_s: float = spec("write the last value again every so often; 0 is never", 0.0, minimum=0, maximum=86_400)
    every_value: bool = spec("write every value in order instead of only the latest", False)
    verify: bool | None = spec(
        "read the registers back after the write and compare; left out: only after commands, not after every value",
        None,
    )
    tolerance: float = spec(
        "most that a command's value may differ when it is read back, in engineering units; 0: what the type rounds",
        0.0,
        minimum=0,
    )
    feedback: str | None = spec(
        "name of another tag of the device, read over modbus too, that must reach a command's value, instead of reading back",
        None,
        check=check_name,
    )
    round: bool | None = spec("round a fraction for an integer type; left out: only when the binding scales", None)
    failsafe: Failsafe | None = spec("what is written when the source is silent", None)

    def faults(self) -> Iterator[Fault]:
        if 0 < self.rewrite_s < 0.1:
            yield Fault("rewrite_s", f"must be 0 or at least 0.1, not {self.rewrite_s:g}")
        if self.every_value and (self.on_change or self.deadband or self.min_interval_s):
            yield Fault("every_value", "cannot be combined with on_change, deadband or min_interval_s")

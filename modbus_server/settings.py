"""The Modbus server's settings, from the environment and `.env`."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from environs import validate as check

from links.environment import PORT, Environment, OwnerSettings, open_environment, read_owner, seal
from links.modbus_listener import ListenerLimits, Network
from modbus_server.answers import Right, UnknownUnit
from modbus_server.map_file import WITHOUT_MAP, UnitPlan, parse_map
from scada.errors import ConfigError
from scada.modbus.limits import TLS_PORT

_P = "MODBUS_SERVER_"
ANY_ROLE = "*"
NO_ROLE = "-"
GUARD_FILE = "mailbox.json"
"""In the registers' folder: what a start must be careful with before it knows the configuration."""
_MAX_NAME = 244  # of ASCII: what one identification response can carry (APS 6.21)
# Security R-14, R-51, R-62. Named here since some systems' Python offers SHA-1 by itself (Debian's does). TLS 1.3 has its own.
_TLS_1_2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!SHA1:!AESCCM"

_NAME = (check.Length(max=_MAX_NAME), check.Regexp(r"[ -~]*\Z", error="must be printable ASCII"))


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The Modbus/TCP Security port. `roles`: role to right; "*" stands for any other role, "-" for a certificate without one."""

    port: int
    context: ssl.SSLContext
    roles: Mapping[str, Right]


@dataclass(frozen=True, slots=True)
class MailboxSettings:
    """What tags in registers need. `folder` is for what belongs to the registers."""

    owner: OwnerSettings
    folder: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the Modbus server is told."""

    host: str
    port: int
    data_dir: Path | None
    """Where the registers are kept, None when they are not."""
    units: UnitPlan
    unknown_unit: UnknownUnit
    read_only: bool
    name: str
    limits: ListenerLimits
    tls: TlsSettings | None
    mailbox: MailboxSettings


def from_env() -> Settings:
    """The settings; raises ConfigError that lists every fault."""
    env = open_environment()
    owner = read_owner(env, "modbus_server")
    folder = _folder(env, owner.data_dir)
    settings = Settings(
        host=env.str(
            f"{_P}HOST", "127.0.0.1", validate=check.Regexp(r"\S+$", error="must be a host name or an address")
        ),
        port=env.int(f"{_P}PORT", 8502, validate=PORT),
        data_dir=folder if env.bool(f"{_P}PERSIST", True) else None,
        units=_units(env),
        unknown_unit=env.enum(f"{_P}UNKNOWN_UNIT", UnknownUnit.EXCEPTION, enum=UnknownUnit, by_value=True),
        read_only=env.bool(f"{_P}READ_ONLY", False),
        name=env.str(f"{_P}NAME", "Tagwire", validate=_NAME),
        limits=ListenerLimits(
            max_connections=env.int(f"{_P}MAX_CONNECTIONS", 1024, validate=check.Range(min=1, max=100_000)),
            idle_timeout_s=env.float(f"{_P}IDLE_TIMEOUT_S", 75.0, validate=check.Range(min=1, max=86_400)),
            allow=_networks(env),
        ),
        tls=_tls(env),
        mailbox=MailboxSettings(owner, folder),
    )
    if settings.tls is not None and settings.tls.port == settings.port:
        env.fault(f"{_P}TLS_PORT", f"must not be {_P}PORT")
    seal(env)
    return settings


def _folder(env: Environment, data_dir: Path) -> Path:
    text = env.str(f"{_P}DATA_DIR", "")
    return Path(text).expanduser().absolute() if text else data_dir / "modbus_server"


def _units(env: Environment) -> UnitPlan:
    name = f"{_P}MAP"
    path = env.str(name, "")
    if not path:
        return WITHOUT_MAP
    try:
        return parse_map(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        env.fault(name, f"cannot be read: {exc}")
    except ConfigError as exc:
        for fault in exc.faults:
            env.fault(name, str(fault))
    return WITHOUT_MAP


def _networks(env: Environment) -> tuple[Network, ...]:
    networks: list[Network] = []
    texts: list[str] = env.list(f"{_P}ALLOW", []) or []
    for text in texts:
        try:
            networks.append(ip_network(text.strip()))
        except ValueError as exc:
            env.fault(f"{_P}ALLOW", str(exc))
    return tuple(networks)


def _tls(env: Environment) -> TlsSettings | None:
    on = env.bool(f"{_P}TLS", False)
    port = env.int(f"{_P}TLS_PORT", TLS_PORT, validate=PORT)
    roles = _roles(env)
    files = {part: env.str(f"{_P}TLS_{part}", "") or "" for part in ("CERT", "KEY", "CA")}
    if not on:
        return None
    missing = [part for part, path in files.items() if not path]
    for part in missing:
        env.fault(f"{_P}TLS_{part}", f"is needed when {_P}TLS is on")
    if missing:
        return None
    # Security: TLS 1.2 or newer, and both sides show a certificate.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_ciphers(_TLS_1_2_CIPHERS)
    # A client that just closes may resume its session all the same (Security R-42): the frames themselves say where they end.
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # OpenSSL 3
    try:
        # A password given here keeps OpenSSL from asking for one at the terminal.
        context.load_cert_chain(files["CERT"], files["KEY"], password="")
    except OSError as exc:
        env.fault(f"{_P}TLS_CERT", f"and {_P}TLS_KEY cannot be used: {exc}")
    try:
        context.load_verify_locations(files["CA"])
    except OSError as exc:
        env.fault(f"{_P}TLS_CA", f"cannot be used: {exc}")
    return TlsSettings(port, context, roles)


def _roles(env: Environment) -> Mapping[str, Right]:
    name = f"{_P}TLS_ROLES"
    roles: dict[str, Right] = {}
    entries: list[str] = env.list(name, []) or []
    for entry in entries:
        role, separator, right = (part.strip() for part in entry.rpartition("="))
        if not separator or not role or right not in set(Right):
            env.fault(name, f"{entry!r} is not ROLE=none, ROLE=read or ROLE=write")
        elif role in roles:
            env.fault(name, f"role {role!r} is named twice")
        else:
            roles[role] = Right(right)
    return roles

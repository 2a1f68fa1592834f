"""The options that say which Modbus endpoint is meant: transport and place, serial line, certificates."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import click

from links.environment import PORT, open_environment, seal
from scada.errors import ConfigError, Fault
from scada.modbus.endpoint import Endpoint, Transport
from scada.protocols.modbus import ModbusNetwork
from scada.schema import parse

F = TypeVar("F", bound=Callable[..., Any])
_LINE = ("baudrate", "parity", "stopbits", "bytesize")
_SHOWN = {"host": "--endpoint", "port": "--endpoint", "serial_port": "--endpoint"}


def endpoint_options(command: F) -> F:
    """The options of a command that `make_endpoint` takes by their names."""
    for option in (
        click.option("--tls-key", metavar="FILE", help="Our private key, PEM without a password (tls)."),
        click.option("--tls-cert", metavar="FILE", help="Our certificate, PEM (tls)."),
        click.option("--tls-ca", metavar="FILE", help="Certificates to trust, PEM (tls); default: the system's."),
        click.option("--bytesize", type=int, help="Data bits (serial). Default 8."),
        click.option("--stopbits", type=int, help="Stop bits (serial). Default 1."),
        click.option("--parity", type=click.Choice(["N", "E", "O"]), help="Parity (serial). Default N."),
        click.option("--baudrate", type=int, help="Bits per second (serial). Default 9600."),
        click.option(
            "--timeout", "timeout_s", type=click.FloatRange(0.05, 60), default=2.0, help="Seconds for one request."
        ),
        click.option(
            "--endpoint",
            metavar="PLACE",
            help="HOST, HOST:PORT or, for serial, a device file. "
            "Default for tcp: MODBUS_SERVER_HOST and MODBUS_SERVER_PORT.",
        ),
        click.option(
            "--transport", type=click.Choice([*map(str, Transport)]), default=str(Transport.TCP), show_default=True
        ),
    ):
        command = option(command)
    return command


def make_endpoint(*, transport: str, endpoint: str | None, timeout_s: float, **more: Any) -> Endpoint:
    """The endpoint that the options mean; it is what a device's network configuration of the same words would be.

    Raises ConfigError with every fault, each named by its option.
    """
    kind = Transport(transport)
    given = {name: value for name, value in more.items() if value is not None}
    foreign = [] if kind is Transport.SERIAL else [name for name in _LINE if name in given]
    faults = [Fault(_option(name), f"belongs to transport serial, not to {kind}") for name in foreign]
    document = {name: value for name, value in given.items() if name not in foreign}
    try:
        network = parse(ModbusNetwork, {"transport": kind.value, **_place(kind, endpoint), **document})
    except ConfigError as exc:
        raise ConfigError([*faults, *(Fault(_option(each.field), each.message) for each in exc.faults)]) from exc
    if faults:
        raise ConfigError(faults)
    return replace(network.endpoint, timeout_s=timeout_s, connect_timeout_s=timeout_s)


def _place(kind: Transport, text: str | None) -> Mapping[str, Any]:
    if text is None:
        return _our_server() if kind is Transport.TCP else {}
    return {"serial_port": text} if kind is Transport.SERIAL else _split(text)


def _our_server() -> Mapping[str, Any]:
    env = open_environment()
    host = env.str("MODBUS_SERVER_HOST", "127.0.0.1")
    port = env.int("MODBUS_SERVER_PORT", 8502, validate=PORT)
    seal(env)
    return {"host": {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), "port": port}


def _split(text: str) -> Mapping[str, Any]:
    """HOST, HOST:PORT or [HOST]:PORT; without a port it is that of the transport."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return {"host": text.removeprefix("[").removesuffix("]")}
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ConfigError([Fault("", f"{text!r} is not HOST or HOST:PORT")])
    return {"host": host.removeprefix("[").removesuffix("]"), "port": int(port)}


def _option(field: str) -> str:
    return _SHOWN.get(field) or (f"--{field.replace('_', '-')}" if field else "--endpoint")

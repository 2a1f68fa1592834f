"""`tagwire registers`: read, write and watch values at any Modbus endpoint, as any type and in any order."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from links.modbus_client import ModbusClient
from scada.errors import ConfigError, DeviceRefused, Fault, LinkError, ProtocolError
from scada.modbus.limits import MAX_ADDRESS, MAX_UNIT_ID, Table
from scada.modbus.registers import Order, RegisterType
from scada.values import BadValue
from tagwire.endpoint_options import endpoint_options, make_endpoint
from tagwire.targets import Target, as_json, make_target, parse_value, read_values, shown, write_values
from tagwire.watch import watch_values

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
ADDRESS = click.IntRange(0, MAX_ADDRESS)


def _place(command: F) -> F:
    """The options that say where and what, the same for every command."""
    for option in (
        click.option("--json", "as_text", is_flag=True, flag_value=False, default=True, help="Print JSON."),
        click.option("--bit", type=click.IntRange(0, 15), help="One bit of a register, 0 the lowest."),
        click.option("--length", type=int, help="Bytes of a string."),
        click.option("--order", type=click.Choice([*map(str, Order)]), default=str(Order.ABCD), show_default=True),
        click.option(
            "--type", "kind", type=click.Choice([*map(str, RegisterType)]), help="Default uint16, with --bit bool."
        ),
        click.option(
            "--table", type=click.Choice([*map(str, Table)]), default=str(Table.HOLDING_REGISTER), show_default=True
        ),
        click.option("--unit", type=click.IntRange(0, MAX_UNIT_ID), default=1, show_default=True),
        endpoint_options,
    ):
        command = option(command)
    return command


@click.group()
def registers() -> None:
    """Read, write and watch registers of any Modbus device."""


@registers.command()
@click.argument("address", type=ADDRESS)
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="How many values.")
@_place
def read(address: int, count: int, as_text: bool, **place: Any) -> None:
    """Read values from ADDRESS on (the protocol address, counted from 0)."""
    target = _target(address, count, **place)
    values = _run(target, lambda client: read_values(client, target))
    if as_text:
        for index, value in enumerate(values):
            click.echo(f"{target.address_of(index)} {shown(value)}")
    else:
        click.echo(as_json(target, values))


@registers.command(context_settings={"ignore_unknown_options": True})
@click.argument("address", type=ADDRESS)
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
@_place
def write(address: int, values: tuple[str, ...], as_text: bool, **place: Any) -> None:
    """Write values from ADDRESS on, all in one request, and read them back."""
    target = _target(address, len(values), writing=True, **place)
    parsed = [parse_value(text, target) for text in values]

    async def write_and_read(client: ModbusClient) -> list[Any]:
        await write_values(client, target, parsed)
        return await read_values(client, target)

    found = _run(target, write_and_read)
    if as_text:
        for index, value in enumerate(found):
            click.echo(f"{target.address_of(index)} {shown(value)}")
    else:
        click.echo(as_json(target, found))


@registers.command()
@click.argument("address", type=ADDRESS)
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="How many values.")
@click.option(
    "--interval", "interval_s", type=click.FloatRange(0.01, 3600), default=0.5, show_default=True, help="Seconds."
)
@click.option("--for", "duration_s", type=click.FloatRange(0), help="Stop after this many seconds.")
@_place
def watch(address: int, count: int, interval_s: float, duration_s: float | None, as_text: bool, **place: Any) -> None:
    """Print values from ADDRESS on and every change of them, until Ctrl-C."""
    target = _target(address, count, **place)
    asyncio.run(watch_values(target, interval_s, duration_s, as_text))


def _target(
    address: int,
    count: int,
    *,
    unit: int,
    table: Table,
    kind: RegisterType | None,
    order: Order,
    length: int | None,
    bit: int | None,
    writing: bool = False,
    **where: Any,
) -> Target:
    endpoint = make_endpoint(**where)
    if unit == 0 and not endpoint.transport.has_transaction_ids:
        raise ConfigError([Fault("--unit", f"0 is the broadcast on {endpoint.transport}: no unit answers it")])
    kind = kind or (RegisterType.UINT16 if bit is None else RegisterType.BOOL)
    return make_target(
        endpoint,
        unit,
        Table(table),
        address,
        count,
        RegisterType(kind),
        Order(order),
        length,
        bit,
        writing=writing,
    )


def _run(target: Target, work: Callable[[ModbusClient], Awaitable[T]]) -> T:
    async def run() -> T:
        async with ModbusClient(target.endpoint) as client:
            return await work(client)

    try:
        return asyncio.run(run())
    except (LinkError, ProtocolError, DeviceRefused) as exc:
        raise click.ClickException(str(exc)) from exc
    except BadValue as exc:
        raise ConfigError([Fault("VALUE", str(exc))]) from exc

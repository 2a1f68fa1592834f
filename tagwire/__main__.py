"""The `tagwire` command."""

import sys
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

import click

from links.environment import EXIT_CONFIG, exit_on_config_error
from scada.errors import ConfigError

_COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "console": "tagwire.console",
        "demo": "tagwire.demo",
        "doctor": "tagwire.doctor",
        "publish": "tagwire.publish",
        "registers": "tagwire.registers",
    }
)


class _Commands(click.Group):
    """Commands that are imported when they are asked for, so that each starts as fast as it can."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_COMMANDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return super().get_command(ctx, cmd_name)
        command = getattr(import_module(module), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Start Tagwire, and look into a running one."""


@cli.command()
@click.option("--only", metavar="NAMES", help="Start only these programs, with commas between them.")
@click.option("--demo", is_flag=True, envvar="DEMO", help="Start a fleet of simulated IoT devices as well.")
def up(only: str | None, demo: bool) -> None:
    """Start the broker and every program, and keep them running until Ctrl-C."""
    from tagwire.up import run_up

    sys.exit(exit_on_config_error(run_up)(only, demo))


def main() -> None:
    """The console script. Exit code 2: what was asked for cannot be; 1: it could not be done now."""
    try:
        cli(prog_name="tagwire")
    except ConfigError as exc:
        print("\n".join(["Not done:", *(f"  {fault}" for fault in exc.faults)]), file=sys.stderr, flush=True)
        sys.exit(EXIT_CONFIG)


if __name__ == "__main__":
    main()

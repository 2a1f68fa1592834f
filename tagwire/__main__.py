"""The `tagwire` command."""

import sys
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

import click

from links.environment import exit_on_config_error

_COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "demo": "tagwire.demo",
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

    sys.exit(run_up(only, demo))


@exit_on_config_error
def main() -> None:
    """The console script."""
    cli(prog_name="tagwire")


if __name__ == "__main__":
    main()

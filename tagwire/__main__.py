"""The `tagwire` command."""

import sys

import click

from links.environment import exit_on_config_error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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

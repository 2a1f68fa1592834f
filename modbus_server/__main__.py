"""Start the Modbus TCP server: `python -m modbus_server`."""

import asyncio

from links.environment import exit_on_config_error
from links.logs import start_logging
from links.loop import new_event_loop
from modbus_server.service import serve
from modbus_server.settings import from_env


def _say(line: str) -> None:
    print(line, flush=True)


@exit_on_config_error
def main() -> None:
    """Read the settings and serve until SIGTERM or SIGINT."""
    start_logging()
    settings = from_env()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(settings, _say))


if __name__ == "__main__":
    main()

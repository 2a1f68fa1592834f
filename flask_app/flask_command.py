"""What flask's own command, `flask run`, says of the port that it listens on."""

import logging
import os
import socket

import click
from click.core import ParameterSource

from scada.errors import Fault

# werkzeug's: the reloader's child serves on a socket that its parent has opened already.
_INHERITED_SOCKET = "WERKZEUG_SERVER_FD"

_log = logging.getLogger(__name__)


def port_faults(context: click.Context) -> list[Fault]:
    """What keeps the command from listening; nothing for a command that does not listen."""
    host, port = context.params.get("host"), context.params.get("port")
    if not isinstance(host, str) or not isinstance(port, int) or os.environ.get(_INHERITED_SOCKET):
        return []
    if host.startswith("unix://"):
        return []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As werkzeug does. It is not listened on: a client could mistake it for the application.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return [Fault("FLASK_RUN_PORT", f"{host}:{port}: {error.strerror or error}")]
    return []


def warn_of_port(context: click.Context, wanted: int) -> None:
    """`flask run` has a setting of its own for its port, and has read it before it asks for the application."""
    if context.get_parameter_source("port") is ParameterSource.DEFAULT and wanted != context.params["port"]:
        _log.warning(
            "flask run listens on port %d: it reads FLASK_RUN_PORT, not FLASK_APP_PORT (%d)",
            context.params["port"],
            wanted,
        )

"""`python -m flask_app`: the REST application in production manner."""

import logging
import sys

from links.environment import EXIT_CONFIG, exit_on_config_error
from links.logs import start_logging


@exit_on_config_error
def main() -> int:
    """Serve until SIGTERM; 2 for wrong settings, a database that is not ours, or a port that is taken."""
    from flask_app.settings import Settings

    settings = Settings.from_env()
    start_logging()
    from flask_app.server import listen, serve

    try:
        sock = listen(settings.host, settings.port)
    except OSError as error:
        print(
            f"Cannot start:\n  {settings.host}:{settings.port}: {error.strerror or error}", file=sys.stderr, flush=True
        )
        return EXIT_CONFIG
    from flask_app.app import create_app
    from flask_app.bridge import Limits
    from flask_app.live import EXTENSION, Live
    from flask_app.metrics import refusal_counter

    app = create_app(settings)
    logging.getLogger("flask_app").info("REST on http://%s:%d", settings.host, settings.port)
    live: Live = app.extensions[EXTENSION]
    live.start()
    limits = Limits(body=settings.body_limit, threads=settings.threads)
    serve(app, sock, limits, refusal_counter(app), ending=live.waiters.let_go, ended=live.close)
    return 0


if __name__ == "__main__":
    sys.exit(main())

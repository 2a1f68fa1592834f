"""The application factory. `cd flask_app && flask run` finds it here."""

import logging
from typing import Any

import click
import werkzeug.exceptions
from flask import Flask, Response, redirect, request
from flask.typing import ResponseReturnValue
from werkzeug.routing import BaseConverter

from flask_app import errors, live, metrics, pages, waits
from flask_app.database import Database
from flask_app.documentation import Documentation
from flask_app.flask_command import port_faults, warn_of_port
from flask_app.json_provider import OrjsonProvider
from flask_app.probe import EXTENSION, Prober
from flask_app.settings import Settings
from links.environment import exit_on_config_error
from scada.errors import ConfigError, Fault, LinkError, NotFound
from scada.topics import BusTopics
from storage.location import INSTANCE_FOLDER

_log = logging.getLogger(__name__)
# What the API gives; whoever accepts none of it gets 406.
_GIVEN = (
    "application/json",
    "application/problem+json",
    "application/yaml",
    "application/x-yaml",
    "text/yaml",
    "text/csv",
)


class _TagConverter(BaseConverter):
    """A tag by id or full name. `bulk` is neither, and a path of its own with other methods: a method that it has not is 405."""

    regex = r"(?!bulk\Z)[^/]+"
    part_isolating = True


def create_app(settings: Settings | None = None) -> Flask:
    """The application with its database opened, if that answers; else requests get 503 until it does.

    Without `settings` they come from the environment. Raises ConfigError for wrong settings and for a database that is not
    ours; within flask's own command that is a message and exit code 2, as is a port that is taken.
    """
    if settings is not None:
        return _build(settings)
    context = click.get_current_context(silent=True)
    return _build(Settings.from_env()) if context is None else _build_for_command(context)


@exit_on_config_error
def _build_for_command(context: click.Context) -> Flask:
    port = port_faults(context)
    try:
        settings = Settings.from_env()
    except ConfigError as error:
        raise ConfigError([*error.faults, *port]) from None
    if port:
        raise ConfigError(port)
    warn_of_port(context, settings.port)
    return _build(settings, is_served_by_flask=True)


def _build(settings: Settings, *, is_served_by_flask: bool = False) -> Flask:
    app = Flask("flask_app", instance_path=str(INSTANCE_FOLDER), static_folder=None)
    app.json = OrjsonProvider(app)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=settings.database_uri,
        BUS_ROOT=settings.bus.root,
        MAX_CONTENT_LENGTH=settings.max_import,
        # A form has no place in this API; what is no JSON is refused before anything is parsed.
        MAX_FORM_MEMORY_SIZE=64 * 1024,
        MAX_FORM_PARTS=16,
    )
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    app.url_map.converters["tag"] = _TagConverter
    errors.register(app)
    metrics.register(app)
    database = Database()
    database.init_app(app)
    app.extensions[EXTENSION] = Prober()
    live.register(
        app,
        live.Live(settings.mqtt, BusTopics(settings.bus.root), lambda: database.open(app)),
        on_request=is_served_by_flask,
    )
    _guard(app, settings)
    waits.register(app)
    Documentation(app).serve()
    app.register_blueprint(pages.blueprint())
    try:
        database.open(app)
    except LinkError as error:
        _log.error("%s; requests are refused until it answers", error)
    return app


def _guard(app: Flask, settings: Settings) -> None:
    @app.before_request
    def refuse() -> ResponseReturnValue | None:
        if isinstance(request.routing_exception, werkzeug.exceptions.NotFound):
            raise NotFound(f"no path {request.path[:200]!r}; /docs/ shows all there are")
        request.max_content_length = settings.body_limit(request.path)
        twice = [name for name, values in request.args.lists() if len(values) > 1]
        if twice and request.path.startswith("/api/"):
            raise ConfigError([Fault(name[:64], "is given more than once") for name in twice])
        accepted = request.accept_mimetypes
        if accepted and request.path.startswith("/api/") and not accepted.best_match(_GIVEN):
            raise werkzeug.exceptions.NotAcceptable("the API gives JSON, for some resources YAML or CSV as well")
        return None

    @app.after_request
    def protect(response: Response) -> Response:
        # OWASP Secure Headers. Scripts, styles and data come from here only; Swagger UI's icons are data: images.
        for name, value in pages.SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        if request.path.startswith("/api/"):
            response.headers.setdefault("Cache-Control", "no-cache")
        return response

    # Both relative: behind a proxy this program knows neither the name nor the scheme that the client used.
    @app.get("/docs")
    @app.get("/")
    def root() -> Any:
        return redirect("/docs/")

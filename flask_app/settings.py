"""The REST application's settings."""

from dataclasses import dataclass, field

from environs import validate

from links.environment import (
    PORT,
    BusSettings,
    MqttSettings,
    open_environment,
    read_bus,
    read_database_uri,
    read_mqtt,
    seal,
)

_MIB = 1024 * 1024
# What takes a whole configuration or a table of tags; every other body is one object, or a list of tags.
_IMPORT_PATHS = frozenset({"/api/v1/config", "/api/v1/tags.csv"})


@dataclass(frozen=True, slots=True)
class Settings:
    """Read once, at start. Sizes are in bytes."""

    host: str
    port: int
    database_uri: str
    max_body: int
    max_import: int
    threads: int
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    bus: BusSettings = field(default_factory=BusSettings)

    @classmethod
    def from_env(cls) -> "Settings":
        """The settings from the environment and `.env`; raises ConfigError with every fault."""
        env = open_environment()
        size = validate.Range(min=1, max=1024)
        settings = cls(
            host=env.str(
                "FLASK_APP_HOST",
                "127.0.0.1",
                validate=validate.Regexp(r"\S+$", error="must be a host name or an address"),
            ),
            port=env.int("FLASK_APP_PORT", 5000, validate=PORT),
            database_uri=read_database_uri(env),
            max_body=_MIB * (env.int("FLASK_APP_MAX_BODY_MB", 8, validate=size) or 0),
            max_import=_MIB * (env.int("FLASK_APP_MAX_IMPORT_MB", 32, validate=size) or 0),
            threads=env.int("FLASK_APP_THREADS", 8, validate=validate.Range(min=1, max=64)),
            mqtt=read_mqtt(env),
            bus=read_bus(env),
        )
        seal(env)
        return settings

    def body_limit(self, path: str) -> int:
        """The longest request body for a path."""
        return self.max_import if path.rstrip("/") in _IMPORT_PATHS else self.max_body

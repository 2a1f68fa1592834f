"""The gateway's settings, read once from the environment and `.env`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from links.environment import (
    BusSettings,
    MqttSettings,
    open_environment,
    read_bus,
    read_data_dir,
    read_database_uri,
    read_mqtt,
    seal,
)
from links.shard import Shard, read_shard


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the gateway reads from outside."""

    mqtt: MqttSettings
    bus: BusSettings
    database_uri: str
    data_dir: Path
    shard: Shard

    @property
    def client_id(self) -> str:
        """The MQTT client id on the devices' topics: it names the persistent session."""
        return f"{self.mqtt.client_id_prefix}-{self.owner}"

    @property
    def owner(self) -> str:
        """This program's name in bus topics."""
        return self.shard.name("mqtt_server")

    @classmethod
    def from_env(cls) -> Self:
        """Read and check every setting; raises ConfigError with all faults."""
        env = open_environment()
        settings = cls(
            mqtt=read_mqtt(env),
            bus=read_bus(env),
            database_uri=read_database_uri(env),
            data_dir=read_data_dir(env),
            shard=read_shard(env),
        )
        seal(env)
        return settings

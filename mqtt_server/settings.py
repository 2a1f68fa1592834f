"""The gateway's settings, read once from the environment and `.env`."""

from dataclasses import dataclass
from typing import Self

from links.environment import OwnerSettings, open_environment, read_owner, seal
from links.shard import Shard, read_shard


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the gateway reads from outside."""

    owner: OwnerSettings
    shard: Shard

    @property
    def client_id(self) -> str:
        """The MQTT client id on the devices' topics: it names the persistent session."""
        return f"{self.owner.mqtt.client_id_prefix}-{self.owner.name}"

    @classmethod
    def from_env(cls) -> Self:
        """Read and check every setting; raises ConfigError with all faults."""
        env = open_environment()
        shard = read_shard(env)
        settings = cls(read_owner(env, shard.name("mqtt_server")), shard)
        seal(env)
        return settings

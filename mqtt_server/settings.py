"""The gateway's settings, read once from the environment and `.env`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from links.environment import MqttSettings, open_environment, read_data_dir, read_database_uri, read_mqtt, seal


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `index` of `count` (index from 1): this process owns the devices whose id falls into it."""

    index: int = 1
    count: int = 1

    def owns(self, device_id: int) -> bool:
        """True for exactly one of the `count` shards."""
        return device_id % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}of{self.count}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the gateway reads from outside."""

    mqtt: MqttSettings
    database_uri: str
    data_dir: Path
    shard: Shard

    @property
    def client_id(self) -> str:
        """The MQTT client id: it names the persistent session. No dot in it: the embedded broker refuses one."""
        suffix = "" if self.shard.count == 1 else f"-{self.shard}"
        return f"{self.mqtt.client_id_prefix}-mqtt_server{suffix}"

    @property
    def owner(self) -> str:
        """This program's name in bus topics."""
        return "mqtt_server" if self.shard.count == 1 else f"mqtt_server-{self.shard}"

    @classmethod
    def from_env(cls) -> Self:
        """Read and check every setting; raises ConfigError with all faults."""
        env = open_environment()
        mqtt = read_mqtt(env)
        uri = read_database_uri(env)
        data_dir = read_data_dir(env)
        shard = Shard()
        text = env.str("TAGWIRE_SHARD", "1/1")
        match = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text or "")
        if match and 1 <= int(match[1]) <= int(match[2]):
            shard = Shard(int(match[1]), int(match[2]))
        else:
            env.fault("TAGWIRE_SHARD", "must be INDEX/COUNT with INDEX from 1 to COUNT, for example 2/8")
        seal(env)
        return cls(mqtt, uri, data_dir, shard)

"""The field server's settings, read once from the environment and `.env`."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from environs import validate as check

from links.environment import OwnerSettings, open_environment, read_owner, seal
from links.shard import Shard, read_shard
from scada.config import ScanClass

_PERIOD = check.Range(min=10, max=86_400_000)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the field server reads from outside. `periods_ms` says what the scan classes mean."""

    owner: OwnerSettings
    shard: Shard
    periods_ms: Mapping[ScanClass, int]
    connects_per_s: float

    @classmethod
    def from_env(cls) -> Self:
        """Read and check every setting; raises ConfigError with all faults."""
        env = open_environment()
        shard = read_shard(env)
        settings = cls(
            owner=read_owner(env, shard.name("field_server")),
            shard=shard,
            periods_ms=MappingProxyType(
                {
                    ScanClass.FAST: env.int("FIELD_SERVER_FAST_MS", 200, validate=_PERIOD),
                    ScanClass.NORMAL: env.int("FIELD_SERVER_NORMAL_MS", 1000, validate=_PERIOD),
                    ScanClass.SLOW: env.int("FIELD_SERVER_SLOW_MS", 10_000, validate=_PERIOD),
                }
            ),
            connects_per_s=env.float("FIELD_SERVER_CONNECTS_PER_S", 90.0, validate=check.Range(min=0.1, max=10_000)),
        )
        seal(env)
        return settings

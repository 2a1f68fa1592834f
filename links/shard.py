"""Which share of the devices a process owns, where several run beside each other."""

import re
from dataclasses import dataclass

from links.environment import Environment


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `index` of `count` (index from 1): this process owns the devices whose id falls into it."""

    index: int = 1
    count: int = 1

    def owns(self, device_id: int) -> bool:
        """True for exactly one of the `count` shards."""
        return device_id % self.count == self.index - 1

    def name(self, program: str) -> str:
        """What this process calls itself on the bus, in its lock file and to the broker (no dot: the embedded one refuses it)."""
        return program if self.count == 1 else f"{program}-{self}"

    def __str__(self) -> str:
        return f"{self.index}of{self.count}"


def read_shard(env: Environment) -> Shard:
    """TAGWIRE_SHARD; faults are left in `env` for `seal`."""
    text = env.str("TAGWIRE_SHARD", "1/1")
    match = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text or "")
    if match and 1 <= int(match[1]) <= int(match[2]):
        return Shard(int(match[1]), int(match[2]))
    env.fault("TAGWIRE_SHARD", "must be INDEX/COUNT with INDEX from 1 to COUNT, for example 2/8")
    return Shard()

"""What the configuration of a device that speaks MQTT may say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from scada.config import Direction
from scada.errors import Fault
from scada.paths import compile_path
from scada.schema import spec
from scada.timestamps import TimeFormat
from scada.topic_index import matches
from scada.topics import check_topic_filter, check_topic_name


@dataclass(frozen=True, slots=True)
class MqttNetwork:
    """How a device speaks MQTT."""

    topic: str | None = spec(
        "topic or filter (wildcards + and #) the device publishes to; device/<id> when left out",
        None,
        check=check_topic_filter,
    )
    samples: str | None = spec(
        "JSON path of an array whose elements are mapped one after the other, each as a message",
        None,
        check=compile_path,
    )
    time: str | None = spec("JSON path of the source time stamp", None, check=compile_path)
    time_format: TimeFormat = spec("how the time stamp is written", TimeFormat.AUTO)
    out_topic: str | None = spec(
        "topic that the values of bindings out are published to; device/<id>/out when left out",
        None,
        check=check_topic_name,
    )
    out_retain: bool = spec("publish what goes out as retained", False)
    silent_after_s: float = spec(
        "a tag that no message spoke of for so long is bad (stale); 0: never", 0.0, minimum=0, maximum=86_400 * 365
    )

    def faults(self) -> Iterator[Fault]:
        if self.topic is not None and self.out_topic is not None and matches(self.topic, self.out_topic):
            yield Fault("out_topic", f"the device itself listens to it ({self.topic}): it would read what it is sent")


@dataclass(frozen=True, slots=True)
class MqttAddress:
    """Where in a device's message a tag's value stands."""

    path: str | None = spec(
        'JSON path, for example a.b[0]["x y"]; "" is the whole payload; for a binding out dotted names only',
        None,
        check=compile_path,
    )
    bits: tuple[str, ...] | None = spec(
        "JSON paths of up to 16 booleans, packed into one integer, the first into bit 0",
        None,
        max_length=16,
        check=compile_path,
    )

    def faults(self) -> Iterator[Fault]:
        if (self.path is None) == (self.bits is None):
            yield Fault("", "needs either path or bits")
        if self.bits == ():
            yield Fault("bits", "must not be empty")

    def directed(self, direction: Direction) -> Iterator[Fault]:
        """What is wrong with it in a binding of this direction: what goes out becomes an object of dotted names."""
        if direction is not Direction.OUT:
            return
        if self.path is None:
            yield Fault("bits", "a binding out needs a path")
            return
        parts = compile_path(self.path).parts
        if not parts or not all(isinstance(part, str) for part in parts):
            yield Fault("path", f"a binding out needs dotted names, not {self.path!r:.60}")


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """How a value in a message is read."""

    numeric_text: bool = spec('take "12" for the number 12', False)
    enum: Mapping[str, object] | None = spec(
        'text to value, for example {"open": 1, "closed": 0}; other texts are rejected', None
    )

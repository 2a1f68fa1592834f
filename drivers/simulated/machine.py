"""What every model is to the driver."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from scada.values import Value


class Machine(ABC):
    """One machine. Its points are its attributes, unless a model says otherwise."""

    __slots__ = ()

    @abstractmethod
    def step(self, dt_s: float) -> None:
        """Let `dt_s` seconds pass, however many; what it costs does not depend on them."""

    def read(self, point: str) -> Value:
        """The value of a point of the model now."""
        found: Value = getattr(self, point)
        return found

    def objection(self, values: Mapping[str, Value]) -> str:
        """Why the machine, as it is now, does not take these values together; "" when it does."""
        return ""

    def write(self, values: Mapping[str, Value]) -> None:
        """Set writable points of the model; each value is of its point's type and in its range."""
        for point, value in values.items():
            setattr(self, point, value)

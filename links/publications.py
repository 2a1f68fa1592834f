"""Which published messages await the broker's acknowledgement: bookkeeping without a socket."""

from collections.abc import Callable

from scada.errors import LinkError

OnDone = Callable[[LinkError | None], None]
"""Called once: None when the broker acknowledged, PublishRefused when it said no, another LinkError when the connection ended."""


class PublishRefused(LinkError):
    """The broker's clean no to one message (MQTT 5 only): sent again it would be refused again."""


class Publications:
    """By the packet's number, which is used again as soon as it was answered."""

    def __init__(self) -> None:
        self._waiting: dict[int, OnDone] = {}

    def sent(self, mid: int, on_done: OnDone) -> None:
        """A message is on its way in the packet `mid`."""
        self._waiting[mid] = on_done

    def answered(self, mid: int, error: LinkError | None) -> None:
        """The broker's word on the packet `mid`."""
        on_done = self._waiting.pop(mid, None)
        if on_done is not None:
            on_done(error)

    def lost(self, error: LinkError) -> None:
        """The connection ended: nothing that waits will be answered."""
        waiting, self._waiting = self._waiting, {}
        for on_done in waiting.values():
            on_done(error)

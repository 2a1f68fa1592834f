"""What is to be done on a link ahead of reading: commands, and reads that somebody waits for."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from drivers.contract import Link
from scada.errors import ConfigError, DeviceRefused, LinkError, ProtocolError
from scada.values import BadValue

Action = Callable[[Link], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Errand:
    action: Action
    done: asyncio.Future[None]


class Errands:
    """Of one link, in the order in which they were asked for. `on_new` is called with each."""

    def __init__(self, on_new: Callable[[], None]) -> None:
        self._on_new = on_new
        self._waiting: deque[_Errand] = deque()
        self._ended = False

    def __bool__(self) -> bool:
        while self._waiting and self._waiting[0].done.done():
            self._waiting.popleft()  # nobody waits for it any more
        return bool(self._waiting)

    async def perform(self, action: Action) -> None:
        """Have `action` done and wait for it; raises what it raises, and LinkError when the link is given up meanwhile.

        Cancelled before it begins, it is not done at all.
        """
        if self._ended:
            raise _given_up()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Errand(action, done))
        self._on_new()
        await done

    async def do_next(self, link: Link) -> None:
        """Do the first one; its fault is the asker's. Raises only what is a fault of ours."""
        errand = self._waiting.popleft()
        result: BaseException | None = _given_up()  # what the asker is told when this task is cancelled meanwhile
        try:
            await errand.action(link)
            result = None
        except (LinkError, ProtocolError, DeviceRefused, ConfigError, BadValue, KeyError) as error:
            result = error
        except Exception as error:  # raised again: the asker must not wait for ever for what a fault of ours has ended
            result = error
            raise
        finally:
            if errand.done.done():
                pass  # the asker has given it up
            elif result is None:
                errand.done.set_result(None)
            else:
                errand.done.set_exception(result)

    def close(self) -> None:
        """The link is given up, and so are they."""
        self._ended = True
        for errand in self._waiting:
            if not errand.done.done():
                errand.done.set_exception(_given_up())
        self._waiting.clear()


def _given_up() -> LinkError:
    return LinkError("its link was given up: the configuration changed, or the program ends")

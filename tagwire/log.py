"""The logs of several programs on one terminal: time, name, line; a colour for each name where there is a terminal."""

import os
import time
from collections.abc import Callable, Sequence
from typing import TextIO

_COLOURS = (36, 33, 35, 32, 34, 96)  # of ECMA-48's SGR: readable on dark and on light
_OURS = 1  # bold


class Log:
    """Prints lines to `out`. When nobody reads any more, `on_closed` is called once and the lines are dropped."""

    def __init__(self, out: TextIO, names: Sequence[str], on_closed: Callable[[], None]) -> None:
        self._out = out
        self._on_closed = on_closed
        self._closed = False
        width = max(map(len, (*names, "tagwire")))
        colours = out.isatty() and not os.environ.get("NO_COLOR")
        self._prefix = {
            name: f"\033[{colour}m{name:{width}}\033[0m" if colours else f"{name:{width}}"
            for name, colour in ((*zip(names, _COLOURS * len(names), strict=False), ("tagwire", _OURS)))
        }

    def say(self, name: str, line: str) -> None:
        """Print one line of a program's log."""
        self.print(f"{time.strftime('%H:%M:%S')} {self._prefix[name]} | {line}")

    def print(self, text: str) -> None:
        """Print text as it is."""
        if self._closed:
            return
        try:
            print(text, file=self._out, flush=True)
        except OSError:
            # `tagwire up | head`: the reader has seen enough, so everything ends.
            self._closed = True
            self._on_closed()

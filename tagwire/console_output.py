"""Where the console's lines go: standard output, without disturbing a line that is being typed."""

import sys
import threading
from collections import deque
from collections.abc import Callable

MAX_HELD = 20_000
MAX_AT_ONCE = 200
"""Lines of changes that a terminal is given at a time; nobody can read more of them."""


class Output:
    """Called from the loop's thread and from the one that reads the keyboard. `typed` gives prompt and line being typed."""

    def __init__(self, terminal: bool, typed: Callable[[], str] | None = None) -> None:
        self.terminal = terminal
        self.closed = False
        """Nobody reads any more (`tagwire console list | head`)."""
        self.prompting = False
        self._typed = typed
        self._lock = threading.Lock()
        self._held: deque[str] = deque()
        self._skipped = 0

    def say(self, *lines: str) -> None:
        """Lines of an answer."""
        if lines:
            self._write("\n".join(lines) + "\n")

    def complain(self, text: str) -> None:
        """A line about what went wrong; where programs read our output it stays out of that."""
        if self.terminal:
            self._write(f"{text}\n")
        else:
            print(text, file=sys.stderr, flush=True)

    def hold(self, line: str) -> None:
        """A line of something that goes on by itself; it comes with the next `flush`. Beyond a bound the oldest are left out."""
        if len(self._held) >= MAX_HELD:
            self._held.popleft()
            self._skipped += 1
        self._held.append(line)

    def flush(self) -> None:
        """Write what was held."""
        if not self._held:
            return
        if self.terminal and len(self._held) > MAX_AT_ONCE:
            self._skipped += len(self._held) - MAX_AT_ONCE
            self._held = deque(list(self._held)[-MAX_AT_ONCE:])
        lines, self._held = list(self._held), deque()
        if self._skipped:
            self.complain(f"({self._skipped:,} changes not shown)")
            self._skipped = 0
        self.say(*lines)

    def _write(self, text: str) -> None:
        with self._lock:
            if self.closed:
                return
            if self.prompting and self._typed is not None:
                # Over the prompt, which is then written again with what was typed so far.
                text = f"\r\033[K{text}{self._typed()}"
            try:
                sys.stdout.write(text)
                sys.stdout.flush()
            except BrokenPipeError:
                self.closed = True
